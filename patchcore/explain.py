"""Nearest training patches -> where they come from, what they look like.

A patch's place in the image is the field of the grid that its embedding stands for: position
(row, column) of an (h, w) grid is centred at ((row + 0.5) H / h, (column + 0.5) W / w).
"""

from dataclasses import dataclass

import numpy as np

# Patches fewer rows and columns apart than this count as one spot.
GAP = 4

Box = tuple[int, int, int, int]  # left, top, right, bottom


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


def find_most_anomalous(distance: np.ndarray, top: int) -> list[tuple[int, int]]:
    """Find the patches that stand out most, each at some distance from those before it.

    Neighbouring patches share most of what their features see: without a gap the three most
    anomalous ones would nearly always be one spot.

    Args:
        distance: (h, w, k) Euclidean distances to the k nearest coreset patches.
        top: How many patches at most.

    Returns:
        Their (row, column), the most anomalous first; of equal ones the first in reading order.
    """
    left = distance.mean(axis=2, dtype=np.float64)  # (h, w), the patch scores
    found: list[tuple[int, int]] = []
    while len(found) < top and np.isfinite(left.max()):
        row, column = (int(place) for place in np.unravel_index(left.argmax(), left.shape))
        found.append((row, column))
        rows = slice(max(row - GAP + 1, 0), row + GAP)
        left[rows, max(column - GAP + 1, 0) : column + GAP] = -np.inf
    return found


def patch_box(
    row: int, column: int, grid: tuple[int, int], size: tuple[int, int], fields: int = 1
) -> Box:
    """Return which pixels of an image a patch stands for.

    Args:
        row: Of the grid.
        column: Of the grid.
        grid: (h, w).
        size: (H, W) of the image in pixels.
        fields: How many of the grid's fields it is wide: 1 for its own field, more for what
            `cut_patches` cuts, which may reach beyond the border: the box does not.

    Returns:
        (left, top, right, bottom) in pixels, right and bottom exclusive.
    """
    (top, bottom), (left, right) = (
        (max(int(span[0]), 0), min(int(span[-1]) + 1, length))
        for place, count, length in zip((row, column), grid, size, strict=True)
        for span in _spans(np.array([place]), count, length, fields)
    )
    return left, top, right, bottom


def cut_size(grid: tuple[int, int], size: tuple[int, int], fields: int = 2) -> tuple[int, int]:
    """Return (ph, pw): the pixels of what `cut_patches` cuts out of images of ``size``."""
    height, width = (
        _cut_length(count, length, fields) for count, length in zip(grid, size, strict=True)
    )
    return height, width


def cut_patches(
    images: np.ndarray, places: PatchPlaces, grid: tuple[int, int], fields: int = 2
) -> np.ndarray:
    """Cut patches out of images.

    Args:
        images: (B, H, W, 3) uint8.
        places: Of n patches.
        grid: (h, w).
        fields: How many of the grid's fields they are wide: at 2, the least that `rebuild` can
            blend, each one overlaps half of its neighbours; at more they show where they lie.

    Returns:
        (n, ph, pw, 3) uint8; beyond the border the image is mirrored.
    """
    size = images.shape[1:3]
    rows, columns = (
        _spans(place, count, length, fields)
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
    fades = _window(rows.shape[1]), _window(columns.shape[1])
    weighted = patches * np.outer(*fades).astype(np.float32)[..., None]  # (h, w, ph, pw, 3)
    margin = rows.shape[1], columns.shape[1]
    total = np.zeros((size[0] + 2 * margin[0], size[1] + 2 * margin[1], 3), dtype=np.float32)
    tops, lefts = rows[:, 0] + margin[0], columns[:, 0] + margin[1]
    for patches_of_row, top in zip(weighted, tops, strict=True):
        for patch, left in zip(patches_of_row, lefts, strict=True):
            total[top : top + margin[0], left : left + margin[1]] += patch
    inside = slice(margin[0], -margin[0]), slice(margin[1], -margin[1])
    # Windows are products of a row's and a column's, and so are their sums.
    weight = np.outer(
        *(
            _sum_of_windows(starts, fade, length)
            for starts, fade, length in zip((tops, lefts), fades, total.shape, strict=False)
        )
    )
    return np.rint(total[inside] / weight[inside][..., None].astype(np.float32)).astype(np.uint8)


def _spans(positions: np.ndarray, count: int, length: int, fields: int = 2) -> np.ndarray:
    """Return (n, p) pixels of each patch along one axis; some may lie beyond the border."""
    field, width = length / count, _cut_length(count, length, fields)
    # The middle of two fields' worth of pixels, so that patches of any width have the same one.
    middle = np.floor((positions + 0.5) * field).astype(np.int64)
    return middle[:, None] - width // 2 + np.arange(width)


def _cut_length(count: int, length: int, fields: int) -> int:
    return max(round(fields * length / count), fields)


def _sum_of_windows(starts: np.ndarray, fade: np.ndarray, length: int) -> np.ndarray:
    """Return (length,) how much weight all patches together give each pixel of one axis."""
    total = np.zeros(length)
    for start in starts:
        total[start : start + len(fade)] += fade
    return total


def _mirror(pixels: np.ndarray, length: int) -> np.ndarray:
    """Fold pixel numbers beyond the border back inside, the border pixel itself repeated."""
    folded = np.mod(pixels, 2 * length)
    return np.where(folded < length, folded, 2 * length - 1 - folded)


def _window(width: int) -> np.ndarray:
    """Return (width,) weights rising to the middle: neighbours at half its width sum to 1."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(width) + 0.5) / width)
