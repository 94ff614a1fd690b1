"""Damage by formula, with exact masks: what a scene did not have before.

Each takes the picture (S, S, 3) float32 in 0 to 1 and a mask (S, S) float32 in 0 to 1 of where it
may act, and returns the damaged picture.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np

from datasets.formulas.noise import axes, thrice, value_noise
from datasets.formulas.shapes import OUTLINES

Damage = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]
"""(picture, mask, rng) -> another picture, to be seen where the mask is."""

VISIBLE_CHANGE = 6 / 255
"""Mean change of the three channels, above which a pixel counts as damaged."""


def moved(picture: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A piece of the same picture from elsewhere, turned or mirrored."""
    size = picture.shape[0]
    turn = rng.choice((0.0, rng.uniform(-math.pi, math.pi)))
    cos, sin = math.cos(turn), math.sin(turn)
    turned = np.array([[cos, -sin], [sin, cos]]) @ np.diag([rng.choice((-1, 1)), 1])
    place = np.array(_middle(mask))
    far = rng.uniform(0.15, 0.5) * size
    way = rng.uniform(0, 2 * math.pi)
    source = place + far * np.array([math.cos(way), math.sin(way)])
    matrix = np.column_stack([turned, source - turned @ place])
    return cv2.warpAffine(
        picture,
        matrix,
        (size, size),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT_101,
    )


def warped(picture: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Pulled aside or swirled, smoothly within the mask."""
    size = picture.shape[0]
    column, row = _middle(mask)
    x, y = axes(size, shift=(size / 2 - column, size / 2 - row))  # from the middle of the mask
    inner = cv2.GaussianBlur(mask, (0, 0), 3)
    pixels = np.arange(size, dtype=np.float32)
    if rng.random() < 0.5:
        turn = np.float32(rng.choice((-1, 1)) * rng.uniform(0.5, 2)) * inner
        dx, dy = np.cos(turn) * x - np.sin(turn) * y - x, np.sin(turn) * x + np.cos(turn) * y - y
    else:
        way, far = rng.uniform(0, 2 * math.pi), rng.uniform(4, 14)
        dx, dy = np.float32(far * math.cos(way)) * inner, np.float32(far * math.sin(way)) * inner
    return cv2.remap(
        picture,
        pixels[None, :] + dx,
        pixels[:, None] + dy,
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REFLECT_101,
    )


def blurred(picture: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Detail rubbed out."""
    return cv2.GaussianBlur(picture, (0, 0), rng.uniform(2, 6))


def stained(picture: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Tinted: darker or lighter, the structure still seen through it."""
    share = rng.uniform(0.25, 0.8)
    tint = np.full_like(picture, np.float32(share * rng.random(3)))
    return picture * np.float32(1 - share) + tint


def filled(picture: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Covered by one colour with a little grain, the picture's own or a foreign one."""
    row, column = rng.integers(0, picture.shape[0], 2)
    colour = picture[row, column] if rng.random() < 0.5 else rng.random(3)
    cell, grain = rng.uniform(1.5, 12), rng.uniform(0, 0.08)
    grains = np.float32(grain) * value_noise(rng, len(picture), cell)
    return np.full_like(picture, np.float32(colour)) + thrice(grains)


def roughened(picture: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Strewn with noise of another grain."""
    noise = value_noise(rng, picture.shape[0], rng.uniform(1.5, 6), stretch=rng.uniform(1, 4))
    return picture + thrice(np.float32(rng.uniform(0.08, 0.25)) * noise)


CHANGES: tuple[Damage, ...] = (moved, moved, warped, blurred, stained, filled, filled, roughened)


def area(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw where damage is: a small shape, or a thin, crooked line; (S, S) float32, 0 to 1."""
    if rng.random() < 0.35:
        return _scar(rng, size)
    radius = size * rng.uniform(0.04, 0.17)
    place = tuple(rng.uniform(-0.42, 0.42, 2) * size)
    x, y = axes(size, angle=rng.uniform(0, math.pi), shift=place)
    outline = OUTLINES[rng.integers(len(OUTLINES) - 2)]  # not those that never end
    u, v = x / np.float32(radius * rng.uniform(0.6, 1.5)), y / np.float32(radius)
    distance = outline(u, v, rng).astype(np.float32) * np.float32(radius)
    distance += np.float32(rng.uniform(0, 0.25) * radius) * value_noise(rng, size, radius / 2 + 2)
    return np.clip(0.5 - distance / np.float32(rng.uniform(1.5, 5)), 0, 1).astype(np.float32)


def apply(picture: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Damage a picture somewhere.

    Returns:
        The damaged picture (S, S, 3) float32, and the mask (S, S) bool of what visibly changed.
    """
    mask = area(rng, picture.shape[0])
    change = CHANGES[rng.integers(len(CHANGES))]
    # Some is faint: to see it, the network must know well how much good pictures vary.
    strength = np.float32(1 if rng.random() < 0.7 else rng.uniform(0.15, 0.7))
    difference = strength * thrice(mask) * (change(picture, mask, rng) - picture)
    seen = cv2.transform(np.abs(difference), np.full((1, 3), 1 / 3)) > VISIBLE_CHANGE
    return picture + difference, seen


def _scar(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw a crooked line of a few pixels' width."""
    count = int(rng.integers(3, 9))
    way = rng.uniform(0, 2 * math.pi) + np.cumsum(rng.normal(0, 0.5, count))
    steps = size * rng.uniform(0.03, 0.09) * np.stack([np.cos(way), np.sin(way)], -1)
    line = rng.uniform(0.1, 0.9, 2) * size + np.cumsum(steps, 0)
    mask = np.zeros((size, size), np.float32)
    cv2.polylines(mask, [np.int32(line * 8)], False, 1.0, int(rng.integers(1, 5)), cv2.LINE_AA, 3)
    return cv2.GaussianBlur(mask, (0, 0), rng.uniform(0.4, 1))


def _middle(mask: np.ndarray) -> tuple[float, float]:
    """Return a mask's centre of mass: column, row."""
    moments = cv2.moments(mask)
    total = max(moments["m00"], 1e-6)
    return moments["m10"] / total, moments["m01"] / total
