"""Figure of the most anomalous patches of an image and their nearest training patches."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from utils.plots.localization import panel_size, resize_image
from utils.plots.panel_grid import LINE_CASING, MARGIN, LineKey, draw_frame, draw_lines
from utils.plots.text import FAINT_INK, INK, Label, TextStyle, draw_labels, fit_text

Rectangle = tuple[int, int, int, int]  # left, top, right, bottom in pixels, the last two exclusive

IMAGE_SIDE = 520  # side of a square with the area of the test image, in pixels of the figure
CROP_SIDE = 212
GAP = 30
LINE_WIDTH = 76  # between the image and the crops, for the lines
TITLE_HEIGHT = 76  # three lines
ROW_GAP = 26
# The colours of Okabe and Ito that are bright enough for a line on an image.
COLOURS = ((86, 180, 233), (230, 159, 0), (0, 190, 138), (204, 121, 167), (240, 228, 66))
NEIGHBOUR_NAMES = ("nearest normal patch", "2nd nearest patch", "3rd nearest patch")
CAPTION = (
    "Right: the most anomalous patches (small squares) in their",
    "surroundings, and the nearest patches of the training images.",
)
BELOW_CAPTION = "Dashed: patch score below the pixel threshold {:.4g}."
DISC_RADIUS = 14

TITLE = TextStyle(21, bold=True)
SUBTITLE = TextStyle(16, colour=FAINT_INK)
NAME = TextStyle(16, bold=True)
NOTE = TextStyle(15, colour=FAINT_INK)
NUMBER = TextStyle(16, bold=True)


@dataclass(frozen=True, slots=True)
class NormalPatch:
    """One of the training patches that are nearest to a test patch.

    Attributes:
        crop: (ph, pw, 3) uint8 RGB, the patch and its surroundings.
        field: The patch itself within `crop`.
        name: The name of the training image.
        place: The position of the patch in this image, in words.
        distance: The distance of the two patches.
        whole: (H, W, 3) uint8 RGB, the whole training image; None if its file cannot be read.
        box: The position of `crop` in the whole image.
    """

    crop: np.ndarray
    field: Rectangle
    name: str
    place: str
    distance: float
    whole: np.ndarray | None = None
    box: Rectangle | None = None


@dataclass(frozen=True, slots=True)
class ExplainedPatch:
    """A patch of the test image and its nearest training patches.

    Attributes:
        crop: (ph, pw, 3) uint8 RGB, the patch and its surroundings.
        field: The patch itself within `crop`.
        box: The position of `crop` in the test image.
        place: The position of the patch in the test image, in words.
        score: The patch score, the mean distance to its nearest training patches.
        nearest: The training patches, the nearest first; at least one.
    """

    crop: np.ndarray
    field: Rectangle
    box: Rectangle
    place: str
    score: float
    nearest: Sequence[NormalPatch]


def draw_explanation(
    image: np.ndarray,
    patches: Sequence[ExplainedPatch],
    *,
    title: str,
    file_name: str,
    threshold: float | None = None,
) -> np.ndarray:
    """Draw the most anomalous patches and their nearest training patches.

    Args:
        image: (H, W, 3) uint8 RGB, the test image.
        patches: The patches, the most anomalous first, at least one. Each has a row with at most
            three of its nearest training patches.
        title: The title of the figure, usually the defect type.
        file_name: The name of the test image.
        threshold: The distance from which a pixel counts as defective; boxes of patches below it
            are dashed. None if it is unknown.

    Returns:
        (H', W', 3) uint8 RGB, about 1000 by 1400 pixels for three patches and one neighbour.
    """
    width, height = panel_size(*image.shape[:2], side=IMAGE_SIDE)
    top = MARGIN + TITLE_HEIGHT
    first = MARGIN + width + LINE_WIDTH  # left of the first crop
    below = [threshold is not None and patch.score < threshold for patch in patches]
    caption = (*CAPTION, BELOW_CAPTION.format(threshold)) if any(below) else CAPTION
    canvas_size = _canvas_size(patches, first, height, len(caption))
    canvas = np.full((*canvas_size, 3), 255, np.uint8)
    canvas[top : top + height, MARGIN : MARGIN + width] = resize_image(image, (width, height))
    draw_frame(canvas, MARGIN, top, width, height)
    labels = [
        Label(fit_text(title, TITLE, width), MARGIN, MARGIN + 20, TITLE),
        Label(fit_text(file_name, SUBTITLE, width), MARGIN, MARGIN + 44, SUBTITLE),
    ]
    labels += [
        Label(fit_text(line, NOTE, width), MARGIN, len(canvas) - MARGIN - 22 * row, NOTE)
        for row, line in enumerate(reversed(caption))
    ]
    boxes = [_scaled(patch.box, image, MARGIN, top, (width, height)) for patch in patches]
    for number, (patch, box) in enumerate(zip(patches, boxes, strict=True)):
        y = top + number * (CROP_SIDE + TITLE_HEIGHT + ROW_GAP)
        colour = COLOURS[number % len(COLOURS)]
        _draw_link(
            canvas, (box[2], (box[1] + box[3]) // 2), (first - 2, y + CROP_SIDE // 2), colour
        )
        labels += _draw_row(canvas, patch, number, (first, y), is_below=below[number])
    for number, box in reversed(list(enumerate(boxes))):  # the first box on top
        _draw_box(canvas, box, COLOURS[number % len(COLOURS)], dashed=below[number])
    centres = _place_numbers(boxes, (MARGIN, top, MARGIN + width, top + height))
    for number, centre in enumerate(centres):  # on top of all boxes
        labels.append(_draw_number(canvas, number, centre))
    draw_labels(canvas, labels)
    return canvas


def _canvas_size(
    patches: Sequence[ExplainedPatch], first: int, height: int, caption_lines: int
) -> tuple[int, int]:
    """Return (height, width) in pixels of the canvas."""
    rows = len(patches) * (CROP_SIDE + TITLE_HEIGHT + ROW_GAP) - ROW_GAP
    right = max(first + CROP_SIDE + sum(map(_width, _shown(patch))) for patch in patches)
    left = TITLE_HEIGHT + height + 12 + 22 * caption_lines
    return MARGIN + max(left, rows) + MARGIN, right + MARGIN


def _shown(patch: ExplainedPatch) -> Sequence[NormalPatch]:
    return patch.nearest[: len(NEIGHBOUR_NAMES)]


def _width(normal: NormalPatch) -> int:
    """Return the width in pixels that a neighbour needs, including the gap before it."""
    if normal.whole is None:
        return GAP + CROP_SIDE
    return GAP + CROP_SIDE + GAP + _whole_size(normal.whole)[0]


def _whole_size(whole: np.ndarray) -> tuple[int, int]:
    """Return (width, height) of a whole image as high as the crops."""
    height, width = whole.shape[:2]
    return max(1, min(round(width * CROP_SIDE / height), 3 * CROP_SIDE)), CROP_SIDE


def _draw_row(
    canvas: np.ndarray,
    patch: ExplainedPatch,
    number: int,
    corner: tuple[int, int],
    *,
    is_below: bool,
) -> list[Label]:
    x, y = corner
    colour = COLOURS[number % len(COLOURS)]
    _draw_crop(canvas, patch.crop, patch.field, (x, y), colour)
    score = f"score {patch.score:.4g}" + (" < threshold" if is_below else "")
    labels = _titles(x, y, CROP_SIDE, f"patch {number + 1}", score, patch.place)
    x += CROP_SIDE
    for normal, name in zip(_shown(patch), NEIGHBOUR_NAMES, strict=False):
        x += GAP
        middle = y + CROP_SIDE // 2
        if normal is patch.nearest[0]:
            tip, end = (x - 5, middle), (x - GAP + 3, middle)
            cv2.arrowedLine(canvas, end, tip, INK, 2, cv2.LINE_AA, tipLength=0.35)
        _draw_crop(canvas, normal.crop, normal.field, (x, y), colour)
        distance = f"distance {normal.distance:.4g}"
        place = normal.place if normal.whole is not None else f"{normal.place}, {normal.name}"
        labels += _titles(x, y, CROP_SIDE, name, distance, place)
        x += CROP_SIDE
        if normal.whole is None:
            continue
        x += GAP
        size = _whole_size(normal.whole)
        canvas[y : y + size[1], x : x + size[0]] = resize_image(normal.whole, size)
        draw_frame(canvas, x, y, *size)
        box = _scaled(normal.box, normal.whole, x, y, size)
        _draw_link(canvas, (box[0], (box[1] + box[3]) // 2), (x - GAP + 1, middle), colour)
        _draw_box(canvas, box, colour)
        labels += _titles(x, y, size[0], "training image", normal.name)
        x += size[0]
    return labels


def _draw_crop(
    canvas: np.ndarray,
    crop: np.ndarray,
    field: Rectangle,
    corner: tuple[int, int],
    colour: tuple[int, int, int],
) -> None:
    """Draw a crop with a frame in its row's colour and a thin one around the patch itself."""
    x, y = corner
    side = (CROP_SIDE, CROP_SIDE)
    canvas[y : y + CROP_SIDE, x : x + CROP_SIDE] = resize_image(crop, side)
    left, top, right, bottom = _scaled(field, crop, x, y, side)
    cv2.rectangle(canvas, (left, top), (right, bottom), LINE_CASING, 3)
    cv2.rectangle(canvas, (left, top), (right, bottom), (255, 255, 255), 1)
    cv2.rectangle(canvas, (x - 2, y - 2), (x + CROP_SIDE + 1, y + CROP_SIDE + 1), colour, 3)


