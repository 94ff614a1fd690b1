"""Draw an image and the exact mask of its defect from the name of a category and a seed."""

from zlib import crc32

import cv2
import numpy as np

from datasets.synthetic.categories import CATEGORIES
from datasets.synthetic.fields import mix, ramp
from datasets.synthetic.surface import add_sensor_noise, expose, random_studio

FINEST_DETAIL_SIZE = 192
"""Smaller images are drawn at twice their size and reduced; threads would break up otherwise."""

VISIBLE_CHANGE = 4 / 255
"""Smallest visible change of a pixel, in display values (0 to 1)."""

MASK_SHARE = (0.0008, 0.24)
CENTRE = 224 / 256
ATTEMPTS = 20


def render(
    category: str, defect_type: str | None, *, seed: int, size: int = 256
) -> tuple[np.ndarray, np.ndarray]:
    """Draw one image. Equal arguments give equal bytes in every process.

    With one seed, the good image and the defective ones show the same part with the same light
    and noise: outside its mask a defective image equals the good one exactly.

    Args:
        category: A name from CATEGORIES.
        defect_type: One of the category's `defect_types`, or None for a good image.
        seed: An integer of at least 0.
        size: Side of the image in pixels, at least 64.

    Returns:
        The image, (size, size, 3) uint8 RGB, and the mask, (size, size) bool: True where the
        defect visibly changed the image. At least one pixel is True for a defect, none for a
        good image.
    """
    recipe = CATEGORIES[category]
    drawn_size = size if size >= FINEST_DETAIL_SIZE else 2 * size
    surface = recipe.make_surface(_stream(category, "surface", seed), drawn_size)
    studio = random_studio(_stream(category, "studio", seed))
    image = _resized(expose(surface, studio), size)
    mask = np.zeros((size, size), dtype=bool)
    if defect_type is not None:
        for attempt in range(ATTEMPTS):
            rng = _stream(category, f"{defect_type}/{attempt}", seed)
            damaged_surface = recipe.defects[defect_type](surface, rng)
            damaged = _resized(expose(damaged_surface, studio), size)
            change = _visible_change(image, damaged)
            mask = change > VISIBLE_CHANGE
            if _is_plausible(mask):
                break
        else:
            raise RuntimeError(
                f"expected a visible {defect_type!r} on {category!r} within {ATTEMPTS} attempts, "
                f"found none for seed {seed}"
            )
        # Invisible changes are removed, so that the mask is exact. The others fade in from the edge
        # of the mask: the soft edges of shadows would end in a step otherwise.
        seen = ramp(change, VISIBLE_CHANGE, 2 * VISIBLE_CHANGE)
        image = mix(image, damaged, seen[..., None])
    return add_sensor_noise(image, _stream(category, "sensor", seed)), mask


def _visible_change(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Return the visible difference of two noise-free images (S, S, 3): (S, S) float32.

    The difference of the display values is averaged over a few pixels. This closes pinholes where
    the old and the new colour are equal by chance.
    """
    change = np.abs(after - before).max(axis=2)
    sigma_pixels = max(0.8 * before.shape[0] / 256, 0.5)
    return cv2.GaussianBlur(change, (0, 0), sigma_pixels)


def _is_plausible(mask: np.ndarray) -> bool:
    """Check that a mask has a usable area, nearly all of it within the default centre crop."""
    share = mask.mean()
    if not MASK_SHARE[0] <= share <= MASK_SHARE[1]:
        return False
    border = round(mask.shape[0] * (1 - CENTRE) / 2)
    return mask[border:-border, border:-border].sum() >= 0.9 * mask.sum()


def _stream(category: str, purpose: str, seed: int) -> np.random.Generator:
    """Return an independent random generator for each purpose."""
    # Python's hash() of a string differs between processes; a checksum does not.
    return np.random.default_rng([crc32(category.encode()), crc32(purpose.encode()), seed])


def _resized(image: np.ndarray, size: int) -> np.ndarray:
    if image.shape[0] == size:
        return image
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
