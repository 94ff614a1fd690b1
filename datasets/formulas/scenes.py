"""Scenes: textures in shapes, lit, damaged and photographed; every place knows what lies there."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from datasets.formulas import damage
from datasets.formulas.noise import axes, thrice, value_noise
from datasets.formulas.shapes import OUTLINES
from datasets.formulas.textures import TexturePool, slope_toward

MAX_LAYERS = 6
STRIDE = 4
"""Labels are given for cells of so many pixels a side: the finer map's positions."""

TURN, ZOOM = 0.3, (0.8, 1.25)
"""How much a class may be turned (radians) and scaled and still is the same class."""


@dataclass(frozen=True)
class Scene:
    """One picture and what is seen in each of its cells; h = w = S / STRIDE.

    Attributes:
        image: (S, S, 3) uint8 RGB.
        classes: (MAX_LAYERS,) int64, each layer's class of texture; 0 beyond the last layer.
        shares: (MAX_LAYERS, h, w) float32, the share of a cell that shows each layer.
        places: (2, h, w) float32, where a cell's middle lies in its shape's own frame, -1 to 1
            within the shape; NaN on the background.
        damaged: (h, w) float32, the share of a cell that is damaged.
    """

    image: np.ndarray
    classes: np.ndarray
    shares: np.ndarray
    places: np.ndarray
    damaged: np.ndarray