def _scaled(box: Rectangle, image: np.ndarray, x: int, y: int, size: tuple[int, int]) -> Rectangle:
    """Return a box of an image on the canvas, where the image is drawn at (x, y) with a size."""
    height, width = image.shape[:2]
    left, top, right, bottom = box
    return (
        x + round(left * size[0] / width),
        y + round(top * size[1] / height),
        x + round(right * size[0] / width) - 1,
        y + round(bottom * size[1] / height) - 1,
    )


def _draw_box(
    canvas: np.ndarray, box: Rectangle, colour: tuple[int, int, int], *, dashed: bool = False
) -> None:
    if dashed:
        draw_lines(canvas, [_perimeter(box)], LineKey("", colour, dashed=True))
        return
    for line_colour, thickness in ((LINE_CASING, 5), (colour, 3)):
        cv2.rectangle(canvas, box[:2], box[2:], line_colour, thickness)


def _perimeter(box: Rectangle) -> np.ndarray:
    """Return the pixels of a box's sides, clockwise, (n, 2) int32."""
    left, top, right, bottom = box
    across, down = np.arange(left, right), np.arange(top, bottom)
    xs = (across, np.full_like(down, right), across[::-1] + 1, np.full_like(down, left))
    ys = (np.full_like(across, top), down, np.full_like(across, bottom), down[::-1] + 1)
    return np.stack([np.concatenate(xs), np.concatenate(ys)], axis=1).astype(np.int32)


