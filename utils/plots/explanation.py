"""Which normal patches the most anomalous ones of an image were compared with, and from where."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from utils.plots.localization import panel_size, resize_photo
from utils.plots.panel_grid import LINE_CASING, MARGIN, draw_frame
from utils.plots.text import FAINT_INK, INK, Label, TextStyle, draw_labels, elide, printable

Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels, the last two exclusive

IMAGE_SIDE = 520  # of a square with the test image's area, in pixels of the picture
CROP_SIDE = 176
GAP = 30
LINE_ROOM = 76  # between the image and the crops, for the lines
TITLE_HEIGHT = 56
ROW_GAP = 26
# Okabe and Ito's colours that are bright enough for a line on a photograph.
COLOURS = ((86, 180, 233), (230, 159, 0), (0, 190, 138), (204, 121, 167), (240, 228, 66))
SHOWN_NEIGHBOURS = 3
CAPTION = (
    "Right: the most anomalous patches (small squares) in their",
    "surroundings, the normal ones nearest to them, and their places.",
)

TITLE = TextStyle(21, bold=True)
SUBTITLE = TextStyle(16, colour=FAINT_INK)
NAME = TextStyle(16, bold=True)
NOTE = TextStyle(15, colour=FAINT_INK)
NUMBER = TextStyle(16, bold=True)


@dataclass(frozen=True, slots=True)
class NormalPatch:
    """A training patch that a test patch was compared with.

    Attributes:
        crop: (ph, pw, 3) uint8 RGB, the patch with what lies around it.
        field: The patch itself within `crop`.
        name: Of the training image's file.
        place: Where it lies in that image, in words.
        distance: Between the two patches.
        whole: (H, W, 3) uint8 RGB, the whole training image; None where it is not at hand.
        box: Of `crop` in the whole image.
    """

    crop: np.ndarray
    field: Box
    name: str
    place: str
    distance: float
    whole: np.ndarray | None = None
    box: Box | None = None


@dataclass(frozen=True, slots=True)
class ExplainedPatch:
    """A patch of the test image and the normal ones nearest to it, nearest first.

    Attributes:
        crop: (ph, pw, 3) uint8 RGB, the patch with what lies around it.
        field: The patch itself within `crop`.
        box: Of `crop` in the test image.
        place: Where it lies, in words.
        score: Of the patch.
        nearest: At least one.
    """

    crop: np.ndarray
    field: Box
    box: Box
    place: str
    score: float
    nearest: Sequence[NormalPatch]


def draw_explanation(
    image: np.ndarray, patches: Sequence[ExplainedPatch], *, title: str, file_name: str
) -> np.ndarray:
    """Draw the most anomalous patches beside what they were compared with.

    Args:
        image: (H, W, 3) uint8 RGB, the test image.
        patches: The most anomalous one first; one row each. At most three of their nearest patches
            are drawn.
        title: Usually the defect type.
        file_name: Of the test image.

    Returns:
        (H', W', 3) uint8 RGB, about 800 by 1250 pixels for three patches and one neighbour.

    Raises:
        ValueError: there is no patch, or one without a nearest.
    """
    if not patches or not all(patch.nearest for patch in patches):
        raise ValueError("expected at least one patch, each with a nearest normal one")
    width, height = panel_size(*image.shape[:2], side=IMAGE_SIDE)
    top = MARGIN + TITLE_HEIGHT
    first = MARGIN + width + LINE_ROOM  # left of the first crop
    canvas = np.full((*_canvas_size(patches, first, height), 3), 255, np.uint8)
    photo = resize_photo(image, (width, height))
    canvas[top : top + height, MARGIN : MARGIN + width] = photo
    draw_frame(canvas, MARGIN, top, width, height)
    labels = [
        Label(_fit(title, TITLE, width), MARGIN, MARGIN + 20, TITLE),
        Label(_fit(file_name, SUBTITLE, width), MARGIN, MARGIN + 44, SUBTITLE),
    ]
    labels += [
        Label(_fit(line, NOTE, width), MARGIN, len(canvas) - MARGIN - 22 * row, NOTE)
        for row, line in enumerate(reversed(CAPTION))
    ]
    places = [_scaled(patch.box, image, MARGIN, top, (width, height)) for patch in patches]
    for number, (patch, place) in enumerate(zip(patches, places, strict=True)):
        y = top + number * (CROP_SIDE + TITLE_HEIGHT + ROW_GAP)
        colour = COLOURS[number % len(COLOURS)]
        _draw_link(canvas, (place[2], (place[1] + place[3]) // 2), (first - 2, y + 88), colour)
        labels += _draw_row(canvas, patch, number, (first, y))
    for number, place in reversed(list(enumerate(places))):  # the first one on top
        _draw_box(canvas, place, COLOURS[number % len(COLOURS)])
    for number, place in enumerate(places):  # on top of every box
        labels.append(_draw_number(canvas, number, place, (MARGIN, top)))
    draw_labels(canvas, labels)
    return canvas


def _canvas_size(patches: Sequence[ExplainedPatch], first: int, height: int) -> tuple[int, int]:
    """Return (height, width) in pixels of the canvas."""
    rows = len(patches) * (CROP_SIDE + TITLE_HEIGHT + ROW_GAP) - ROW_GAP
    right = max(first + CROP_SIDE + sum(map(_width, _shown(patch))) for patch in patches)
    left = TITLE_HEIGHT + height + 12 + 22 * len(CAPTION)
    return MARGIN + max(left, rows) + MARGIN, right + MARGIN


def _shown(patch: ExplainedPatch) -> Sequence[NormalPatch]:
    return patch.nearest[:SHOWN_NEIGHBOURS]


def _width(normal: NormalPatch) -> int:
    """Return the room that a neighbour takes, with the gap before it."""
    if normal.whole is None:
        return GAP + CROP_SIDE
    return GAP + CROP_SIDE + GAP + _whole_size(normal.whole)[0]


def _whole_size(whole: np.ndarray) -> tuple[int, int]:
    """Return (width, height) of a whole image as high as the crops."""
    height, width = whole.shape[:2]
    return max(1, min(round(width * CROP_SIDE / height), 3 * CROP_SIDE)), CROP_SIDE


def _draw_row(
    canvas: np.ndarray, patch: ExplainedPatch, number: int, corner: tuple[int, int]
) -> list[Label]:
    x, y = corner
    colour = COLOURS[number % len(COLOURS)]
    _draw_crop(canvas, patch.crop, patch.field, (x, y), colour)
    labels = _titles(x, y, f"patch {number + 1}: {patch.score:.4g}", patch.place, CROP_SIDE)
    x += CROP_SIDE
    for normal in _shown(patch):
        x += GAP
        middle = y + CROP_SIDE // 2
        if normal is patch.nearest[0]:
            _draw_arrow(canvas, (x - 3, middle), (x - GAP + 3, middle))
        _draw_crop(canvas, normal.crop, normal.field, (x, y), colour)
        labels += _titles(x, y, f"normal: {normal.distance:.4g}", normal.place, CROP_SIDE)
        x += CROP_SIDE
        if normal.whole is None:
            labels.append(Label(_fit(normal.name, NOTE, CROP_SIDE), x - CROP_SIDE, y - 46, NOTE))
            continue
        x += GAP
        size = _whole_size(normal.whole)
        canvas[y : y + size[1], x : x + size[0]] = resize_photo(normal.whole, size)
        draw_frame(canvas, x, y, *size)
        place = _scaled(normal.box, normal.whole, x, y, size)
        _draw_link(canvas, (place[0], (place[1] + place[3]) // 2), (x - GAP + 1, middle), colour)
        _draw_box(canvas, place, colour)
        labels += _titles(x, y, "training image", normal.name, size[0])
        x += size[0]
    return labels


def _draw_crop(
    canvas: np.ndarray,
    crop: np.ndarray,
    field: Box,
    corner: tuple[int, int],
    colour: tuple[int, int, int],
) -> None:
    """Draw a crop with a frame in its row's colour and thin corners around the patch itself."""
    x, y = corner
    side = (CROP_SIDE, CROP_SIDE)
    canvas[y : y + CROP_SIDE, x : x + CROP_SIDE] = resize_photo(crop, side)
    left, top, right, bottom = _scaled(field, crop, x, y, side)
    cv2.rectangle(canvas, (left, top), (right, bottom), LINE_CASING, 3)
    cv2.rectangle(canvas, (left, top), (right, bottom), (255, 255, 255), 1)
    cv2.rectangle(canvas, (x - 2, y - 2), (x + CROP_SIDE + 1, y + CROP_SIDE + 1), colour, 3)


