"""Curves of all categories, one panel per kind of curve (ROC of images, ROC of pixels, ...)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from utils.plots.figures import (
    FAINT_INK,
    FONT,
    INK,
    MARGIN,
    PALETTE,
    TICK_SIZE,
    add_axes,
    fit,
    is_defined,
    measure_text,
    new_figure,
    render,
    say_nothing_to_measure,
    set_titles,
    style_axes,
)

Limits = tuple[float, float]
# x values, y values and the measure of the curve, such as its AUROC (None or NaN: undefined).
Curve = tuple[np.ndarray, np.ndarray, float | None]

PANEL_SIDE = 4.7  # inches, like all sizes here
LEFT = 0.85
LEGEND_WIDTH = 2.6
TOP = 0.95
BOTTOM = 0.7
# Left, bottom, width and height of an inset as fractions of the panel, below good curves.
INSET_BOX = (0.42, 0.11, 0.53, 0.53)

# With the colours, a style of its own for each of 35 categories.
LINE_STYLES = (
    *("-", (0, (5, 2)), (0, (1.2, 1.2))),
    *((0, (7, 1.5, 1.2, 1.5)), (0, (3, 1.2, 1.2, 1.2, 1.2, 1.2))),
)
NAME_WIDTH = 1.2  # of a category's name in the legend
LEGEND_SPACING = 0.35  # between lines, in font sizes
FIGURE_SPACE = "\u2007"  # as wide as a digit
# A curve of 10 million points is reduced to the points that differ on this grid. The grid is ten
# times finer than the figure's pixels, so that the curve stays sharp in the inset.
GRID_STEPS = 8192


@dataclass(frozen=True, slots=True)
class CurveFamily:
    """A kind of curves, which one panel shows.

    Attributes:
        title: The title of the panel.
        measure: The name of the curves' measure.
        x_label: The label of the x axis.
        y_label: The label of the y axis.
        x_limits: The limits of the x axis.
        y_limits: The limits of the y axis.
        zoom: The limits of x and y that an inset enlarges; None for no inset.
        chance: x values and y values of the curve of random scores; None for no such line.
    """

    title: str
    measure: str
    x_label: str
    y_label: str
    x_limits: Limits = (0.0, 1.0)
    y_limits: Limits = (0.0, 1.0)
    zoom: tuple[Limits, Limits] | None = None
    chance: tuple[Limits, Limits] | None = None


_ROC_ZOOM = ((0.0, 0.1), (0.9, 1.0))
_DIAGONAL = ((0.0, 1.0), (0.0, 1.0))
_ROC_LABELS = ("AUROC", "false positive rate", "true positive rate")
IMAGE_ROC = CurveFamily("Image ROC", *_ROC_LABELS, zoom=_ROC_ZOOM, chance=_DIAGONAL)
PIXEL_ROC = CurveFamily("Pixel ROC", *_ROC_LABELS, zoom=_ROC_ZOOM, chance=_DIAGONAL)
_PR_LABELS = ("AP", "recall", "precision")
IMAGE_PR = CurveFamily("Image precision-recall", *_PR_LABELS)
PIXEL_PR = CurveFamily("Pixel precision-recall", *_PR_LABELS)
_PRO_LABELS = ("AUPRO", "false positive rate", "mean overlap of defect regions")


def draw_roc_curves(
    image_curves: Mapping[str, Curve], pixel_curves: Mapping[str, Curve], *, title: str
) -> np.ndarray:
    """Draw the ROC curves of all categories, images on the left and pixels on the right.

    Args:
        image_curves: For each category the false positive rates, (n,) float in [0, 1], the true
            positive rates, (n,) float in [0, 1], both rising, and the AUROC. An undefined AUROC
            (None or NaN) is written as a dash and left out of the mean.
        pixel_curves: The same for pixels. A category has the same colour in both panels.
        title: The title of the figure.

    Returns:
        (H, W, 3) uint8 RGB. A panel without categories says that there is nothing to measure.
    """
    return draw_curve_families([(IMAGE_ROC, image_curves), (PIXEL_ROC, pixel_curves)], title=title)


def draw_precision_recall_curves(
    image_curves: Mapping[str, Curve], pixel_curves: Mapping[str, Curve], *, title: str
) -> np.ndarray:
    """Draw precision over recall, images on the left and pixels on the right.

    Args:
        image_curves: For each category the recall, (n,) float in [0, 1], rising, the precision,
            (n,) float in [0, 1], and the average precision.
        pixel_curves: The same for pixels.
        title: The title of the figure.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    return draw_curve_families([(IMAGE_PR, image_curves), (PIXEL_PR, pixel_curves)], title=title)


