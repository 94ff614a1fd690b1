"""Images of one size side by side, each under its title and some with a colour bar."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from utils.plots.colour_scale import ColourScale
from utils.plots.text import FAINT_INK, INK, Label, TextStyle, draw_labels, fit_text

TITLE = TextStyle(21, bold=True)
SUBTITLE = TextStyle(16, colour=FAINT_INK)
TICK = TextStyle(15)

MARGIN = 28
COLUMN_GAP = 28
ROW_GAP = 30
TITLE_HEIGHT = 60  # both lines and the gap above the image
TITLE_BASELINE = 20
SUBTITLE_BASELINE = 45
MIN_COLUMN_WIDTH = 340  # for the titles of narrow images

BAR_GAP = 16  # between image and bar; it holds the marker of the score
BAR_WIDTH = 18
TICK_LENGTH = 5
TICK_GAP = 4
TICK_SPACING = 28  # at least, so that the numbers of a low bar do not overlap
KEY_WIDTH = 36
KEY_GAP = 7
DASH_LENGTH, DASH_GAP = 10, 9

FRAME = (190, 190, 190)
LINE_CASING = (20, 20, 20)  # the dark outline of a line


@dataclass(frozen=True, slots=True)
class LineKey:
    """The style of a contour and its meaning. A dark outline keeps it visible on any image.

    Attributes:
        text: The meaning.
        colour: RGB.
        dashed: Whether the line is dashed.
    """

    text: str
    colour: tuple[int, int, int]
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class ColourBar:
    """The colour scale of a panel with marks.

    Attributes:
        scale: The colour scale.
        score: The score that a marker points to.
        threshold: The score that a line marks; None for no line.
    """

    scale: ColourScale
    score: float
    threshold: float | None


@dataclass(frozen=True, slots=True)
class Panel:
    """An image with its titles, keys and colour bar.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        title: The first line above the image.
        subtitle: The second line.
        keys: The keys of the image's contours, written in place of the subtitle.
        bar: The colour bar on the right; None for none.
    """

    image: np.ndarray
    title: str
    subtitle: str = ""
    keys: tuple[LineKey, ...] = ()
    bar: ColourBar | None = None


@dataclass(frozen=True, slots=True)
class PanelPosition:
    """The position of a panel's image: left and top pixel, size, and the width of its titles."""

    x: int
    y: int
    width: int
    height: int
    title_width: int


