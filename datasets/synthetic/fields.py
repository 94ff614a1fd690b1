"""Scalar fields over a picture: coordinates, smooth noise, soft edges and distances.

A field is a float32 array of shape (S, S), one value per pixel of a square picture of S pixels a
side. Lengths are in half picture widths: the picture reaches from -1 to 1 along both axes (x to
the right, y downwards), whatever S is. Random draws never depend on S, so that one seed shows the
same scene at every size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

FIELD_REACH = 1.25
"""Streaks are drawn over [-FIELD_REACH, FIELD_REACH], so that a turned picture stays inside."""


@dataclass(frozen=True)
class Pose:
    """How a part lies before the camera: turned, shifted, scaled and slightly tilted."""

    angle: float
    shift: tuple[float, float]
    scale: float
    tilt: tuple[float, float]

    def coordinates(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the fields x and y: each pixel's place in the part's own frame."""
        across, down = picture_axes(size)
        # A tilted plane shrinks with its distance from the camera: a homography's denominator.
        depth = self.scale * (1 + self.tilt[0] * across + self.tilt[1] * down)
        return rotated(
            across / depth - self.shift[0], down / depth - self.shift[1], angle=self.angle
        )


def random_pose(
    rng: np.random.Generator,
    *,
    max_angle: float,
    max_shift: float = 0.0,
    max_zoom: float = 0.03,
    max_tilt: float = 0.035,
) -> Pose:
    """Draw a pose; `max_angle` in radians, the others as shares of half the picture width."""
    return Pose(
        angle=rng.uniform(-max_angle, max_angle),
        shift=(rng.uniform(-max_shift, max_shift), rng.uniform(-max_shift, max_shift)),
        scale=1 + rng.uniform(-max_zoom, max_zoom),
        tilt=(rng.uniform(-max_tilt, max_tilt), rng.uniform(-max_tilt, max_tilt)),
    )


