"""How a training went: loss and accuracy over the pictures seen."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from utils.plots.figures import (
    FAINT_INK,
    FONT,
    LABEL_SIZE,
    MARGIN,
    PALETTE,
    add_axes,
    new_figure,
    render,
    say_nothing_to_measure,
    set_titles,
)

PANEL_WIDTH, PANEL_HEIGHT = 5.2, 3.6  # inches
LEFT, BOTTOM, TOP = 0.85, 0.7, 0.95
SMOOTHING = 0.9  # of the drawn lines; the pale ones behind are as recorded


def draw_training(
    history: Sequence[Mapping[str, float]],
    panels: Mapping[str, Mapping[str, str]],
    *,
    title: str,
    mark: float | None = None,
) -> np.ndarray:
    """Draw records of a training over the number of pictures seen.

    Args:
        history: Records with ``pictures`` and what the panels show; some may lack a part of it.
        panels: By panel title: by the name in the records, what the legend calls it.
        title: Of the whole figure.
        mark: Pictures seen at something that a dotted line marks; None for no line.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    width = (LEFT + PANEL_WIDTH + MARGIN) * len(panels)
    figure = new_figure(width, TOP + PANEL_HEIGHT + BOTTOM, title, width - 2 * MARGIN)
    for number, (name, lines) in enumerate(panels.items()):
        left = number * (LEFT + PANEL_WIDTH + MARGIN) + LEFT
        axes = add_axes(figure, left, BOTTOM, PANEL_WIDTH, PANEL_HEIGHT)
        set_titles(axes, name, "pictures seen")
        if not history:
            say_nothing_to_measure(axes)
            continue
        for colour, (key, label) in zip(PALETTE, lines.items(), strict=False):
            records = [(r["pictures"], r[key]) for r in history if key in r]
            _draw_line(axes, *np.array(records).reshape(-1, 2).T, colour, label)
        if mark is not None:
            axes.axvline(mark, color=FAINT_INK, linewidth=1, linestyle=(0, (1.2, 2)))
        axes.set_ylim(bottom=0)
        axes.legend(prop={"family": FONT, "size": LABEL_SIZE}, frameon=False)
    return render(figure)


def _draw_line(
    axes: Axes, pictures: np.ndarray, values: np.ndarray, colour: str, label: str
) -> None:
    axes.plot(pictures, values, color=colour, linewidth=0.7, alpha=0.3)
    axes.plot(pictures, _smooth(values), color=colour, linewidth=1.8, label=label)


def _smooth(values: np.ndarray) -> np.ndarray:
    """Return the moving average of (n,), free of bias at its beginning."""
    smoothed, weight, kept = np.empty(len(values)), 0.0, 0.0
    for index, value in enumerate(values):
        kept = SMOOTHING * kept + (1 - SMOOTHING) * value
        weight = SMOOTHING * weight + (1 - SMOOTHING)
        smoothed[index] = kept / weight
    return smoothed
