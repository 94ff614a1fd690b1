"""What the matplotlib figures share. They are plain objects: no pyplot, hence no global state."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from utils.plots.text import TextStyle, elide, printable

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
# Okabe and Ito's colours, made to be told apart by colour-blind readers; their yellow is left out,
# which is too pale for a line on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
NORMAL_COLOUR = PALETTE[0]
DEFECT_COLOUR = PALETTE[1]

NOTHING = "nothing to measure"
DASH = "–"


def measure_text(measure: float | None) -> str:
    """Return a measure's four decimals, or a dash where it is undefined (None or NaN)."""
    return f"{measure:.4f}" if is_defined(measure) else DASH


def is_defined(measure: float | None) -> bool:
    """Whether a measure has a value."""
    return measure is not None and not math.isnan(measure)


def fit(text: str, size: float, room: float, bold: bool = False) -> str:
    """Return `text` with its middle cut out until it is `room` inches wide, `size` in points."""
    pixels = round(size * DPI / 72)
    return elide(printable(text), room * DPI, TextStyle(pixels, bold).width)


def new_figure(width: float, height: float, title: str, title_room: float) -> Figure:
    """Return a white figure, all sizes in inches, with its title at the top left."""
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    # parse_math: a dollar sign in a user's name is not a formula.
    figure.text(
        MARGIN / width,
        1 - MARGIN / height,
        fit(title, TITLE_SIZE, title_room, bold=True),
        va="top",
        fontsize=TITLE_SIZE,
        fontweight="bold",
        fontfamily=FONT,
        color=INK,
        parse_math=False,
    )
    return figure


def add_axes(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Return styled axes whose place is given in inches from the figure's lower left corner."""
    total_width, total_height = figure.get_size_inches()
    place = (left / total_width, bottom / total_height, width / total_width, height / total_height)
    axes = figure.add_axes(place, facecolor="white")
    style_axes(axes)
    return axes


def style_axes(axes: Axes) -> None:
    """Give axes the grid, frame and fonts of all figures, whatever the user's matplotlibrc says."""
    axes.grid(True, color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(
        labelsize=TICK_SIZE, labelcolor=INK, color=FAINT_INK, labelfontfamily=FONT, length=3
    )
    for spine in axes.spines.values():
        spine.set(color=FAINT_INK, linewidth=0.8)


def set_titles(axes: Axes, title: str, x_label: str, y_label: str = "") -> None:
    """Write a part's title, at the left, and its axis labels."""
    text = {"fontfamily": FONT, "color": INK, "parse_math": False}
    axes.set_title(title, loc="left", fontsize=PART_TITLE_SIZE, pad=8, **text)
    axes.set_xlabel(x_label, fontsize=LABEL_SIZE, **text)
    axes.set_ylabel(y_label, fontsize=LABEL_SIZE, **text)


def say_nothing_to_measure(axes: Axes) -> None:
    """Write in the middle of empty axes that there was nothing to draw."""
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
