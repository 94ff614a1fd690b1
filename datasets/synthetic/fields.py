"""Scalar fields over an image: coordinates, smooth noise, soft edges and distances.

A field is a float32 array of shape (S, S), one value per pixel of a square image with a side of S
pixels. Lengths are in half image widths: for every S, the image spans -1 to 1 along both axes (x to
the right, y downwards). Random draws do not depend on S: one seed gives the same scene at every
size.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np

FIELD_REACH = 1.25
"""Streaks are drawn over [-FIELD_REACH, FIELD_REACH], which contains a rotated image."""

MAX_ZOOM, MAX_TILT = 0.03, 0.035
"""Largest change of scale and of depth (per half image width) of a pose."""


@dataclass(frozen=True)
class Pose:
    """Position of a part in front of the camera: rotation, shift, scale and slight tilt."""

    angle: float
    shift: tuple[float, float]
    scale: float
    tilt: tuple[float, float]

    def coordinates(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the fields x and y: the position of each pixel in the frame of the part."""
        across, down = image_axes(size)
        # A tilted plane shrinks with its distance from the camera (denominator of a homography).
        depth = self.scale * (1 + self.tilt[0] * across + self.tilt[1] * down)
        return rotated(
            across / depth - self.shift[0], down / depth - self.shift[1], angle=self.angle
        )


def random_pose(rng: np.random.Generator, *, max_angle: float, max_shift: float = 0.0) -> Pose:
    """Draw a pose; `max_angle` in radians, `max_shift` in half image widths."""
    return Pose(
        angle=rng.uniform(-max_angle, max_angle),
        shift=(rng.uniform(-max_shift, max_shift), rng.uniform(-max_shift, max_shift)),
        scale=1 + rng.uniform(-MAX_ZOOM, MAX_ZOOM),
        tilt=(rng.uniform(-MAX_TILT, MAX_TILT), rng.uniform(-MAX_TILT, MAX_TILT)),
    )


def image_axes(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the axes of the image, x as (1, S) and y as (S, 1), for broadcasting."""
    axis = (np.arange(size, dtype=np.float32) + 0.5) * (2 / size) - 1
    return axis[None, :], axis[:, None]


def rotated(x: np.ndarray, y: np.ndarray, *, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the coordinates in axes rotated by `angle` radians."""
    cos, sin = math.cos(angle), math.sin(angle)
    return cos * x + sin * y, cos * y - sin * x


def ramp(values: np.ndarray, start: float, end: float) -> np.ndarray:
    """Rise smoothly from 0 where `values` is `start` to 1 where it is `end` (either order)."""
    t = np.clip((values - start) / (end - start), 0, 1)
    return t * t * (3 - 2 * t)


def coverage(distance: np.ndarray, *, softness: float = 0.0) -> np.ndarray:
    """Return the share of each pixel inside a shape, 0 to 1.

    `distance` is the signed distance from the outline, negative inside. The edge is at least
    1.5 pixels wide, to avoid aliasing; `softness` (a length) makes it wider.
    """
    width = max(softness, 3 / distance.shape[0])
    return np.clip(0.5 - distance / width, 0, 1)


def mix(first: np.ndarray | float, second: np.ndarray | float, share: np.ndarray) -> np.ndarray:
    """Blend from `first` (share 0) to `second` (share 1)."""
    return first + share * (second - first)


def gaussian(values: np.ndarray, sigma: float) -> np.ndarray:
    """Blur a field or image; `sigma` is a length, so the result does not depend on the size."""
    sigma_pixels = sigma * values.shape[0] / 2
    # A wide blur has no fine detail, so a smaller copy gives the same result faster.
    shrink = 2 ** int(np.clip(np.log2(max(sigma_pixels, 1) / 2), 0, 4))
    size = values.shape[0]
    if shrink == 1:
        return cv2.GaussianBlur(values, (0, 0), sigma_pixels)
    small = cv2.resize(values, (size // shrink, size // shrink), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), sigma_pixels / shrink)
    return cv2.resize(small, (size, size), interpolation=cv2.INTER_CUBIC)


def smooth_noise(rng: np.random.Generator, size: int, cells: tuple[int, int]) -> np.ndarray:
    """Draw smooth noise with mean 0, standard deviation about 1 and (columns, rows) `cells`.

    Random values on a lattice, interpolated by cubic B-splines. Their second derivative is
    continuous, so a height map made from them shows no lattice under grazing light.
    """
    columns, rows = cells
    lattice = rng.standard_normal((rows + 3, columns + 3), dtype=np.float32)
    first, weights = _spline_taps(size, rows)
    lines = sum(weights[k][:, None] * lattice[first + k] for k in range(4))
    first, weights = _spline_taps(size, columns)
    # The spline averages neighbours (standard deviation 0.69 per axis): scale back to about 1.
    return sum(weights[k] * lines[:, first + k] for k in range(4)) * 2.1


def _spline_taps(size: int, cells: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return the first lattice index and the four cubic B-spline weights of each pixel."""
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
    """Sum `octaves` of smooth noise, each twice as fine and half as strong as the previous one."""
    total = smooth_noise(rng, size, cells)
    for octave in range(1, octaves):
        finer = (cells[0] << octave, cells[1] << octave)
        total += smooth_noise(rng, size, finer) * 0.5**octave
    return total * 0.87


def streaks(
    rng: np.random.Generator, x: np.ndarray, y: np.ndarray, cells: tuple[int, int]
) -> np.ndarray:
    """Draw directed noise (wood fibre) along the axes of the part."""
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
    """Return a field or image with each pixel read at an offset of (dx, dy)."""
    size = values.shape[0]
    pixels = np.arange(size, dtype=np.float32)
    columns, rows = pixels[None, :] + dx * (size / 2), pixels[:, None] + dy * (size / 2)
    return cv2.remap(values, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)


def random_phase(rng: np.random.Generator, pitch: float) -> tuple[float, float]:
    """Draw the x and y phase of a pattern with period `pitch`."""
    return rng.uniform(0, pitch), rng.uniform(0, pitch)


def per_item(rng: np.random.Generator, index: np.ndarray) -> np.ndarray:
    """Return a standard normal value for each integer in `index`, equal for equal integers."""
    return rng.standard_normal(1024, dtype=np.float32)[index.astype(np.int64) % 1024]


def rounded_box_distance(x: np.ndarray, y: np.ndarray, *, half: float, corner: float) -> np.ndarray:
    """Return the signed distance from a centred square with rounded corners."""
    dx, dy = np.abs(x) - (half - corner), np.abs(y) - (half - corner)
    outside = np.hypot(np.maximum(dx, 0), np.maximum(dy, 0))
    return outside + np.minimum(np.maximum(dx, dy), 0) - corner