def picture_axes(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the picture's own axes, x as (1, S) and y as (S, 1), ready to broadcast."""
    axis = (np.arange(size, dtype=np.float32) + 0.5) * (2 / size) - 1
    return axis[None, :], axis[:, None]


def rotated(x: np.ndarray, y: np.ndarray, *, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the coordinates in axes turned by `angle` radians."""
    cos, sin = math.cos(angle), math.sin(angle)
    return cos * x + sin * y, cos * y - sin * x


def ramp(values: np.ndarray, start: float, end: float) -> np.ndarray:
    """Rise smoothly from 0 where `values` is `start` to 1 where it is `end` (either order)."""
    t = np.clip((values - start) / (end - start), 0, 1)
    return t * t * (3 - 2 * t)


def coverage(distance: np.ndarray, *, softness: float = 0.0) -> np.ndarray:
    """Return how much of each pixel lies inside a shape, 0 to 1.

    `distance` is the signed distance from the outline, negative inside. The edge is at least a
    pixel and a half wide, which keeps it free of stairs; `softness` (a length) widens it.
    """
    width = max(softness, 3 / distance.shape[0])
    return np.clip(0.5 - distance / width, 0, 1)


def mix(first: np.ndarray | float, second: np.ndarray | float, share: np.ndarray) -> np.ndarray:
    """Blend from `first` (share 0) to `second` (share 1)."""
    return first + share * (second - first)


def gaussian(values: np.ndarray, sigma: float) -> np.ndarray:
    """Blur a field or picture; `sigma` is a length, so the look does not depend on the size."""
    sigma_pixels = sigma * values.shape[0] / 2
    # A wide blur holds no fine detail: working on a smaller copy gives the same at less cost.
    shrink = 2 ** int(np.clip(np.log2(max(sigma_pixels, 1) / 2), 0, 4))
    size = values.shape[0]
    if shrink == 1:
        return cv2.GaussianBlur(values, (0, 0), sigma_pixels)
    small = cv2.resize(values, (size // shrink, size // shrink), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), sigma_pixels / shrink)
    return cv2.resize(small, (size, size), interpolation=cv2.INTER_CUBIC)


def smooth_noise(rng: np.random.Generator, size: int, cells: tuple[int, int]) -> np.ndarray:
    """Draw smooth noise, mean 0 and deviation about 1, with (across, down) `cells` a picture.

    Random values on a lattice, joined by cubic B-splines. Their second derivative is continuous,
    so a height made of them shows no lattice under raking light.
    """
    columns, rows = cells
    lattice = rng.standard_normal((rows + 3, columns + 3), dtype=np.float32)
    first, weights = _spline_taps(size, rows)
    lines = sum(weights[k][:, None] * lattice[first + k] for k in range(4))
    first, weights = _spline_taps(size, columns)
    # The spline averages neighbours (deviation 0.69 a direction): scale back to about 1.
    return sum(weights[k] * lines[:, first + k] for k in range(4)) * 2.1


def _spline_taps(size: int, cells: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return each pixel's first lattice index and its four cubic B-spline weights."""
    place = (np.arange(size) + 0.5) * (cells / size)
    first = np.minimum(place.astype(np.int64), cells - 1)
    t = (place - first).astype(np.float32)
    weights = [
        (1 - t) ** 3 / 6,
        (3 * t**3 - 6 * t**2 + 4) / 6,
        (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6,
        t**3 / 6,
    ]
    return first, weights


def fractal_noise(
    rng: np.random.Generator, size: int, cells: tuple[int, int], *, octaves: int
) -> np.ndarray:
    """Sum `octaves` of smooth noise, each twice as fine and half as strong as the one before."""
    total = smooth_noise(rng, size, cells)
    for octave in range(1, octaves):
        finer = (cells[0] << octave, cells[1] << octave)
        total += smooth_noise(rng, size, finer) * 0.5**octave
    return total * 0.87


def streaks(
    rng: np.random.Generator, x: np.ndarray, y: np.ndarray, cells: tuple[int, int]
) -> np.ndarray:
    """Draw directed noise (brush marks, wood fibre) that follows the part's own axes."""
    size = round(FIELD_REACH * x.shape[0])
    columns, rows = ((place + FIELD_REACH) * (x.shape[0] / 2) - 0.5 for place in (x, y))
    return cv2.remap(
        smooth_noise(rng, size, cells),
        columns,
        rows,
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REFLECT_101,
    )


def displaced(values: np.ndarray, dx: np.ndarray, dy: np.ndarray) -> np.ndarray:
    """Fetch each pixel of a field or picture from (dx, dy) beside its place."""
    size = values.shape[0]
    pixels = np.arange(size, dtype=np.float32)
    columns, rows = pixels[None, :] + dx * (size / 2), pixels[:, None] + dy * (size / 2)
    return cv2.remap(values, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)


def random_phase(rng: np.random.Generator, pitch: float) -> tuple[float, float]:
    """Draw where a pattern that repeats every `pitch` starts, in x and in y."""
    return rng.uniform(0, pitch), rng.uniform(0, pitch)


def per_item(rng: np.random.Generator, index: np.ndarray) -> np.ndarray:
    """Give every whole number in `index` (any shape) a normal deviate of its own."""
    return rng.standard_normal(1024, dtype=np.float32)[index.astype(np.int64) % 1024]


def segment_distance(
    x: np.ndarray, y: np.ndarray, start: tuple[float, float], end: tuple[float, float]
) -> np.ndarray:
    """Return the distance of each pixel from the straight line between two points."""
    run, rise = end[0] - start[0], end[1] - start[1]
    dx, dy = x - start[0], y - start[1]
    share = np.clip((dx * run + dy * rise) / (run * run + rise * rise), 0, 1)
    return np.hypot(dx - share * run, dy - share * rise)


def rounded_box_distance(x: np.ndarray, y: np.ndarray, *, half: float, corner: float) -> np.ndarray:
    """Return the signed distance from a centred square with rounded corners."""
    dx, dy = np.abs(x) - (half - corner), np.abs(y) - (half - corner)
    outside = np.hypot(np.maximum(dx, 0), np.maximum(dy, 0))
    return outside + np.minimum(np.maximum(dx, dy), 0) - corner
