"""The distribution of the image scores of one category: good and defective images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from utils.plots.figures import (
    DEFECT_COLOUR,
    FONT,
    INK,
    MARGIN,
    NORMAL_COLOUR,
    TICK_SIZE,
    add_axes,
    fit,
    measure_text,
    new_figure,
    render,
    say_nothing_to_measure,
    set_titles,
)

ROW_HEIGHT = 0.62  # inches, like all sizes here
MIN_HEIGHT = 2.4
MAX_HEIGHT = 40.0
PART_WIDTH = 5.2
LEFT = 2.35  # for the names of the defect types
GAP = 0.55
RIGHT = 0.4
TOP = 0.95
BOTTOM = 0.7

BIN_COUNT = 40
ROW_FILL = 0.76  # share of a row's height that is used
NAME_WIDTH = 1.6  # of a defect type's name, without the number of its images
LEGEND_WIDTH = 4.8
BAND = "#f4f4f4"


@dataclass(frozen=True, slots=True)
class _Group:
    """The images of one defect type.

    Attributes:
        name: The defect type.
        scores: (n,) float64, rising.
        defective: Whether any of the images is defective.
    """

    name: str
    scores: np.ndarray
    defective: bool

    @property
    def colour(self) -> str:
        return DEFECT_COLOUR if self.defective else NORMAL_COLOUR


def draw_score_distribution(
    scores: np.ndarray,
    labels: np.ndarray,
    defect_types: Sequence[str],
    *,
    title: str,
    auroc: float | None,
    threshold: float | None = None,
) -> np.ndarray:
    """Draw each image's score on the left and histograms on the right, one row per defect type.

    Good images come first, then the defect types by name. Both parts have the same score axis.
    Within a row, images are drawn higher the larger their score.

    Args:
        scores: (n,) float, the anomaly scores of the test images.
        labels: (n,) bool, true for defective images.
        defect_types: n names, "good" for good images.
        title: The title of the figure, usually the category.
        auroc: The image AUROC for the title; None if it is undefined.
        threshold: The score from which an image counts as defective, drawn as a line; None for no
            line.

    Returns:
        (H, W, 3) uint8 RGB. Without images it says that there is nothing to measure.
    """
    scores = np.asarray(scores, np.float64)
    groups = _group(scores, labels, defect_types)
    height = min(max(ROW_HEIGHT * len(groups), MIN_HEIGHT), MAX_HEIGHT)
    width = LEFT + PART_WIDTH + GAP + PART_WIDTH + RIGHT
    heading = f"{title}, AUROC {measure_text(auroc)}"
    figure = new_figure(width, TOP + height + BOTTOM, heading, width - MARGIN - LEGEND_WIDTH)
    points = add_axes(figure, LEFT, BOTTOM, PART_WIDTH, height)
    bars = add_axes(figure, LEFT + PART_WIDTH + GAP, BOTTOM, PART_WIDTH, height)
    set_titles(points, "Score of each test image", "anomaly score")
    set_titles(bars, "Histogram (share of the type's images)", "anomaly score")

    limits = _score_limits(scores, threshold)
    for axes in (points, bars):
        _prepare_rows(axes, groups, limits)
        if not groups:
            say_nothing_to_measure(axes)
        if threshold is not None:
            axes.axvline(threshold, color=INK, linewidth=1.2, linestyle=(0, (4, 3)))
    _name_rows(points, groups)
    bars.tick_params(axis="y", labelleft=False)
    _draw_points(points, groups)
    _draw_histograms(bars, groups, limits)
    _add_legend(figure, groups, threshold)
    return render(figure)


def _group(scores: np.ndarray, labels: np.ndarray, defect_types: Sequence[str]) -> list[_Group]:
    names = np.array(defect_types, dtype=object)
    groups = [
        _Group(name, np.sort(scores[names == name]), bool(labels[names == name].any()))
        for name in set(defect_types)
    ]
    return sorted(groups, key=lambda group: (group.defective, group.name))


def _score_limits(scores: np.ndarray, threshold: float | None) -> tuple[float, float]:
    """Return the limits of the score axis: those of all scores and the threshold, and a margin."""
    shown = scores if threshold is None else np.append(scores, threshold)
    if shown.size == 0:
        return 0.0, 1.0
    low, high = float(shown.min()), float(shown.max())
    size = max(abs(low), abs(high))
    # Equal scores still need an axis of some width.
    margin = 0.03 * (high - low) if high - low > 1e-9 * size else 0.1 * size or 0.1
    return low - margin, high + margin


def _prepare_rows(axes: Axes, groups: Sequence[_Group], limits: tuple[float, float]) -> None:
    count = max(len(groups), 1)
    axes.set_xlim(*limits)
    axes.set_ylim(count - 0.5, -0.5)  # the first row at the top
    axes.set_yticks(range(len(groups)))
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")
    for row in range(0, count, 2):
        axes.axhspan(row - 0.5, row + 0.5, color=BAND, linewidth=0, zorder=0)


def _name_rows(axes: Axes, groups: Sequence[_Group]) -> None:
    names = [f"{fit(group.name, TICK_SIZE, NAME_WIDTH)} ({len(group.scores)})" for group in groups]
    axes.set_yticklabels(names, parse_math=False, fontfamily=FONT)


def _draw_points(axes: Axes, groups: Sequence[_Group]) -> None:
    for row, group in enumerate(groups):
        count = len(group.scores)
        # Points that rise with their rank hide each other less than points on a line.
        heights = row + ROW_FILL * (0.5 - (np.arange(count) + 0.5) / count)
        axes.plot(
            group.scores,
            heights,
            linestyle="none",
            marker="o",
            markersize=5,
            markeredgewidth=0.5,
            markeredgecolor="white",
            color=group.colour,
        )


def _draw_histograms(axes: Axes, groups: Sequence[_Group], limits: tuple[float, float]) -> None:
    edges = np.linspace(*limits, BIN_COUNT + 1)
    shares = [np.histogram(group.scores, edges)[0] / len(group.scores) for group in groups]
    highest = max((share.max() for share in shares), default=1.0)
    for row, (group, share) in enumerate(zip(groups, shares, strict=True)):
        floor = row + ROW_FILL / 2
        tops = floor - ROW_FILL * share / highest
        axes.stairs(tops, edges, baseline=floor, fill=True, color=group.colour, linewidth=0)
        axes.axhline(floor, color=group.colour, linewidth=0.8)


def _add_legend(figure: Figure, groups: Sequence[_Group], threshold: float | None) -> None:
    handles, names = [], []
    for defective, name, colour in (
        (False, "good", NORMAL_COLOUR),
        (True, "defective", DEFECT_COLOUR),
    ):
        if any(group.defective == defective for group in groups):
            handles.append(Line2D([], [], linestyle="none", marker="o", color=colour))
            names.append(name)
    if threshold is not None:
        handles.append(Line2D([], [], color=INK, linewidth=1.2, linestyle=(0, (4, 3))))
        names.append(f"threshold {threshold:.4g}")
    width, height = figure.get_size_inches()
    figure.legend(
        handles,
        names,
        loc="upper right",
        bbox_to_anchor=(1 - RIGHT / width, 1 - MARGIN / height),
        ncols=3,
        frameon=False,
        borderpad=0,
        borderaxespad=0,
        columnspacing=1.6,
        labelcolor=INK,
        prop={"family": FONT, "size": TICK_SIZE + 1},
    )