def place_panels(panels: Sequence[Panel], columns: int) -> list[PanelPosition]:
    """Return the position of each panel, row by row. All images must have the same size."""
    height, width = panels[0].image.shape[:2]
    title_width = max(width, MIN_COLUMN_WIDTH)
    positions = []
    for first in range(0, len(panels), columns):
        y = MARGIN + TITLE_HEIGHT + (first // columns) * (height + ROW_GAP + TITLE_HEIGHT)
        x = MARGIN
        for column in range(min(columns, len(panels) - first)):
            positions.append(PanelPosition(x, y, width, height, title_width))
            # A bar widens its column in all rows, so that the images stay aligned.
            bar_width = max(_bar_width(panel) for panel in panels[column::columns])
            x += max(title_width, width + bar_width) + COLUMN_GAP
    return positions


def compose_panels(panels: Sequence[Panel], columns: int) -> np.ndarray:
    """Return one white image with all panels, (H, W, 3) uint8 RGB, row by row."""
    placed = list(zip(panels, place_panels(panels, columns), strict=True))
    right = max(p.x + max(p.title_width, p.width + _bar_width(panel)) for panel, p in placed)
    bottom = max(position.y + position.height for _, position in placed)
    canvas = np.full((bottom + MARGIN, right + MARGIN, 3), 255, np.uint8)
    labels: list[Label] = []
    for panel, position in placed:
        canvas[
            position.y : position.y + position.height, position.x : position.x + position.width
        ] = panel.image
        draw_frame(canvas, position.x, position.y, position.width, position.height)
        labels.extend(_titles(panel, position))
        labels.extend(_draw_keys(canvas, panel.keys, position))
        if panel.bar is not None:
            labels.extend(_draw_bar(canvas, panel.bar, position))
    draw_labels(canvas, labels)
    return canvas


def draw_lines(image: np.ndarray, lines: Sequence[np.ndarray], key: LineKey) -> None:
    """Draw contours in the style of `key`. Each line is (n, 2) int32, adjacent pixels (x, y)."""
    if key.dashed:
        period = DASH_LENGTH + DASH_GAP
        lines = [
            line[start : start + DASH_LENGTH]
            for line in lines
            for start in range(0, len(line), period)
        ]
    for colour, thickness in ((LINE_CASING, 4), (key.colour, 2)):
        cv2.polylines(image, lines, not key.dashed, colour, thickness, cv2.LINE_AA)


def draw_frame(canvas: np.ndarray, x: int, y: int, width: int, height: int) -> None:
    """Draw a thin frame just outside an image: a bright image would have no visible border."""
    cv2.rectangle(canvas, (x - 1, y - 1), (x + width, y + height), FRAME)


def _titles(panel: Panel, position: PanelPosition) -> Iterator[Label]:
    top = position.y - TITLE_HEIGHT
    lines = ((panel.title, TITLE, TITLE_BASELINE), (panel.subtitle, SUBTITLE, SUBTITLE_BASELINE))
    for text, style, baseline in lines:
        if text:
            fitting = fit_text(text, style, position.title_width)
            yield Label(fitting, position.x, top + baseline, style)


def _draw_keys(canvas: np.ndarray, keys: Sequence[LineKey], position: PanelPosition) -> list[Label]:
    labels = []
    x = position.x
    baseline = position.y - TITLE_HEIGHT + SUBTITLE_BASELINE
    for key in keys:
        across = np.arange(x + 2, x + KEY_WIDTH - 1, dtype=np.int32)
        line = np.stack([across, np.full_like(across, baseline - 5)], axis=1)
        draw_lines(canvas, [line], key)
        x += KEY_WIDTH + KEY_GAP
        labels.append(Label(key.text, x, baseline, SUBTITLE))
        x += round(SUBTITLE.width(key.text)) + 2 * KEY_GAP
    return labels


def _ticks(bar: ColourBar, height: int) -> list[tuple[float, str]]:
    return bar.scale.ticks(min(max(height // TICK_SPACING, 1), 5))


def _bar_width(panel: Panel) -> int:
    """Return the width in pixels of a panel's colour bar with its gap and its numbers."""
    if panel.bar is None:
        return 0
    numbers = max(TICK.width(text) for _, text in _ticks(panel.bar, panel.image.shape[0]))
    return BAR_GAP + BAR_WIDTH + TICK_LENGTH + TICK_GAP + round(numbers)


def _draw_bar(canvas: np.ndarray, bar: ColourBar, position: PanelPosition) -> list[Label]:
    """Draw the bar to the right of an image, as high as the image; return its numbers."""
    x = position.x + position.width + BAR_GAP
    right = x + BAR_WIDTH

    def row(score: float) -> int:
        fraction = float(bar.scale.fraction(np.float32(score)))
        return position.y + round((1 - fraction) * (position.height - 1))

    gradient = bar.scale.colours(np.linspace(1, 0, position.height, dtype=np.float32))
    canvas[position.y : position.y + position.height, x:right] = gradient[:, None]
    draw_frame(canvas, x, position.y, BAR_WIDTH, position.height)
    if bar.threshold is not None:
        y = row(bar.threshold)
        cv2.line(canvas, (x, y), (right - 1, y), LINE_CASING, 4)
        cv2.line(canvas, (x, y), (right - 1, y), (255, 255, 255), 2)
    y = row(bar.score)
    marker = np.array([(x - 3, y), (x - 12, y - 6), (x - 12, y + 6)], np.int32)
    cv2.fillConvexPoly(canvas, marker, INK, cv2.LINE_AA)
    labels = []
    for score, text in _ticks(bar, position.height):
        y = row(score)
        canvas[y, right : right + TICK_LENGTH] = INK
        labels.append(Label(text, right + TICK_LENGTH + TICK_GAP, y, TICK, anchor="lm"))
    return labels
