"""Anomaly map -> anomalous regions, in pixels of the original image."""

import math
from dataclasses import dataclass

import cv2
import numpy as np

CropBox = tuple[float, float, float, float]  # left, top, right, bottom, in pixels of the image
# Largest rounding error of an edge in pixels, which must not add another pixel to a box.
ROUNDING = 1e-6


@dataclass(frozen=True)
class Region:
    """A connected set of pixels at or above the threshold; diagonal neighbours are connected.

    Attributes:
        box: (left, top, right, bottom) in pixels of the image, right and bottom exclusive. It
            includes all pixels that the region touches.
        area: Number of pixels of the image, at least 1.
        score: The largest value of the map in the region.
    """

    box: tuple[int, int, int, int]
    area: int
    score: float


def find_regions(
    anomaly_map: np.ndarray,
    threshold: float,
    *,
    crop_box: CropBox,
    size: tuple[int, int] | None = None,
    max_regions: int = 5,
) -> list[Region]:
    """Find the largest anomalous regions.

    Args:
        anomaly_map: (H, W) float32.
        threshold: Pixels of at least this value are anomalous.
        crop_box: The part of the image that the map shows, as `Preprocess.crop_box` returns it.
        size: (H, W) of the image in pixels, if the map may extend beyond it; regions outside are
            left out, and boxes end at the border. None if the map does not.
        max_regions: The largest number of regions to return.

    Returns:
        The regions by descending area.
    """
    marked = (anomaly_map >= threshold).astype(np.uint8)
    if size is not None:
        marked &= _is_inside(anomaly_map.shape, size, crop_box)
    _, labels, boxes, _ = cv2.connectedComponentsWithStats(marked, connectivity=8)
    left, top, right, bottom = crop_box
    scale_x = (right - left) / anomaly_map.shape[1]
    scale_y = (bottom - top) / anomaly_map.shape[0]
    areas = boxes[1:, cv2.CC_STAT_AREA]  # label 0 is the background
    largest = 1 + np.argsort(-areas, kind="stable")[:max_regions]
    regions = []
    for label in largest:
        x, y, width, height, area = boxes[label]
        inside = np.s_[y : y + height, x : x + width]
        scores = anomaly_map[inside][labels[inside] == label]
        box = (
            math.floor(left + x * scale_x + ROUNDING),
            math.floor(top + y * scale_y + ROUNDING),
            math.ceil(left + (x + width) * scale_x - ROUNDING),
            math.ceil(top + (y + height) * scale_y - ROUNDING),
        )
        if size is not None:
            box = (max(box[0], 0), max(box[1], 0), min(box[2], size[1]), min(box[3], size[0]))
        pixels = max(1, round(area * scale_x * scale_y))
        regions.append(Region(box, pixels, float(scores.max())))
    return regions


def resize_mask_to_image(
    mask: np.ndarray, size: tuple[int, int], *, crop_box: CropBox
) -> np.ndarray:
    """Resize a mask of the crop to its whole image, to the nearest pixel.

    Args:
        mask: (h, w) bool.
        size: (H, W) of the image in pixels.
        crop_box: The part of the image that the mask shows, as `Preprocess.crop_box` returns it.

    Returns:
        (H, W) bool; False outside of the crop.
    """
    left, top, right, bottom = crop_box
    rows, is_row = _nearest_positions(size[0], top, bottom, mask.shape[0])
    columns, is_column = _nearest_positions(size[1], left, right, mask.shape[1])
    return mask[np.ix_(rows, columns)] & is_row[:, None] & is_column


def _nearest_positions(
    length: int, first: float, last: float, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the position in the crop of each pixel's centre, and whether it is in the crop."""
    centres = (np.arange(length) + 0.5 - first) / (last - first) * count
    inside = (centres >= 0) & (centres < count)
    return np.clip(centres, 0, count - 1).astype(np.int64), inside


def _is_inside(shape: tuple[int, int], size: tuple[int, int], crop_box: CropBox) -> np.ndarray:
    """Return (H, W) bool: the pixels of a map with their centre inside the image."""
    left, top, right, bottom = crop_box
    rows = top + (np.arange(shape[0]) + 0.5) * (bottom - top) / shape[0]
    columns = left + (np.arange(shape[1]) + 0.5) * (right - left) / shape[1]
    return np.outer((rows >= 0) & (rows < size[0]), (columns >= 0) & (columns < size[1]))


def resize_map_to_image(
    anomaly_map: np.ndarray, size: tuple[int, int], *, crop_box: CropBox
) -> np.ndarray:
    """Resize an anomaly map bilinearly to its whole image.

    Args:
        anomaly_map: (h, w) float32.
        size: (H, W) of the image in pixels.
        crop_box: The part of the image that the map shows, as `Preprocess.crop_box` returns it.

    Returns:
        (H, W) float32; 0 outside of the crop.
    """
    left, top, right, bottom = crop_box
    window = crop_window(size, crop_box)
    rows = _interpolated(anomaly_map, window[0], top, bottom)
    spread = np.zeros(size, np.float32)
    spread[window] = _interpolated(rows.T, window[1], left, right).T
    return spread


def crop_window(size: tuple[int, int], crop_box: CropBox) -> tuple[slice, slice]:
    """Return the rows and columns of an image (H, W) with their centres in the crop."""
    left, top, right, bottom = crop_box
    ranges = ((size[0], top, bottom), (size[1], left, right))
    rows, columns = (
        slice(max(math.ceil(first - 0.5), 0), min(math.floor(last - 0.5) + 1, length))
        for length, first, last in ranges
    )
    return rows, columns


def _interpolated(values: np.ndarray, pixels: slice, first: float, last: float) -> np.ndarray:
    """Interpolate rows (n, m) linearly at the centres of pixels of the image.

    The rows extend from ``first`` to ``last``. Beyond the centres of the outermost rows, their
    values are repeated.
    """
    count = len(values)
    position = (np.arange(pixels.start, pixels.stop) + 0.5 - first) * count / (last - first) - 0.5
    position = position.clip(0, count - 1)
    low = position.astype(np.int64)
    share = (position - low).astype(np.float32)[:, None]
    below, above = values[low], values[np.minimum(low + 1, count - 1)]
    return below + share * (above - below)