def draw_pro_curves(curves: Mapping[str, Curve], *, fpr_limit: float, title: str) -> np.ndarray:
    """Draw the per-region overlap up to a false positive rate.

    Args:
        curves: For each category the false positive rates, (n,) float in [0, 1], the mean overlaps
            of the defect regions, (n,) float in [0, 1], both rising, and the AUPRO.
        fpr_limit: The false positive rate at which the curves end, in (0, 1].
        title: The title of the figure.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    heading = f"Per-region overlap up to {fpr_limit:g}"
    family = CurveFamily(heading, *_PRO_LABELS, x_limits=(0.0, fpr_limit))
    return draw_curve_families([(family, curves)], title=title)


def draw_curve_families(
    panels: Sequence[tuple[CurveFamily, Mapping[str, Curve]]], *, title: str
) -> np.ndarray:
    """Draw panels of curves side by side, each with its legend on the right.

    Args:
        panels: Each family with its curves by category: x values (n,), y values (n,), measure.
        title: The title of the figure.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    panel_width = LEFT + PANEL_SIDE + LEGEND_WIDTH
    width = panel_width * len(panels)
    # A long legend extends the figure downwards.
    legend = max(_legend_height(len(curves)) for _, curves in panels)
    bottom = max(BOTTOM, legend + MARGIN - PANEL_SIDE)
    figure = new_figure(width, TOP + PANEL_SIDE + bottom, title, width - 2 * MARGIN)
    categories = sorted({category for _, curves in panels for category in curves})
    styles = {category: _line_style(number) for number, category in enumerate(categories)}
    for number, (family, curves) in enumerate(panels):
        axes = add_axes(figure, number * panel_width + LEFT, bottom, PANEL_SIDE, PANEL_SIDE)
        _draw_family(axes, family, curves, styles)
    return render(figure)


def _line_style(number: int) -> dict[str, object]:
    """Return the colour and dashes of a category: the dashes change when the colours repeat."""
    repeats, colour = divmod(number, len(PALETTE))
    return {"color": PALETTE[colour], "linestyle": LINE_STYLES[repeats % len(LINE_STYLES)]}


def _draw_family(
    axes: Axes,
    family: CurveFamily,
    curves: Mapping[str, Curve],
    styles: Mapping[str, dict[str, object]],
) -> None:
    set_titles(axes, _panel_title(family, curves), family.x_label, family.y_label)
    _set_limits(axes, family.x_limits, family.y_limits)
    if not curves:
        say_nothing_to_measure(axes)
        return
    thinned = {category: _thin(*curves[category][:2], family) for category in curves}
    ranked = sorted(curves, key=lambda category: _rank(category, curves[category][2]))
    views = [axes]
    if family.zoom is not None:
        views.append(_add_inset(axes, family))
    for view in views:
        if family.chance is not None:
            view.plot(*family.chance, color=FAINT_INK, linewidth=1, linestyle=(0, (2, 3)))
        # The best curve is drawn last: it runs into the corner, where curves overlap.
        for category in reversed(ranked):
            view.plot(*thinned[category], linewidth=1.8, **styles[category])
    _add_legend(axes, family, [(category, curves[category][2]) for category in ranked], styles)


