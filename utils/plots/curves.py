"""Curves of all categories, one panel per family of curves (ROC of images, ROC of pixels, ...)."""

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
# x values, y values and the measure that sums the curve up (None or NaN: undefined).
Curve = tuple[np.ndarray, np.ndarray, float | None]

PANEL_SIDE = 4.7  # inches, as all sizes of figures
LEFT = 0.85
LEGEND_WIDTH = 2.6
TOP = 0.95
BOTTOM = 0.7

LINE_STYLES = ("-", (0, (5, 2)), (0, (1.2, 1.2)))
NAME_ROOM = 1.2  # of a category in the legend
LEGEND_SPACING = 0.35  # between lines, in font sizes
FIGURE_SPACE = "\u2007"  # as wide as a digit
# A curve through 10 million pixels is drawn with the points that are told apart on this grid, which
# is ten times finer than the figure's pixels, so that it stays sharp in the inset.
GRID_STEPS = 8192


@dataclass(frozen=True, slots=True)
class CurveFamily:
    """What one panel shows: names, limits and where the interesting corner is."""

    title: str
    measure: str
    x_label: str
    y_label: str
    x_limits: Limits = (0.0, 1.0)
    y_limits: Limits = (0.0, 1.0)
    # The part that an inset enlarges (limits of x and of y), and the place of the inset in the
    # panel (left, bottom, width, height as fractions), which must be where no good curve runs.
    zoom: tuple[Limits, Limits] | None = None
    inset_place: tuple[float, float, float, float] = (0.42, 0.11, 0.53, 0.53)
    # What a blind guess gives: x values and y values of a line.
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
    """Draw the ROC curves of all categories, of images at the left and of pixels at the right.

    Args:
        image_curves: per category the false positive rates, (n,) float in [0, 1], the true positive
            rates, (n,) float in [0, 1], both rising, and the area under the curve. Where that is
            None or NaN, undefined, a dash is written and the mean leaves it out.
        pixel_curves: the same for pixels. A category has the same colour in both panels.
        title: title of the whole figure.

    Returns:
        (H, W, 3) uint8 RGB. A panel without categories says that there is nothing to measure.

    Raises:
        ValueError: rates of one curve differ in length or have not exactly one axis.
    """
    return draw_curve_families([(IMAGE_ROC, image_curves), (PIXEL_ROC, pixel_curves)], title=title)


def draw_precision_recall_curves(
    image_curves: Mapping[str, Curve], pixel_curves: Mapping[str, Curve], *, title: str
) -> np.ndarray:
    """Draw precision over recall, of images at the left and of pixels at the right.

    Args:
        image_curves: per category recall, (n,) float in [0, 1], rising, precision, (n,) float in
            [0, 1], and the average precision.
        pixel_curves: the same for pixels.
        title: title of the whole figure.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: as `draw_roc_curves`.
    """
    return draw_curve_families([(IMAGE_PR, image_curves), (PIXEL_PR, pixel_curves)], title=title)


def draw_pro_curves(curves: Mapping[str, Curve], *, fpr_limit: float, title: str) -> np.ndarray:
    """Draw the per-region overlap up to a false positive rate.

    Args:
        curves: per category false positive rates, (n,) float in [0, 1], mean overlaps of the
            defect regions, (n,) float in [0, 1], both rising, and the AUPRO.
        fpr_limit: where the area under the curve ends, in (0, 1].
        title: title of the whole figure.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: as `draw_roc_curves`.
    """
    heading = f"Per-region overlap up to {fpr_limit:g}"
    family = CurveFamily(heading, *_PRO_LABELS, x_limits=(0.0, fpr_limit))
    return draw_curve_families([(family, curves)], title=title)