def _draw_link(
    canvas: np.ndarray, start: tuple[int, int], end: tuple[int, int], colour: tuple[int, int, int]
) -> None:
    """Draw a line with a dark outline, visible on white and on any image."""
    for line_colour, thickness in ((LINE_CASING, 4), (colour, 2)):
        cv2.line(canvas, start, end, line_colour, thickness, cv2.LINE_AA)


def _place_numbers(boxes: Sequence[Rectangle], image: Rectangle) -> list[tuple[int, int]]:
    """Return a corner of each box for its number, if possible away from the other numbers.

    Args:
        boxes: The boxes of the patches on the canvas.
        image: The image on the canvas, which the discs do not leave.
    """
    low = np.array(image[:2]) + DISC_RADIUS
    high = np.maximum(np.array(image[2:]) - 1 - DISC_RADIUS, low)
    centres: list[tuple[int, int]] = []
    for left, top, right, bottom in boxes:
        corners = np.array([(left, top), (right, top), (left, bottom), (right, bottom)])
        corners = np.clip(corners, low, high)
        if centres:
            gaps = np.linalg.norm(corners[:, None] - np.array(centres), axis=2).min(axis=1)
            # The first of the corners that are far enough, else the farthest.
            best = int(np.minimum(gaps, 2 * DISC_RADIUS).argmax())
        else:
            best = 0
        centres.append((int(corners[best, 0]), int(corners[best, 1])))
    return centres


def _draw_number(canvas: np.ndarray, number: int, centre: tuple[int, int]) -> Label:
    """Draw the disc of a patch's number; return its label."""
    cv2.circle(canvas, centre, DISC_RADIUS, LINE_CASING, -1, cv2.LINE_AA)
    cv2.circle(canvas, centre, DISC_RADIUS - 2, COLOURS[number % len(COLOURS)], -1, cv2.LINE_AA)
    return Label(str(number + 1), *centre, NUMBER, anchor="mm")


def _titles(x: int, y: int, width: int, name: str, *notes: str) -> list[Label]:
    """Return the lines above a picture at (x, y), the name first."""
    lines = [(name, NAME), *((note, NOTE) for note in notes)]
    return [
        Label(fit_text(text, style, width), x, y - 9 - 20 * above, style)
        for above, (text, style) in enumerate(reversed(lines))
    ]
