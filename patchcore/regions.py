"""Anomaly map -> the anomalous regions, where they lie in the image as it was given."""

import math
from dataclasses import dataclass

import cv2
import numpy as np

Box = tuple[float, float, float, float]
# What calculating with floats may add to an edge, in pixels: it touches no further one.
ROUNDING = 1e-6


@dataclass(frozen=True)
class Region:
    """Pixels at or above the threshold that touch, also by a corner.

    Attributes:
        box: (left, top, right, bottom) in pixels of the image, right and bottom exclusive: all
            pixels that the region touches.
        area: In pixels of the image, at least 1.
        score: The map's largest value in it.
    """

    box: tuple[int, int, int, int]
    area: int
    score: float


def find_regions(
    anomaly_map: np.ndarray, threshold: float, *, crop_box: Box, most: int = 5
) -> list[Region]:
    """Find the largest anomalous regions.

    Args:
        anomaly_map: (H, W) float32.
        threshold: Of pixels: those of at least this value are anomalous.
        crop_box: Which part of the image the map shows, as `Preprocess.crop_box` says.
        most: How many regions at most.

    Returns:
        Them, by area, largest first.
    """
    marked = (anomaly_map >= threshold).astype(np.uint8)
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(marked, connectivity=8)
    left, top, right, bottom = crop_box
    scale_x = (right - left) / anomaly_map.shape[1]
    scale_y = (bottom - top) / anomaly_map.shape[0]
    areas = boxes[1:, cv2.CC_STAT_AREA]  # label 0 is what is not marked
    largest = 1 + np.argsort(-areas, kind="stable")[:most]
    regions = []
    for label in largest if count > 1 else ():
        x, y, width, height, area = boxes[label]
        inside = np.s_[y : y + height, x : x + width]
        scores = anomaly_map[inside][labels[inside] == label]
        box = (
            math.floor(left + x * scale_x + ROUNDING),
            math.floor(top + y * scale_y + ROUNDING),
            math.ceil(left + (x + width) * scale_x - ROUNDING),
            math.ceil(top + (y + height) * scale_y - ROUNDING),
        )
        pixels = max(1, round(area * scale_x * scale_y))
        regions.append(Region(box, pixels, float(scores.max())))
    return regions


def spread_map(anomaly_map: np.ndarray, size: tuple[int, int], *, crop_box: Box) -> np.ndarray:
    """Lay an anomaly map over the whole image that it is of.

    Args:
        anomaly_map: (h, w) float32.
        size: (H, W) in pixels of the image.
        crop_box: Which part of the image the map shows.

    Returns:
        (H, W) float32; 0 where the map does not reach.
    """
    left, top, right, bottom = crop_box
    scale_x = (right - left) / anomaly_map.shape[1]
    scale_y = (bottom - top) / anomaly_map.shape[0]
    # Centres of pixels lie at halves: pixel u of the map is at left + (u + 1/2) scale - 1/2.
    to_image = np.array(
        [
            [scale_x, 0, left + (scale_x - 1) / 2],
            [0, scale_y, top + (scale_y - 1) / 2],
        ]
    )
    spread = cv2.warpAffine(
        anomaly_map, to_image, size[::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    rows, columns = np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5
    spread[(rows < top) | (rows > bottom)] = 0
    spread[:, (columns < left) | (columns > right)] = 0
    return spread
