"""Classes of textures, and a pool of their pictures to cut from."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from datasets.formulas.dial import SIBLINGS, Dial
from datasets.formulas.families import FAMILIES
from datasets.formulas.noise import value_noise

FORMULAS_VERSION = 1
"""Raise it with every change of the textures: kept pictures of another version are drawn anew."""


class Texture:
    """One class: a formula and a material, the same in all its pictures.

    Args:
        seed: Of all classes.
        index: Of this class, from 0.

    Attributes:
        family: The name of its formula's family.
    """

    def __init__(self, seed: int, index: int):
        dial = Dial(seed, index)
        family = FAMILIES[index // SIBLINGS % len(FAMILIES)]
        self.family = family.__name__
        self._draw = family(dial)
        self._paint = material(dial)
        self._key = [seed, 3, index]

    def picture(self, variant: int, size: int) -> np.ndarray:
        """Return (size, size, 3) uint8 RGB; another variant shows another place of the material."""
        rng = np.random.default_rng([*self._key, variant])
        colours = self._paint(rng, self._draw(rng, size).astype(np.float32))
        return (np.clip(colours, 0, 1) * 255 + 0.5).astype(np.uint8)


def material(dial: Dial) -> Callable[[np.random.Generator, np.ndarray], np.ndarray]:
    """Return what turns tones (S, S) into colours (S, S, 3) float32: a palette and a relief.

    Half of the palettes are of one hue, as of one material; the others mix.
    """
    count = dial.whole(2, 4)
    base = np.array([dial.between(0.08, 0.95) for _ in range(3)])
    # Most materials are far from pure colours.
    base = base.mean() + dial.between(0, 1) ** 1.5 * (base - base.mean())
    other = np.array([dial.between(0.02, 1) for _ in range(3)])
    step, mixed = dial.between(0.15, 0.7) * (1 if base.mean() < 0.5 else -1), dial.chance(0.4)
    last = other if mixed else np.clip(base * (1 + 0.2 * (other - 0.5)) + step, 0, 1)
    middles = [np.array([dial.between(-1, 1) for _ in range(3)]) for _ in range(count - 2)]
    knots = [base]
    for place, off in enumerate(middles, start=1):
        share = place / (count - 1)
        knots.append(np.clip(base + share * (last - base) + (0.3 if mixed else 0.08) * off, 0, 1))
    knots.append(last)
    palette = np.float32(
        [np.interp(np.linspace(0, count - 1, 256), range(count), c) for c in np.transpose(knots)]
    ).T
    relief = dial.scale(0.4, 5) if dial.chance(0.55) else 0.0
    grain, gloss = dial.between(0, 0.025), (dial.between(0.1, 0.5) if dial.chance(0.3) else 0)

    def paint(rng: np.random.Generator, tone: np.ndarray) -> np.ndarray:
        colours = palette[np.clip(tone * 255, 0, 255).astype(np.uint8)]
        light = rng.uniform(0, 2 * math.pi) if rng.random() < 0.3 else rng.normal(-2.2, 0.4)
        if relief:
            slope = slope_toward(cv2.GaussianBlur(tone, (0, 0), 1.0), light) * np.float32(relief)
            colours = colours * np.clip(1 + slope, 0.25, 1.9)[..., None]
            if gloss:
                colours = colours + (gloss * np.clip(slope - 0.35, 0, 1))[..., None]
        if grain:
            colours = colours + (grain * value_noise(rng, tone.shape[0], 1.5))[..., None]
        return colours

    return paint


def slope_toward(height: np.ndarray, angle: float) -> np.ndarray:
    """Return how steeply a height (S, S) rises per pixel away from ``angle``."""
    across = cv2.Sobel(height, cv2.CV_32F, 1, 0, scale=1 / 8)
    down = cv2.Sobel(height, cv2.CV_32F, 0, 1, scale=1 / 8)
    return np.float32(-math.cos(angle)) * across - np.float32(math.sin(angle)) * down


class TexturePool:
    """Pictures of all classes, kept so that scenes need only cut from them.

    Attributes:
        pictures: (K, V, S, S, 3) uint8 RGB: V variants of K classes.

    Args:
        seed: Of the classes.
        num_classes: K.
        variants: V.
        size: S, in pixels.
        num_workers: Threads that draw.
        kept_in: A folder for a file of them (566 MB for 720 classes in 4 variants), which saves
            drawing them again, and which all processes share; None to keep them in memory.
    """

    def __init__(
        self,
        seed: int,
        num_classes: int,
        variants: int,
        *,
        size: int = 256,
        num_workers: int = 1,
        kept_in: Path | None = None,
    ):
        shape = (num_classes, variants, size, size, 3)
        if kept_in is None:
            self.pictures = np.empty(shape, np.uint8)
            _draw_all(self.pictures, seed, num_workers)
            return
        name = f"textures_v{FORMULAS_VERSION}_seed{seed}_{num_classes}x{variants}x{size}.npy"
        file = kept_in / name
        if not file.is_file():
            unfinished = file.with_suffix(".unfinished")
            pictures = np.lib.format.open_memmap(unfinished, "w+", np.uint8, shape)
            _draw_all(pictures, seed, num_workers)
            pictures.flush()
            unfinished.replace(file)
        self.pictures = np.load(file, mmap_mode="r")

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.pictures)

    @property
    def variants(self) -> int:
        """V."""
        return self.pictures.shape[1]

    def cut(
        self,
        index: int,
        variant: int,
        place: np.ndarray,
        size: int,
        *,
        turn: float = 0.0,
        zoom: float = 1.0,
    ) -> np.ndarray:
        """Cut a piece of a class, turned and scaled.

        Args:
            index: The class.
            variant: Which of its pictures.
            place: (x, y), each from -1 to 1: where, of what stays inside the picture.
            size: Side of the piece in pixels.
            turn: In radians.
            zoom: Factor of the scale.

        Returns:
            (size, size, 3) uint8 RGB.
        """
        source = self.pictures[index, variant]
        cos, sin = math.cos(turn) / zoom, math.sin(turn) / zoom
        turned = np.array([[cos, -sin], [sin, cos]])
        # The piece stays inside the picture where it can; beyond its border it is reflected.
        room = max(source.shape[0] - 1.3 * size / zoom, 0) / 2
        middle = source.shape[0] / 2 + room * place
        matrix = np.column_stack([turned, middle - turned @ [size / 2, size / 2]])
        return cv2.warpAffine(
            source,
            matrix,
            (size, size),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REFLECT_101,
        )


def _draw_all(pictures: np.ndarray, seed: int, num_workers: int) -> None:
    """Draw all classes in all variants into (K, V, S, S, 3) uint8."""

    def draw(index: int) -> None:
        texture = Texture(seed, index)
        for variant in range(pictures.shape[1]):
            pictures[index, variant] = texture.picture(variant, pictures.shape[2])

    with ThreadPoolExecutor(max(num_workers, 1)) as pool:
        list(pool.map(draw, range(len(pictures))))
