"""Blemishes on photographs of good products, with exact masks: for whoever has no defective one.

Real defects differ from these. But a backbone that finds the ones well finds the others well, more
surely than by pictures that are drawn throughout.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np

from datasets.synthetic.fields import picture_axes, ramp, rotated, smooth_noise

VISIBLE_CHANGE = 6
"""Mean change of the three channels, of 255, above which a pixel counts as blemished."""

SHARE = (0.0004, 0.04)
"""How much of a picture a blemish may take."""

WIDEST_PLACE = 0.84
"""Blemishes are centred within this reach of the picture's middle, in half picture widths."""

TRIES = 100

Blemish = Callable[[np.ndarray, tuple[float, float], np.random.Generator], np.ndarray]
"""(photograph (S, S, 3) float32 of 0 to 255, place in half picture widths, rng) -> another."""


def stained(photo: np.ndarray, place: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """Covered by a small, soft spot of greyish dirt."""
    share = rng.uniform(0.35, 0.9) * _patch(len(photo), place, rng.uniform(0.024, 0.08), rng)
    dirt = np.float32(rng.uniform(60, 200) * rng.uniform(0.8, 1.2, 3))
    return photo + share[..., None] * (dirt - photo)


def chipped(photo: np.ndarray, place: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """An angular piece broken out: what lies beside it is seen there, in another light."""
    count, size = int(rng.integers(4, 8)), len(photo)
    angles = np.sort(rng.uniform(0, 2 * math.pi, count))
    reach = rng.uniform(0.04, 0.14) * rng.uniform(0.5, 1.2, count)
    corners = np.stack([np.cos(angles), np.sin(angles)], 1) * reach[:, None] + place
    share = np.zeros((size, size), np.float32)
    cv2.fillPoly(share, [_in_sixteenths(corners, size)], 1.0, cv2.LINE_AA, 4)
    beside = np.roll(photo, rng.integers(-size // 6, size // 6 + 1, 2), (0, 1))
    beside = np.clip(beside * rng.uniform(0.6, 1.5) + rng.uniform(-15, 25), 0, 255)
    share = cv2.GaussianBlur(share, (0, 0), 1.0)
    return photo + share[..., None] * (np.float32(beside) - photo)


def scratched(
    photo: np.ndarray, place: tuple[float, float], rng: np.random.Generator
) -> np.ndarray:
    """A thin, slightly bent line, darker or lighter."""
    size, angle = len(photo), rng.uniform(0, 2 * math.pi)
    along = np.linspace(-0.5, 0.5, 30) * rng.uniform(0.08, 0.3)
    beside = rng.normal(0, 2.5) * along**2
    points = np.stack(rotated(along, beside, angle=angle), 1) + place
    share = np.zeros((size, size), np.float32)
    width = int(rng.integers(1, 3))
    cv2.polylines(share, [_in_sixteenths(points, size)], False, 1.0, width, cv2.LINE_AA, 4)
    share = cv2.GaussianBlur(share, (0, 0), 0.7)[..., None]
    return photo * (1 + share * np.float32(rng.choice((-0.5, 0.8)))) + share * rng.uniform(0, 25)


def turned(photo: np.ndarray, place: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """A small piece turned where it is."""
    size = len(photo)
    middle = tuple((np.array(place) + 1) * (size / 2))
    matrix = cv2.getRotationMatrix2D(middle, rng.uniform(10, 60), 1.0)
    piece = cv2.warpAffine(photo, matrix, (size, size), borderMode=cv2.BORDER_REFLECT_101)
    share = _patch(size, place, rng.uniform(0.04, 0.12), rng)
    return photo + share[..., None] * (piece - photo)


BLEMISHES: dict[str, Blemish] = {
    "stained": stained,
    "chipped": chipped,
    "scratched": scratched,
    "turned": turned,
}


def blemish(photo: np.ndarray, kind: str, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Blemish a photograph of a good product once, somewhere.

    Args:
        photo: (S, S, 3) uint8 RGB.
        kind: Of `BLEMISHES`.
        seed: The same one gives the same blemish.

    Returns:
        The blemished photograph (S, S, 3) uint8, and the mask (S, S) bool of what visibly changed.

    Raises:
        ValueError: Nothing becomes visible anywhere: the picture is of one colour.
    """
    rng = np.random.default_rng([seed, *kind.encode()])
    before = photo.astype(np.float32)
    for _ in range(TRIES):
        angle, reach = rng.uniform(0, 2 * math.pi), rng.uniform(0, WIDEST_PLACE)
        place = (reach * math.cos(angle), reach * math.sin(angle))
        after = BLEMISHES[kind](before, place, rng)
        after = np.clip(np.rint(after), 0, 255).astype(np.uint8)
        change = np.abs(after - before).mean(2) > VISIBLE_CHANGE
        if SHARE[0] < change.mean() < SHARE[1]:
            closed = cv2.morphologyEx(change.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3)))
            return after, closed > 0
    raise ValueError(f"expected a picture on which something {kind} can be seen, found none")


def _patch(
    size: int, place: tuple[float, float], radius: float, rng: np.random.Generator
) -> np.ndarray:
    """Return the share (S, S) float32, 0 to 1, that an uneven round patch takes of each pixel."""
    across, down = picture_axes(size)
    cells = int(np.clip(1.3 / radius, 2, 64))
    uneven = np.exp(0.2 * smooth_noise(rng, size, (cells, cells)))
    longer = rng.uniform(0.8, 1.25)
    distance = np.hypot((across - place[0]) * longer, (down - place[1]) / longer) / radius * uneven
    return ramp(distance, 1.25, 0.75)


def _in_sixteenths(points: np.ndarray, size: int) -> np.ndarray:
    """Return points (N, 2) in half picture widths as OpenCV draws them: in 16ths of pixels."""
    return np.int32((points + 1) * (size / 2) * 16)
