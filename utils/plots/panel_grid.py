"""Pictures of one size side by side, each under its title and some with a colour bar."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from utils.plots.colour_scale import ColourScale
from utils.plots.text import FAINT_INK, INK, Label, TextStyle, draw_labels, elide, printable

TITLE = TextStyle(21, bold=True)
SUBTITLE = TextStyle(16, colour=FAINT_INK)
TICK = TextStyle(15)

MARGIN = 28
COLUMN_GAP = 28
ROW_GAP = 30
TITLE_HEIGHT = 60  # both lines and the air above the picture
TITLE_BASELINE = 20
SUBTITLE_BASELINE = 45
MIN_COLUMN_WIDTH = 340  # titles of narrow pictures still need room

BAR_GAP = 16  # between picture and bar; the marker points across it
BAR_WIDTH = 18
TICK_LENGTH = 5
TICK_GAP = 4
TICK_SPACING = 28  # at least, so that numbers stay apart on low pictures
KEY_WIDTH = 36
KEY_GAP = 7

FRAME = (190, 190, 190)
LINE_CASING = (20, 20, 20)


@dataclass(frozen=True, slots=True)
class LineKey:
    """How a contour is drawn and what it means. Dark casing keeps it visible on any picture."""

    text: str
    colour: tuple[int, int, int]
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class ColourBar:
    """The scale of a panel's colours, and scores worth a mark on it."""

    scale: ColourScale
    score: float
    threshold: float | None


@dataclass(frozen=True, slots=True)
class Panel:
    """A picture, (H, W, 3) uint8 RGB, and what is written above and beside it.

    Keys of contours take the place of the subtitle.
    """

    picture: np.ndarray
    title: str
    subtitle: str = ""
    keys: tuple[LineKey, ...] = ()
    bar: ColourBar | None = None


@dataclass(frozen=True, slots=True)
class Cell:
    """Where a panel's picture lies: left and top pixel, size, and the room for its titles."""

    x: int
    y: int
    width: int
    height: int
    title_width: int


def grid_size(panels: Sequence[Panel], columns: int) -> tuple[int, int]:
    """Return height and width in pixels of the grid that `compose_panels` makes."""
    cells = place_cells(panels, columns)
    right = max(
        cell.x + max(cell.title_width, cell.width + _bar_room(panel))
        for panel, cell in zip(panels, cells, strict=True)
    )
    return max(cell.y + cell.height for cell in cells) + MARGIN, right + MARGIN


def place_cells(panels: Sequence[Panel], columns: int) -> list[Cell]:
    """Return the place of each panel, row after row. All pictures must be of one size."""
    height, width = panels[0].picture.shape[:2]
    title_width = max(width, MIN_COLUMN_WIDTH)
    cells = []
    for first in range(0, len(panels), columns):
        y = MARGIN + TITLE_HEIGHT + (first // columns) * (height + ROW_GAP + TITLE_HEIGHT)
        x = MARGIN
        for column in range(min(columns, len(panels) - first)):
            cells.append(Cell(x, y, width, height, title_width))
            # A bar widens its column in every row, so that pictures stay one below the other.
            bar_room = max(_bar_room(panel) for panel in panels[column::columns])
            x += max(title_width, width + bar_room) + COLUMN_GAP
    return cells


def compose_panels(panels: Sequence[Panel], columns: int) -> np.ndarray:
    """Return all panels on one white picture, (H, W, 3) uint8 RGB, row after row."""
    canvas = np.full((*grid_size(panels, columns), 3), 255, np.uint8)
    labels: list[Label] = []
    for panel, cell in zip(panels, place_cells(panels, columns), strict=True):
        canvas[cell.y : cell.y + cell.height, cell.x : cell.x + cell.width] = panel.picture
        draw_frame(canvas, cell.x, cell.y, cell.width, cell.height)
        labels.extend(_titles(panel, cell))
        labels.extend(_draw_keys(canvas, panel.keys, cell))
        if panel.bar is not None:
            labels.extend(_draw_bar(canvas, panel.bar, cell))
    draw_labels(canvas, labels)
    return canvas


def draw_lines(picture: np.ndarray, lines: Sequence[np.ndarray], key: LineKey) -> None:
    """Draw contours as `key` says. Each line is (n, 2) int32 pixels (x, y), next to each other."""
    pieces = list(_dashes(lines)) if key.dashed else list(lines)
    closed = not key.dashed
    for colour, thickness in ((LINE_CASING, 4), (key.colour, 2)):
        cv2.polylines(picture, pieces, closed, colour, thickness, cv2.LINE_AA)


def _dashes(lines: Sequence[np.ndarray], on: int = 10, off: int = 9) -> Iterator[np.ndarray]:
    for line in lines:
        for start in range(0, len(line), on + off):
            yield line[start : start + on]


def draw_frame(canvas: np.ndarray, x: int, y: int, width: int, height: int) -> None:
    """Draw a hair line just outside: bright pictures would melt into the white page."""
    cv2.rectangle(canvas, (x - 1, y - 1), (x + width, y + height), FRAME)


def _titles(panel: Panel, cell: Cell) -> Iterator[Label]:
    top = cell.y - TITLE_HEIGHT
    lines = ((panel.title, TITLE, TITLE_BASELINE), (panel.subtitle, SUBTITLE, SUBTITLE_BASELINE))
    for text, style, baseline in lines:
        if text:
            fitting = elide(printable(text), cell.title_width, style.width)
            yield Label(fitting, cell.x, top + baseline, style)


def _draw_keys(canvas: np.ndarray, keys: Sequence[LineKey], cell: Cell) -> list[Label]:
    labels = []
    x = cell.x
    baseline = cell.y - TITLE_HEIGHT + SUBTITLE_BASELINE
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


def _bar_room(panel: Panel) -> int:
    """Return the width in pixels of a panel's colour bar with its gap and its numbers."""
    if panel.bar is None:
        return 0
    numbers = max(TICK.width(text) for _, text in _ticks(panel.bar, panel.picture.shape[0]))
    return BAR_GAP + BAR_WIDTH + TICK_LENGTH + TICK_GAP + round(numbers)


def _draw_bar(canvas: np.ndarray, bar: ColourBar, cell: Cell) -> list[Label]:
    """Draw the bar to the right of `cell`, as high as its picture."""
    x = cell.x + cell.width + BAR_GAP
    right = x + BAR_WIDTH

    def row(score: float) -> int:
        fraction = float(bar.scale.fraction(np.float32(score)))
        return cell.y + round((1 - fraction) * (cell.height - 1))

    gradient = bar.scale.colours(np.linspace(1, 0, cell.height, dtype=np.float32))
    canvas[cell.y : cell.y + cell.height, x:right] = gradient[:, None]
    draw_frame(canvas, x, cell.y, BAR_WIDTH, cell.height)
    if bar.threshold is not None:
        y = row(bar.threshold)
        cv2.line(canvas, (x, y), (right - 1, y), LINE_CASING, 4)
        cv2.line(canvas, (x, y), (right - 1, y), (255, 255, 255), 2)
    y = row(bar.score)
    marker = np.array([(x - 3, y), (x - 12, y - 6), (x - 12, y + 6)], np.int32)
    cv2.fillConvexPoly(canvas, marker, INK, cv2.LINE_AA)
    labels = []
    for score, text in _ticks(bar, cell.height):
        y = row(score)
        canvas[y, right : right + TICK_LENGTH] = INK
        labels.append(Label(text, right + TICK_LENGTH + TICK_GAP, y, TICK, anchor="lm"))
    return labels
