"""Nearest training patches -> where they come from, what they look like.

A patch's place in the image is the field of the grid that its embedding stands for: position
(row, column) of an (h, w) grid is centred at ((row + 0.5) H / h, (column + 0.5) W / w).
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class PatchPlaces:
    """Where patches lie.

    Attributes:
        images: (n,) which image each patch is from.
        rows: (n,) row of the grid.
        columns: (n,) column of the grid.
    """

    images: np.ndarray
    rows: np.ndarray
    columns: np.ndarray


def locate(indices: np.ndarray, grid: tuple[int, int]) -> PatchPlaces:
    """Find where training patches lie.

    Args:
        indices: (n,) int64 into the N = images * h * w training patches.
        grid: (h, w).
    """
    images, position = np.divmod(indices, grid[0] * grid[1])
    rows, columns = np.divmod(position, grid[1])
    return PatchPlaces(images, rows, columns)


def cut_patches(images: np.ndarray, places: PatchPlaces, grid: tuple[int, int]) -> np.ndarray:
    """Cut patches out of images, twice as wide as the grid's fields, so that they overlap.

    Args:
        images: (B, H, W, 3) uint8.
        places: Of n patches.
        grid: (h, w).

    Returns:
        (n, ph, pw, 3) uint8; beyond the border the image is mirrored.
    """
    size = images.shape[1:3]
    rows, columns = (
        _spans(place, count, length)
        for place, count, length in zip((places.rows, places.columns), grid, size, strict=True)
    )
    rows, columns = _mirror(rows, size[0]), _mirror(columns, size[1])
    return images[places.images[:, None, None], rows[:, :, None], columns[:, None, :]]


def rebuild(patches: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Lay patches side by side and blend them where they overlap.

    Args:
        patches: (h, w, ph, pw, 3) uint8, as `cut_patches` cuts them, one for each position.
        size: (H, W) in pixels.

    Returns:
        (H, W, 3) uint8.
    """
    grid = patches.shape[:2]
    rows = _spans(np.arange(grid[0]), grid[0], size[0])  # (h, ph)
    columns = _spans(np.arange(grid[1]), grid[1], size[1])  # (w, pw)
    # Full weight in a patch's middle, next to none at its edge: no tile's border shows.
    window = np.outer(_window(rows.shape[1]), _window(columns.shape[1])).astype(np.float32)
    margin = rows.shape[1], columns.shape[1]
    total = np.zeros((size[0] + 2 * margin[0], size[1] + 2 * margin[1], 3), dtype=np.float32)
    weight = np.zeros((*total.shape[:2], 1), dtype=np.float32)
    for y in range(rows.shape[1]):  # pixel (y, x) of all patches at once: never two at one place
        for x in range(columns.shape[1]):
            place = np.ix_(rows[:, y] + margin[0], columns[:, x] + margin[1])
            total[place] += window[y, x] * patches[:, :, y, x]
            weight[place] += window[y, x]
    inside = slice(margin[0], -margin[0]), slice(margin[1], -margin[1])
    return np.rint(total[inside] / weight[inside]).astype(np.uint8)


def _spans(positions: np.ndarray, count: int, length: int) -> np.ndarray:
    """Return (n, p) pixels of each patch along one axis; some may lie beyond the border."""
    field = length / count
    width = max(2 * round(field), 2)
    start = np.floor((positions + 0.5) * field).astype(np.int64) - width // 2
    return start[:, None] + np.arange(width)


def _mirror(pixels: np.ndarray, length: int) -> np.ndarray:
    """Fold pixel numbers beyond the border back inside, the border pixel itself repeated."""
    folded = np.mod(pixels, 2 * length)
    return np.where(folded < length, folded, 2 * length - 1 - folded)


def _window(width: int) -> np.ndarray:
    """Return (width,) weights rising to the middle: neighbours at half its width sum to 1."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(width) + 0.5) / width)