def _scaled(box: Box, picture: np.ndarray, x: int, y: int, size: tuple[int, int]) -> Box:
    """Return where a box of a picture lies on the canvas: the picture is at (x, y), of a size."""
    height, width = picture.shape[:2]
    left, top, right, bottom = box
    return (
        x + round(left * size[0] / width),
        y + round(top * size[1] / height),
        x + round(right * size[0] / width) - 1,
        y + round(bottom * size[1] / height) - 1,
    )


def _draw_box(canvas: np.ndarray, box: Box, colour: tuple[int, int, int]) -> None:
    for line_colour, thickness in ((LINE_CASING, 5), (colour, 3)):
        cv2.rectangle(canvas, box[:2], box[2:], line_colour, thickness)


def _draw_link(
    canvas: np.ndarray, start: tuple[int, int], end: tuple[int, int], colour: tuple[int, int, int]
) -> None:
    """Draw a line with dark casing, seen on white paper and on any photograph."""
    for line_colour, thickness in ((LINE_CASING, 4), (colour, 2)):
        cv2.line(canvas, start, end, line_colour, thickness, cv2.LINE_AA)


def _draw_arrow(canvas: np.ndarray, tip: tuple[int, int], end: tuple[int, int]) -> None:
    cv2.arrowedLine(canvas, end, tip, INK, 2, cv2.LINE_AA, tipLength=0.35)


def _draw_number(canvas: np.ndarray, number: int, box: Box, corner: tuple[int, int]) -> Label:
    """Draw a disc at a box's upper left, within the image at `corner`; return what stands in it."""
    centre = max(box[0], corner[0] + 14), max(box[1], corner[1] + 14)
    cv2.circle(canvas, centre, 14, LINE_CASING, -1, cv2.LINE_AA)
    cv2.circle(canvas, centre, 12, COLOURS[number % len(COLOURS)], -1, cv2.LINE_AA)
    return Label(str(number + 1), *centre, NUMBER, anchor="mm")


def _titles(x: int, y: int, name: str, note: str, room: int) -> list[Label]:
    return [
        Label(_fit(name, NAME, room), x, y - 29, NAME),
        Label(_fit(note, NOTE, room), x, y - 9, NOTE),
    ]


def _fit(text: str, style: TextStyle, room: int) -> str:
    return elide(printable(text), room, style.width)