def _panel_title(family: CurveFamily, curves: Mapping[str, Curve]) -> str:
    measures = [curve[2] for curve in curves.values() if is_defined(curve[2])]
    mean = measure_text(float(np.mean(measures)) if measures else None)
    if len(curves) == 1:
        return f"{family.title}, {family.measure} {mean}"
    # Categories without a measure are no part of the mean.
    known = "" if len(measures) == len(curves) else f"{len(measures)} of "
    return f"{family.title}, mean {family.measure} of {known}{len(curves)} categories {mean}"


def _rank(category: str, measure: float | None) -> tuple[float, str]:
    """Return the key that sorts by descending measure, then by name, undefined measures last."""
    return (-measure if is_defined(measure) else np.inf, category)


def _set_limits(axes: Axes, x_limits: Limits, y_limits: Limits) -> None:
    """Set limits with a small margin, because the best curves run along the frame."""
    for limits, set_limits in ((x_limits, axes.set_xlim), (y_limits, axes.set_ylim)):
        margin = 0.015 * (limits[1] - limits[0])
        set_limits(limits[0] - margin, limits[1] + margin)


def _thin(x: np.ndarray, y: np.ndarray, family: CurveFamily) -> tuple[np.ndarray, np.ndarray]:
    """Drop the points that lie on the same point of the grid as both neighbours."""
    x, y = np.asarray(x), np.asarray(y)
    if len(x) <= 2:
        return x, y
    kept = np.zeros(len(x), bool)
    for values, limits in ((x, family.x_limits), (y, family.y_limits)):
        cells = np.floor((values - limits[0]) * (GRID_STEPS / (limits[1] - limits[0])))
        moved = np.diff(cells) != 0
        # Both sides of a step are kept, so that its corner remains a corner.
        kept[1:] |= moved
        kept[:-1] |= moved
    kept[[0, -1]] = True
    return x[kept], y[kept]


def _add_inset(axes: Axes, family: CurveFamily) -> Axes:
    inset = axes.inset_axes(INSET_BOX, facecolor="white")
    style_axes(inset)
    inset.tick_params(labelsize=TICK_SIZE - 2)
    _set_limits(inset, *family.zoom)
    # Behind the curves, so that it does not cross them out.
    axes.indicate_inset_zoom(inset, edgecolor=FAINT_INK, alpha=0.45, linewidth=0.8, zorder=1.5)
    return inset


def _add_legend(
    axes: Axes,
    family: CurveFamily,
    ranked: Sequence[tuple[str, float | None]],
    styles: Mapping[str, dict[str, object]],
) -> None:
    handles = [Line2D([], [], linewidth=2, **styles[category]) for category, _ in ranked]
    names = [_legend_text(category, measure) for category, measure in ranked]
    legend = axes.legend(
        handles,
        names,
        title=family.measure,
        loc="upper left",
        bbox_to_anchor=(1.03, 1.0),
        borderaxespad=0,
        borderpad=0,
        frameon=False,
        alignment="left",
        handlelength=2.2,
        labelspacing=LEGEND_SPACING,
        labelcolor=INK,
        prop={"family": FONT, "size": TICK_SIZE},
        title_fontproperties={"family": FONT, "size": TICK_SIZE, "weight": "bold"},
    )
    legend.get_title().set_color(INK)
    for text in legend.get_texts():
        text.set_parse_math(False)


def _legend_height(count: int) -> float:
    """Return the height in inches (72 points) of a legend of `count` lines and its heading."""
    return (count + 2) * (1 + LEGEND_SPACING) * 1.1 * TICK_SIZE / 72


def _legend_text(category: str, measure: float | None) -> str:
    # The number comes first: matplotlib leaves out entries that begin with an underscore.
    number = measure_text(measure).ljust(6, FIGURE_SPACE)
    return f"{number}  {fit(category, TICK_SIZE, NAME_WIDTH)}"
