"""The common parts of the Matplotlib figures, without pyplot and its global state."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from utils.plots.text import TextStyle, fit_text

DPI = 100
MARGIN = 0.25  # inches, between the figure's edge and its title
FONT = "DejaVu Sans"  # comes with matplotlib
TITLE_SIZE = 15
PART_TITLE_SIZE = 12
LABEL_SIZE = 11
TICK_SIZE = 10

INK = "#1a1a1a"
FAINT_INK = "#606060"
GRID = "#d9d9d9"
# The colours of Okabe and Ito, which colour-blind readers can distinguish, without yellow, which is
# too pale for a line on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
NORMAL_COLOUR = PALETTE[0]
DEFECT_COLOUR = PALETTE[1]

NOTHING = "nothing to measure"
DASH = "–"


def measure_text(measure: float | None) -> str:
    """Return a measure with four decimals, or a dash if it is undefined (None or NaN)."""
    return f"{measure:.4f}" if is_defined(measure) else DASH


def is_defined(measure: float | None) -> bool:
    """Return whether a measure is neither None nor NaN."""
    return measure is not None and not math.isnan(measure)


def fit(text: str, size: float, width: float, bold: bool = False) -> str:
    """Shorten the middle of `text` until it is at most `width` inches wide; `size` in points."""
    pixels = round(size * DPI / 72)
    return fit_text(text, TextStyle(pixels, bold), width * DPI)


def new_figure(width: float, height: float, title: str, title_width: float) -> Figure:
    """Return a white figure with its title at the top left; all sizes are in inches."""
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    # parse_math: a dollar sign in a user's name is not a formula.
    figure.text(
        MARGIN / width,
        1 - MARGIN / height,
        fit(title, TITLE_SIZE, title_width, bold=True),
        va="top",
        fontsize=TITLE_SIZE,
        fontweight="bold",
        fontfamily=FONT,
        color=INK,
        parse_math=False,
    )
    return figure


def add_axes(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Return styled axes; their position is in inches from the lower left corner of the figure."""
    total_width, total_height = figure.get_size_inches()
    box = (left / total_width, bottom / total_height, width / total_width, height / total_height)
    axes = figure.add_axes(box, facecolor="white")
    style_axes(axes)
    return axes


def style_axes(axes: Axes) -> None:
    """Set the grid, frame and fonts of axes, independent of the user's matplotlibrc."""
    axes.grid(True, color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(
        labelsize=TICK_SIZE, labelcolor=INK, color=FAINT_INK, labelfontfamily=FONT, length=3
    )
    for spine in axes.spines.values():
        spine.set(color=FAINT_INK, linewidth=0.8)


def set_titles(axes: Axes, title: str, x_label: str, y_label: str = "") -> None:
    """Write the title of axes, left-aligned, and their labels."""
    text = {"fontfamily": FONT, "color": INK}
    axes.set_title(title, loc="left", fontsize=PART_TITLE_SIZE, pad=8, **text)
    axes.set_xlabel(x_label, fontsize=LABEL_SIZE, **text)
    axes.set_ylabel(y_label, fontsize=LABEL_SIZE, **text)


def say_nothing_to_measure(axes: Axes) -> None:
    """Write into the middle of empty axes that there is nothing to measure."""
    axes.text(
        0.5,
        0.5,
        NOTHING,
        transform=axes.transAxes,
        ha="center",
        va="center",
        fontsize=PART_TITLE_SIZE,
        fontfamily=FONT,
        color=FAINT_INK,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 6},
    )


def render(figure: Figure) -> np.ndarray:
    """Return the figure as (H, W, 3) uint8 RGB."""
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()
