"""From a category's name and a seed to a picture and the exact mask of its defect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar
from zlib import crc32

import cv2
import numpy as np

from datasets.synthetic.categories import CATEGORIES
from datasets.synthetic.category import SyntheticCategory
from datasets.synthetic.fields import mix, ramp
from datasets.synthetic.surface import add_sensor_noise, photograph, random_studio

Found = TypeVar("Found")

SMALLEST_SIZE = 64
FINEST_DETAIL_SIZE = 192
"""Smaller pictures are drawn at twice their size and shrunk, or threads would break up."""

VISIBLE_CHANGE = 4 / 255
"""A change of the picture, in display values, that a person sees beside the original."""

MASK_SHARE = (0.0008, 0.24)
CENTRE = 224 / 256
ATTEMPTS = 20


def render(
    category: str, defect_type: str | None, *, seed: int, size: int = 256
) -> tuple[np.ndarray, np.ndarray]:
    """Draw one picture; the same arguments give the same bytes in any process, in any order.

    With one seed, the good picture and the defective ones show the same part in the same light
    with the same noise: outside its mask a defective picture equals the good one exactly.

    Args:
        category: One of CATEGORIES.
        defect_type: One of the category's `defect_types`, or None for a good picture.
        seed: At least 0, of any length.
        size: Side of the picture in pixels, at least 64.

    Returns:
        The picture, (size, size, 3) uint8 RGB, and the mask, (size, size) bool: True where the
        defect visibly changed the picture; never empty for a defect, all False for a good one.

    Raises:
        ValueError: An unknown name, or a number out of range; the message lists what is known.
    """
    recipe = find_category(category)
    if defect_type is not None:
        _find(recipe.defects, defect_type, what=f"a defect type of {category!r}")
    check_numbers(seed, size)

    drawn_size = size if size >= FINEST_DETAIL_SIZE else 2 * size
    surface = recipe.make_surface(_stream(category, "surface", seed), drawn_size)
    studio = random_studio(_stream(category, "studio", seed))
    picture = _resized(photograph(surface, studio), size)
    mask = np.zeros((size, size), dtype=bool)
    if defect_type is not None:
        for attempt in range(ATTEMPTS):
            rng = _stream(category, f"{defect_type}/{attempt}", seed)
            damaged_surface = recipe.defects[defect_type](surface, rng)
            damaged = _resized(photograph(damaged_surface, studio), size)
            change = visible_change(picture, damaged)
            mask = change > VISIBLE_CHANGE
            if _is_plausible(mask):
                break
        else:
            raise RuntimeError(
                f"expected a visible {defect_type!r} on {category!r} within {ATTEMPTS} attempts, "
                f"found none for seed {seed}"
            )
        # What changed too little to be seen stays as it was: the mask is exact. Changes fade in
        # from its edge, or the soft rims of shadows would end there in a step.
        seen = ramp(change, VISIBLE_CHANGE, 2 * VISIBLE_CHANGE)
        picture = mix(picture, damaged, seen[..., None])
    return add_sensor_noise(picture, _stream(category, "sensor", seed)), mask


def find_category(name: str) -> SyntheticCategory:
    """Return the category of this name; ValueError, with the known names, for an unknown one."""
    return _find(CATEGORIES, name, what="a synthetic category")


def visible_change(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Return how much two noise-free pictures (S, S, 3) differ to the eye: (S, S) float32.

    The eye does not resolve single pixels, so the difference of the display values is averaged
    over a few: this closes pinholes where old and new colour happen to agree.
    """
    change = np.abs(after - before).max(axis=2)
    sigma_pixels = max(0.8 * before.shape[0] / 256, 0.5)
    return cv2.GaussianBlur(change, (0, 0), sigma_pixels)


def _is_plausible(mask: np.ndarray) -> bool:
    """Whether a mask has a usable area, nearly all of it in the part that the program keeps."""
    share = mask.mean()
    if not MASK_SHARE[0] <= share <= MASK_SHARE[1]:
        return False
    border = round(mask.shape[0] * (1 - CENTRE) / 2)
    return mask[border:-border, border:-border].sum() >= 0.9 * mask.sum()


def _find(known: Mapping[str, Found], name: str, *, what: str) -> Found:
    if name not in known:
        raise ValueError(f"expected {what}, one of {', '.join(known)}; found {name!r}")
    return known[name]


def check_numbers(seed: int, size: int) -> None:
    """Raise ValueError for a seed or a size that render() does not take."""
    if seed < 0:
        raise ValueError(f"expected a seed of at least 0, found {seed}")
    if size < SMALLEST_SIZE:
        raise ValueError(f"expected a size of at least {SMALLEST_SIZE} pixels, found {size}")


def _stream(category: str, purpose: str, seed: int) -> np.random.Generator:
    """Return random numbers of their own for each purpose, so that none disturbs another."""
    # Python's hash() of a text differs from process to process; a checksum does not.
    return np.random.default_rng([crc32(category.encode()), crc32(purpose.encode()), seed])


def _resized(picture: np.ndarray, size: int) -> np.ndarray:
    if picture.shape[0] == size:
        return picture
    return cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA)