def make_scene(pool: TexturePool, seed: int, index: int, size: int) -> Scene:
    """Make the scene of this number; the same arguments give the same one in any order.

    Args:
        pool: The textures.
        seed: Of all scenes.
        index: Of this one.
        size: S, in pixels; a multiple of 4 * STRIDE.
    """
    rng = np.random.default_rng([seed, 4, index])
    num_layers = int(rng.choice((1, 2, 3, 4, 5, 6), p=(0.15, 0.2, 0.25, 0.2, 0.1, 0.1)))
    classes = np.zeros(MAX_LAYERS, np.int64)
    classes[:num_layers] = rng.integers(0, pool.num_classes, num_layers)
    picture = _tinted(pool.cut(rng, classes[0], size, turn=TURN, zoom=ZOOM), rng)
    owner = np.zeros((size, size), np.uint8)
    places = np.full((2, size // STRIDE, size // STRIDE), np.nan, np.float32)
    light = rng.uniform(0, 2 * math.pi)
    for layer in range(1, num_layers):
        texture = _tinted(pool.cut(rng, classes[layer], size, turn=TURN, zoom=ZOOM), rng)
        picture = _add_layer(picture, texture, layer, owner, places, light, rng)
    damaged = np.zeros((size, size), bool)
    for _ in range(int(rng.choice((0, 1, 2, 3), p=(0.35, 0.3, 0.2, 0.15)))):
        picture, changed = damage.apply(picture, rng)
        damaged |= changed
    shares = np.zeros((MAX_LAYERS, *places.shape[1:]), np.float32)
    for layer in range(num_layers):
        shares[layer] = _share_of_cells(owner == layer)
    return Scene(photograph(picture, rng), classes, shares, places, _share_of_cells(damaged))


def _share_of_cells(mask: np.ndarray) -> np.ndarray:
    """Return the share of each cell, (S, S) bool to (S / STRIDE, S / STRIDE) float32."""
    side = mask.shape[0] // STRIDE
    return cv2.resize(mask.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA)


def _tinted(texture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a texture as float32, 0 to 1, a little brighter, darker or tinted."""
    gain = rng.uniform(0.8, 1.2) * rng.uniform(0.93, 1.07, 3)
    return cv2.multiply(texture, (*(gain / 255), 1.0), dtype=cv2.CV_32F)


def _add_layer(
    picture: np.ndarray,
    texture: np.ndarray,
    layer: int,
    owner: np.ndarray,
    places: np.ndarray,
    light: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Lay a shape of some texture over the picture; note in owner and places where it is."""
    size = picture.shape[0]
    u, v, radius = _frame(rng, size)
    outline = OUTLINES[rng.integers(len(OUTLINES))]
    distance = outline(u, v, rng).astype(np.float32) * np.float32(radius)
    softness = rng.uniform(1, 2) if rng.random() < 0.8 else rng.uniform(3, 10)
    share = np.clip(0.5 - distance / np.float32(softness), 0, 1)
    if rng.random() < 0.5:
        texture = _in_relief(texture, distance, radius, light, rng)
    if rng.random() < 0.25:
        line = np.clip(1.5 - np.abs(distance + 1) / np.float32(rng.uniform(0.7, 2.5)), 0, 1)
        ink = np.full_like(texture, np.float32(rng.random(3)))
        texture = texture + thrice(line) * (ink - texture)
    if rng.random() < 0.4:
        picture = picture * thrice(1 - _shadow(share, light, rng))
    shown = share > 0.5
    owner[shown] = layer
    middles = np.s_[STRIDE // 2 :: STRIDE, STRIDE // 2 :: STRIDE]
    places[:, shown[middles]] = u[middles][shown[middles]], v[middles][shown[middles]]
    return picture + thrice(share) * (texture - picture)


def _frame(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Lay a shape's own coordinates over the picture, once or again and again.

    Returns:
        u and v (S, S) float32, and how many pixels a unit of them is.
    """
    radius = size * rng.uniform(0.12, 0.5)
    upright = rng.random() < 0.5
    angle = math.pi / 2 * rng.integers(4) + rng.normal(0, 0.05) if upright else rng.uniform(0, 6.3)
    x, y = axes(size, angle=angle, shift=tuple(rng.uniform(-0.4, 0.4, 2) * size))
    if rng.random() < 0.2:
        radius = size * rng.uniform(0.05, 0.12)
        pitch = np.float32(radius * rng.uniform(2.1, 3.5))
        x, y = (np.mod(a + pitch / 2, pitch) - pitch / 2 for a in (x, y))
    aspect = math.exp(rng.uniform(-0.5, 0.5))
    return x / np.float32(radius * aspect), y / np.float32(radius / aspect), radius


def _in_relief(
    texture: np.ndarray,
    distance: np.ndarray,
    radius: float,
    light: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Light a shape as a dome, or as a plate with a bevelled or hollowed edge."""
    width = np.float32(radius if rng.random() < 0.4 else rng.uniform(2, 0.4 * radius + 3))
    rise = np.clip(-distance / width, 0, 1)
    height = np.sqrt(np.clip(1 - (1 - rise) ** 2, 0, 1)) * width * np.float32(rng.choice((-1, 1)))
    slope = slope_toward(cv2.GaussianBlur(height, (0, 0), 1.2), light)
    lit = texture * thrice(np.clip(1 + np.float32(rng.uniform(0.2, 0.8)) * slope, 0.2, 2))
    if rng.random() < 0.5:
        shine = np.clip(slope - np.float32(rng.uniform(0.1, 0.5)), 0, 1)
        lit = lit + thrice(np.float32(rng.uniform(0.3, 2)) * shine)
    return lit


def _shadow(share: np.ndarray, light: float, rng: np.random.Generator) -> np.ndarray:
    """Return the share of light (S, S) that a shape takes from what lies under it."""
    far, size = rng.uniform(1, 8), share.shape[0]
    move = np.array([[1, 0, -far * math.cos(light)], [0, 1, -far * math.sin(light)]])
    fallen = cv2.GaussianBlur(cv2.warpAffine(share, move, (size, size)), (0, 0), far / 2 + 0.5)
    return np.float32(rng.uniform(0.2, 0.7)) * fallen


def photograph(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Expose a scene: light that falls off, gain, gamma, focus, noise, sometimes JPEG.

    Args:
        picture: (S, S, 3) float32, about 0 to 1.
        rng: Draws the camera's settings.

    Returns:
        (S, S, 3) uint8.
    """
    size = picture.shape[0]
    x, y = axes(size)
    falloff = np.float32(rng.normal(0, 0.12, 2) / size)
    light = 1 + falloff[0] * x + falloff[1] * y
    if rng.random() < 0.3:
        light += np.float32(rng.uniform(0, 0.12)) * value_noise(rng, size, size / 2)
    gain = rng.uniform(0.8, 1.15) * rng.uniform(0.95, 1.05, 3)
    picture = cv2.multiply(picture * thrice(light), (*gain, 1.0))
    if rng.random() < 0.5:
        picture = cv2.pow(np.clip(picture, 0, 1), math.exp(rng.normal(0, 0.2)))
    if rng.random() < 0.5:
        picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.3, 1.2))
    noise = np.float32(rng.uniform(0, 0.03) * rng.random())
    picture = picture + noise * rng.standard_normal(picture.shape, dtype=np.float32)
    pixels = cv2.convertScaleAbs(np.maximum(picture, 0), alpha=255)
    if rng.random() < 0.15:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(40, 95))]
        pixels = cv2.imdecode(cv2.imencode(".jpg", pixels, quality)[1], cv2.IMREAD_COLOR)
    return pixels
