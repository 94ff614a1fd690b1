"""Outlines by formula: the signed distance of each pixel from a shape's edge, negative inside.

All take the shape's own coordinates u and v (S, S), in which it reaches from about -1 to 1, and
numbers that vary it; they return distances in the same unit.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

Outline = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]
"""(u, v, rng) -> signed distance, (S, S) float32."""


def disc(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A circle; with the frame's own aspect, an ellipse."""
    return np.hypot(u, v) - 1


def ring(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A circle with a hole."""
    width = rng.uniform(0.1, 0.35)
    return np.abs(np.hypot(u, v) - (1 - width)) - width


def box(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A rectangle, its corners sharp or round."""
    corner = rng.choice((0.02, 0.15, 0.4))
    x, y = np.abs(u) - (1 - corner), np.abs(v) - (1 - corner)
    outside = np.hypot(np.maximum(x, 0), np.maximum(y, 0))
    return outside + np.minimum(np.maximum(x, y), 0) - corner


def frame(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A rectangle with a rectangular hole."""
    width = rng.uniform(0.08, 0.3)
    return np.abs(np.maximum(np.abs(u), np.abs(v)) - (1 - width)) - width


def polygon(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A regular polygon of three to eight sides."""
    count = int(rng.integers(3, 9))
    sector = 2 * math.pi / count
    angle = np.mod(np.arctan2(v, u) + sector / 2, sector) - sector / 2
    return np.hypot(u, v) * np.cos(angle) - math.cos(sector / 2)


def star(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A star, gear or flower: a circle whose radius rises and falls."""
    count, depth = int(rng.integers(3, 17)), rng.uniform(0.08, 0.35)
    wave = np.cos(count * np.arctan2(v, u))
    if rng.random() < 0.5:  # teeth instead of petals
        wave = np.clip(wave * 3, -1, 1)
    return (np.hypot(u, v) - (1 - depth + depth * wave)) * 0.8


def capsule(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A bar with round ends."""
    width = rng.uniform(0.12, 0.45)
    return np.hypot(np.maximum(np.abs(u) - (1 - width), 0), v) - width


def cross(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A plus, a T or an L."""
    width, start = rng.uniform(0.12, 0.4), rng.choice((-1.0, 0.0))
    upright = np.maximum(np.abs(u) - width, np.maximum(v - 1, start - v))
    across = np.maximum(np.abs(v) - width, np.maximum(u - 1, -1 - u))
    return np.minimum(upright, across)


def comb(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A bar with several teeth or legs."""
    count, width = int(rng.integers(2, 7)), rng.uniform(0.2, 0.7)
    cell = 2 / count
    tooth = np.abs(np.mod(u + 1, cell) - cell / 2) - width * cell / 2
    teeth = np.maximum(np.maximum(tooth, np.abs(v) - 1), np.abs(u) - 1)
    bar = np.maximum(np.abs(u) - 1, np.maximum(v + 0.2, -1 - v))
    return np.minimum(teeth, bar)


def blob(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A smooth, irregular outline."""
    angle, radius = np.arctan2(v, u), np.full_like(u, 0.75)
    for order in range(2, 7):
        strength = rng.normal(0, 0.22 / order)
        radius += np.float32(strength) * np.cos(order * angle + np.float32(rng.uniform(0, 6.3)))
    return (np.hypot(u, v) - radius) * 0.8


def crescent(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A circle with another taken away."""
    off = rng.uniform(0.3, 1.1)
    return np.maximum(np.hypot(u, v) - 1, 0.85 - np.hypot(u - np.float32(off), v))


def band(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A straight or wavy strip across the picture."""
    wave, length = rng.uniform(0, 0.3), rng.uniform(0.8, 3)
    middle = np.float32(wave) * np.sin(u * np.float32(math.pi / length))
    return np.abs(v - middle) - np.float32(rng.uniform(0.2, 0.8))


def side(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Half of the picture, its border straight or bent."""
    return v + np.float32(rng.uniform(-0.15, 0.15)) * u * u


OUTLINES: tuple[Outline, ...] = (
    disc,
    ring,
    box,
    frame,
    polygon,
    star,
    capsule,
    cross,
    comb,
    blob,
    crescent,
    band,
    side,
)