def draw_curve_families(
    panels: Sequence[tuple[CurveFamily, Mapping[str, Curve]]], *, title: str
) -> np.ndarray:
    """Draw families of curves side by side, each with its legend at its right.

    Args:
        panels: each family with its curves per category: x values (n,), y values (n,), measure.
        title: title of the whole figure.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: the values of one curve differ in length or have not exactly one axis.
    """
    panel_width = LEFT + PANEL_SIDE + LEGEND_WIDTH
    width = panel_width * len(panels)
    figure = new_figure(width, TOP + PANEL_SIDE + BOTTOM, title, width - 2 * MARGIN)
    categories = sorted({category for _, curves in panels for category in curves})
    styles = {category: _line_style(number) for number, category in enumerate(categories)}
    for number, (family, curves) in enumerate(panels):
        axes = add_axes(figure, number * panel_width + LEFT, BOTTOM, PANEL_SIDE, PANEL_SIDE)
        _draw_family(axes, family, curves, styles)
    return render(figure)


def _line_style(number: int) -> dict[str, object]:
    """Return the look of category `number`: once the colours are used up, dashes tell apart."""
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
    thinned = {category: _thin(category, *curves[category][:2], family) for category in curves}
    ranked = sorted(curves, key=lambda category: _rank(category, curves[category][2]))
    views = [axes]
    if family.zoom is not None:
        views.append(_add_inset(axes, family))
    for view in views:
        if family.chance is not None:
            view.plot(*family.chance, color=FAINT_INK, linewidth=1, linestyle=(0, (2, 3)))
        # The best curve is drawn last: it lies in the corner, where curves meet.
        for category in reversed(ranked):
            view.plot(*thinned[category], linewidth=1.8, **styles[category])
    _add_legend(axes, family, [(category, curves[category][2]) for category in ranked], styles)


def _panel_title(family: CurveFamily, curves: Mapping[str, Curve]) -> str:
    measures = [curve[2] for curve in curves.values() if is_defined(curve[2])]
    mean = float(np.mean(measures)) if measures else None
    return f"{family.title}, mean {family.measure} {measure_text(mean)}"


def _rank(category: str, measure: float | None) -> tuple[float, str]:
    """Sort the best measure first, equal ones by name and undefined ones last."""
    return (-measure if is_defined(measure) else np.inf, category)


def _set_limits(axes: Axes, x_limits: Limits, y_limits: Limits) -> None:
    """Set limits with a little air, because the best curves run along the frame."""
    for limits, set_limits in ((x_limits, axes.set_xlim), (y_limits, axes.set_ylim)):
        air = 0.015 * (limits[1] - limits[0])
        set_limits(limits[0] - air, limits[1] + air)


def _thin(
    category: str, x: np.ndarray, y: np.ndarray, family: CurveFamily
) -> tuple[np.ndarray, np.ndarray]:
    """Drop the points that fall on the same grid point as both their neighbours."""
    x, y = np.asarray(x), np.asarray(y)
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(f"curve of {category!r} must be (n,) and (n,), got {x.shape}, {y.shape}")
    if len(x) <= 2:
        return x, y
    kept = np.zeros(len(x), bool)
    for values, limits in ((x, family.x_limits), (y, family.y_limits)):
        cells = np.floor((values - limits[0]) * (GRID_STEPS / (limits[1] - limits[0])))
        moved = np.diff(cells) != 0
        # Both sides of a step stay, so that its corner stays a corner.
        kept[1:] |= moved
        kept[:-1] |= moved
    kept[[0, -1]] = True
    return x[kept], y[kept]


def _add_inset(axes: Axes, family: CurveFamily) -> Axes:
    inset = axes.inset_axes(family.inset_place, facecolor="white")
    style_axes(inset)
    inset.tick_params(labelsize=TICK_SIZE - 2)
    _set_limits(inset, *family.zoom)
    # Behind the curves, which it would cross out.
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
    # All lines and the heading must find room beside the panel (72 points are an inch).
    fitting = 72 * PANEL_SIDE / ((len(names) + 2) * (1 + LEGEND_SPACING) * 1.1)
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
        prop={"family": FONT, "size": min(TICK_SIZE, fitting)},
        title_fontproperties={"family": FONT, "size": TICK_SIZE, "weight": "bold"},
    )
    legend.get_title().set_color(INK)
    for text in legend.get_texts():
        text.set_parse_math(False)


def _legend_text(category: str, measure: float | None) -> str:
    # The number comes first, because matplotlib would leave out names with a leading underscore.
    number = measure_text(measure).ljust(6, FIGURE_SPACE)
    return f"{number}  {fit(category, TICK_SIZE, NAME_ROOM)}"
