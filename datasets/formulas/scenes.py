"""Scenes: textures in shapes, lit, damaged and photographed; every place knows what lies there."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

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

POSES = ((0.01, 0.004), (0.04, 0.015), (math.pi, 0.04))
"""How products are laid under the camera: turn (radians) and shift (of the picture's side)."""


class Pose(NamedTuple):
    """How a product lies under the camera in one picture."""

    turn: float  # radians
    shift: np.ndarray  # (2,) x and y, in pixels


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


def make_scene(pool: TexturePool, seed: int, product: int, size: int, *, sight: int = 0) -> Scene:
    """Make a picture of a product; the same arguments give the same one in any order.

    Its pictures differ as those of a category do in a factory: the materials' grain, a little of
    place, light and exposure, and the damage. Their shapes, classes and colours are the same.

    Args:
        pool: The textures.
        seed: Of all products.
        product: Its number.
        size: S, in pixels; a multiple of 4 * STRIDE.
        sight: Which picture of the product.
    """
    plan = np.random.default_rng([seed, 4, product])
    rng = np.random.default_rng([seed, 5, product, sight])
    num_layers = int(plan.choice((1, 2, 3, 4, 5, 6), p=(0.15, 0.2, 0.25, 0.2, 0.1, 0.1)))
    classes = np.zeros(MAX_LAYERS, np.int64)
    classes[:num_layers] = plan.integers(0, pool.num_classes, num_layers)
    pose = _pose(plan, rng, size)
    picture = _cut(pool, classes[0], size, plan, rng)
    owner = np.zeros((size, size), np.uint8)
    places = np.full((2, size // STRIDE, size // STRIDE), np.nan, np.float32)
    light = plan.uniform(0, 2 * math.pi) + plan.uniform(0, 0.4) * rng.normal()
    for layer in range(1, num_layers):
        texture = _cut(pool, classes[layer], size, plan, rng)
        picture = _add_layer(picture, texture, layer, owner, places, light, pose, plan)
    picture = _as_one_of_many(picture, plan, rng)
    damaged = np.zeros((size, size), bool)
    for _ in range(int(rng.choice((0, 1, 2, 3), p=(0.35, 0.3, 0.2, 0.15)))):
        picture, changed = damage.apply(picture, rng)
        damaged |= changed
    shares = np.zeros((MAX_LAYERS, *places.shape[1:]), np.float32)
    for layer in range(num_layers):
        shares[layer] = _share_of_cells(owner == layer)
    image = photograph(picture, plan, rng)
    return Scene(image, classes, shares, places, _share_of_cells(damaged))


def _pose(plan: np.random.Generator, rng: np.random.Generator, size: int) -> Pose:
    """Lay the product under the camera."""
    turn, shift = POSES[plan.choice(len(POSES), p=(0.4, 0.4, 0.2))]
    return Pose(rng.uniform(-turn, turn), rng.uniform(-shift, shift, 2) * size)


def _cut(
    pool: TexturePool,
    index: int,
    size: int,
    plan: np.random.Generator,
    rng: np.random.Generator,
) -> np.ndarray:
    """Cut a product's texture as float32, about 0 to 1: in its turn, scale and tint.

    Some materials look alike in all pictures, as a print does, others are cut anew, as cloth is.
    """
    turn, zoom = plan.uniform(-TURN, TURN), math.exp(plan.uniform(*np.log(ZOOM)))
    gain = plan.uniform(0.8, 1.2) * plan.uniform(0.93, 1.07, 3)
    gain *= rng.normal(1, 0.02) * rng.normal(1, 0.01, 3)
    where = plan if plan.random() < 0.4 else rng
    variant, place = int(where.integers(pool.variants)), where.uniform(-1, 1, 2)
    texture = pool.cut(index, variant, place, size, turn=turn, zoom=zoom)
    return cv2.multiply(texture, (*(gain / 255), 1.0), dtype=cv2.CV_32F)


def _as_one_of_many(
    picture: np.ndarray, plan: np.random.Generator, rng: np.random.Generator
) -> np.ndarray:
    """Bend and shade a picture (S, S, 3) a little: no two products are quite alike.

    It bends by less than a cell, so that labels stay where they are.
    """
    size = picture.shape[0]
    bend, bend_cell = plan.uniform(0, 1.2), size * plan.uniform(0.15, 0.6)
    shade, shade_cell = plan.uniform(0, 0.06), size * plan.uniform(0.08, 0.5)
    if plan.random() < 0.7:
        x, y = (
            pixels + np.float32(bend) * value_noise(rng, size, bend_cell)
            for pixels in np.meshgrid(*2 * (np.arange(size, dtype=np.float32),))
        )
        picture = cv2.remap(picture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    if plan.random() < 0.7:
        picture = picture * thrice(1 + np.float32(shade) * value_noise(rng, size, shade_cell))
    return picture


def _share_of_cells(mask: np.ndarray) -> np.ndarray:
    """Return the share of each cell, (S, S) bool to (S / STRIDE, S / STRIDE) float32."""
    side = mask.shape[0] // STRIDE
    return cv2.resize(mask.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA)


def _add_layer(
    picture: np.ndarray,
    texture: np.ndarray,
    layer: int,
    owner: np.ndarray,
    places: np.ndarray,
    light: float,
    pose: Pose,
    rng: np.random.Generator,
) -> np.ndarray:
    """Lay a shape of some texture over the picture; note in owner and places where it is."""
    size = picture.shape[0]
    u, v, radius = _frame(rng, size, pose)
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


def _frame(rng: np.random.Generator, size: int, pose: Pose) -> tuple[np.ndarray, np.ndarray, float]:
    """Lay a shape's own coordinates over the picture, once or again and again.

    Returns:
        u and v (S, S) float32, and how many pixels a unit of them is.
    """
    radius = size * rng.uniform(0.12, 0.5)
    upright = rng.random() < 0.5
    angle = math.pi / 2 * rng.integers(4) + rng.normal(0, 0.05) if upright else rng.uniform(0, 6.3)
    shift = _turned(rng.uniform(-0.4, 0.4, 2) * size, pose.turn) + pose.shift
    x, y = axes(size, angle=angle + pose.turn, shift=tuple(shift))
    if rng.random() < 0.2:
        radius = size * rng.uniform(0.05, 0.12)
        pitch = np.float32(radius * rng.uniform(2.1, 3.5))
        x, y = (np.mod(a + pitch / 2, pitch) - pitch / 2 for a in (x, y))
    aspect = math.exp(rng.uniform(-0.5, 0.5))
    return x / np.float32(radius * aspect), y / np.float32(radius / aspect), radius


def _turned(point: np.ndarray, angle: float) -> np.ndarray:
    """Turn a point (x, y) about the middle of the picture."""
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([cos * point[0] - sin * point[1], sin * point[0] + cos * point[1]])


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


def photograph(
    picture: np.ndarray, plan: np.random.Generator, rng: np.random.Generator
) -> np.ndarray:
    """Expose a scene: light that falls off, gain, gamma, focus, noise, sometimes JPEG.

    Args:
        picture: (S, S, 3) float32, about 0 to 1.
        plan: Draws the camera's settings.
        rng: Draws what changes from one picture to the next.

    Returns:
        (S, S, 3) uint8.
    """
    size = picture.shape[0]
    x, y = axes(size)
    unrest = plan.uniform(0, 1) ** 2  # how much changes
    falloff = np.float32((plan.normal(0, 0.12, 2) + unrest * rng.normal(0, 0.06, 2)) / size)
    light = 1 + falloff[0] * x + falloff[1] * y
    if plan.random() < 0.3:
        light += np.float32(unrest * rng.uniform(0, 0.12)) * value_noise(rng, size, size / 2)
    gain = plan.uniform(0.8, 1.15) * plan.uniform(0.95, 1.05, 3)
    gain *= math.exp(unrest * rng.normal(0, 0.08)) * np.exp(unrest * rng.normal(0, 0.02, 3))
    picture = cv2.multiply(picture * thrice(light), (*gain, 1.0))
    if plan.random() < 0.5:
        picture = cv2.pow(np.clip(picture, 0, 1), math.exp(plan.normal(0, 0.2)))
    if plan.random() < 0.5:
        blur = plan.uniform(0.3, 1.2) * math.exp(unrest * rng.normal(0, 0.3))
        picture = cv2.GaussianBlur(picture, (0, 0), blur)
    noise = np.float32(plan.uniform(0, 0.03) * plan.random())
    picture = picture + noise * rng.standard_normal(picture.shape, dtype=np.float32)
    pixels = cv2.convertScaleAbs(np.maximum(picture, 0), alpha=255)
    if plan.random() < 0.15:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(plan.integers(40, 95))]
        pixels = cv2.imdecode(cv2.imencode(".jpg", pixels, quality)[1], cv2.IMREAD_COLOR)
    return pixels
