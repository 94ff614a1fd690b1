"""Masks from shapes: polygons, ellipses and COCO's run lengths."""

from collections.abc import Iterator
from itertools import pairwise

import cv2
import numpy as np

from datasets.base import DatasetError, Ellipse, MaskShapes, Polygon, RunLengths
from datasets.decoding import ImageFile
from datasets.json_files import MALFORMED
from datasets.notes import Notes

# Of a number in COCO's text.
MAX_BITS = 60
# Parts of a pixel in which lines are clipped.
PARTS = 256
UPRIGHT_SHAPES = (
    "shapes on an image with an EXIF orientation, used as drawn on the upright image; if they are "
    "not, remove the EXIF orientation"
)

OUTSIDE_SHAPES = "shapes without a pixel of their image, left out; remove or move them"


def read_shapes(
    mask: MaskShapes, image: ImageFile, size: tuple[int, int], notes: Notes
) -> np.ndarray:
    """Return the mask (H, W) bool of an image, as `draw_mask` does.

    Args:
        mask: The shapes.
        image: The image's file.
        size: (H, W) of the image, upright.
        notes: Collects remarks about the shapes.

    Raises:
        DatasetError: The shapes were drawn on an image of another size, or cannot be drawn.
    """
    orientation = image.header.orientation
    stated = [tuple(shape.size) for shape in mask.shapes if isinstance(shape, RunLengths)]
    stated += [] if mask.size is None else [mask.size]
    for found in stated:
        if found != size:
            hint = "; annotate images of this size, or restore theirs"
            if found == size[::-1] and orientation >= 5:
                hint = "; it was drawn without the EXIF orientation of the image: remove it"
            raise image.mask_of_other_size(size, found, mask.source, hint)
    # Of other sizes than this, only the upright image fits.
    if orientation != 1 and (not stated or size[0] == size[1] or orientation < 5):
        notes.add(UPRIGHT_SHAPES, image.path)
    joined = np.zeros(size, dtype=bool)
    for drawn in _draw_each(mask, size):
        joined |= drawn
        if not drawn.any():
            notes.add(OUTSIDE_SHAPES, image.path)
    return joined


def draw_mask(mask: MaskShapes, size: tuple[int, int]) -> np.ndarray:
    """Return the mask (H, W) bool of an image: pixels with their centre in any of the shapes.

    A shape too thin to cover a centre marks the pixels of its corners, so that no defect is lost;
    of a line that leaves the image, the point at the border counts. A shape outside the image marks
    nothing.

    Args:
        mask: The shapes.
        size: (H, W) of the image.

    Raises:
        DatasetError: Run lengths do not add up to the size, or a shape has something else than
            finite numbers.
    """
    return np.logical_or.reduce([np.zeros(size, dtype=bool), *_draw_each(mask, size)])


def _draw_each(mask: MaskShapes, size: tuple[int, int]) -> Iterator[np.ndarray]:
    """Yield (H, W) bool of each shape."""
    try:
        for shape in mask.shapes:
            if isinstance(shape, RunLengths):
                yield _from_runs(shape, size, mask)
            elif isinstance(shape, Ellipse):
                yield _in_ellipse(shape, size)
            else:
                yield _in_polygon(shape, size)
    except MALFORMED as error:
        raise DatasetError(
            f"expected shapes of finite numbers in {mask.source}, found something else ({error})"
        ) from error


def _finite(values: object) -> np.ndarray:
    """Return numbers as float64.

    Raises:
        ValueError, TypeError, OverflowError: They are no finite numbers.
    """
    array = np.array(values, dtype=np.float64)
    if not np.isfinite(array).all():
        raise ValueError("a number that is not finite")
    return array


def _in_polygon(polygon: Polygon, size: tuple[int, int]) -> np.ndarray:
    """Return (H, W) bool, by the crossings of the line with each row of centres (even-odd rule)."""
    height, width = size
    inside = np.zeros(size, dtype=bool)
    points = _finite(polygon.points)  # (n, 2)
    (x0, y0), (x1, y1) = points.T, np.roll(points, -1, axis=0).T
    first, last = max(int(y0.min()), 0), min(int(np.ceil(y0.max())), height)
    for row in range(first, last):
        centre = row + 0.5
        crossing = (y0 <= centre) != (y1 <= centre)
        share = (centre - y0[crossing]) / (y1[crossing] - y0[crossing])
        at = np.sort(x0[crossing] + share * (x1[crossing] - x0[crossing]))
        columns = np.clip(np.ceil(at - 0.5), 0, width).astype(int)
        for start, stop in columns.reshape(-1, 2):
            inside[row, start:stop] = True
    return inside if inside.any() else _at_points(_points_within(points, size), size)


def _in_ellipse(ellipse: Ellipse, size: tuple[int, int]) -> np.ndarray:
    """Return (H, W) bool."""
    rows, columns = np.ogrid[: size[0], : size[1]]
    x, y = centre = _finite(ellipse.centre)
    horizontal, vertical = radii = np.maximum(_finite(ellipse.radii), 1e-9)
    inside = ((columns + 0.5 - x) / horizontal) ** 2 + ((rows + 0.5 - y) / vertical) ** 2 <= 1
    nearest = np.clip(centre, 0, size[::-1])
    if inside.any() or (((nearest - centre) / radii) ** 2).sum() >= 1:
        return inside
    return _at_points(nearest[None], size)


def _points_within(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the corners (n, 2) of a polygon, and the points where its line leaves the image.

    Nothing is returned of a polygon that only touches the border (H, W) from outside; one that lies
    on the border is inside.
    """
    end = np.array(size[::-1])
    lowest, highest = points.min(axis=0), points.max(axis=0)
    if (((highest <= 0) & (lowest < 0)) | ((lowest >= end) & (highest > end))).any():
        return np.empty((0, 2))
    # OpenCV clips integers of 32 bits.
    corners = np.clip(np.floor(points * PARTS), -(2**30), 2**30).astype(int).tolist()
    border = (0, 0, *(end * PARTS + 1).tolist())
    clipped = (cv2.clipLine(border, *line) for line in pairwise([*corners, corners[0]]))
    within = [point for is_seen, *line in clipped if is_seen for point in line]
    return np.reshape(within, (-1, 2)) / PARTS


def _at_points(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return (H, W) bool, the pixels at (n, 2) points x, y within the image or on its border."""
    marked = np.zeros(size, dtype=bool)
    columns, rows = np.floor(points).astype(int).T
    marked[np.clip(rows, 0, size[0] - 1), np.clip(columns, 0, size[1] - 1)] = True
    return marked


def _from_runs(runs: RunLengths, size: tuple[int, int], mask: MaskShapes) -> np.ndarray:
    """Return (H, W) bool."""
    counts = _decompress(runs.counts) if isinstance(runs.counts, str) else runs.counts
    if min(counts, default=0) < 0 or sum(counts) != size[0] * size[1]:
        raise DatasetError(
            f"expected run lengths of {size[0] * size[1]} pixels, found {sum(counts)} in "
            f"{mask.source}"
        )
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, counts).reshape(size, order="F")


def _decompress(text: str) -> tuple[int, ...]:
    """Return the run lengths that COCO's text stands for.

    Each character holds 5 bits of a signed number, lowest first, and whether more follow. From the
    fourth number on it is the difference to the last but one.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text.encode("ascii", errors="replace"):
        bits = character - 48
        value |= (bits & 31) << shift
        shift += 5
        if shift > MAX_BITS:  # numbers of any length take time that grows with their square
            raise ValueError(f"a run length of more than {MAX_BITS} bits")
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    return tuple(counts)
