"""Patches as parts of images: the most anomalous ones, their boxes, their crops.

The patch at (row, column) of an (h, w) grid is centred at ((row + 0.5) H / h, (column + 0.5) W / w)
of an image of (H, W) pixels. The cell of the grid around this centre is the patch's field.
"""

import numpy as np

# Patches that are fewer rows and columns apart than this count as one position.
GAP = 4

PixelBox = tuple[int, int, int, int]  # left, top, right, bottom; right and bottom exclusive


def find_most_anomalous(
    distance: np.ndarray, max_patches: int, ignored: np.ndarray | None = None
) -> list[tuple[int, int]]:
    """Find the most anomalous patches that are at least `GAP` apart.

    Neighbouring patches share most of their receptive field. Without a gap, the most anomalous
    patches would nearly always be neighbours.

    Args:
        distance: (h, w, k) Euclidean distances to the k nearest coreset patches.
        max_patches: The largest number of patches to return.
        ignored: (h, w) bool, patches to leave out; None for none.

    Returns:
        (row, column) of each patch, by descending score; equal scores in reading order.
    """
    scores = distance.mean(axis=2, dtype=np.float64)  # (h, w), the patch scores
    if ignored is not None:
        scores[ignored] = -np.inf
    found: list[tuple[int, int]] = []
    while len(found) < max_patches and np.isfinite(scores.max()):
        row, column = (
            int(position) for position in np.unravel_index(scores.argmax(), scores.shape)
        )
        found.append((row, column))
        rows = slice(max(row - GAP + 1, 0), row + GAP)
        scores[rows, max(column - GAP + 1, 0) : column + GAP] = -np.inf
    return found


def patch_box(
    row: int, column: int, grid: tuple[int, int], size: tuple[int, int], fields: int = 1
) -> PixelBox:
    """Return the box of a patch in an image.

    Args:
        row: Row of the grid.
        column: Column of the grid.
        grid: (h, w).
        size: (H, W) of the image in pixels.
        fields: Width of the box in fields of the grid: 1 for the patch's own field, more for the
            crops of `crop_patches`. The box ends at the image's border; the crops do not.

    Returns:
        (left, top, right, bottom) in pixels, right and bottom exclusive.
    """
    (top, bottom), (left, right) = (
        (max(int(span[0]), 0), min(int(span[-1]) + 1, length))
        for position, count, length in zip((row, column), grid, size, strict=True)
        for span in _spans(np.array([position]), count, length, fields)
    )
    return left, top, right, bottom


def crop_size(grid: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """Return (ph, pw), the size in pixels of the crops of `crop_patches` with 2 fields."""
    return _crop_length(grid[0], size[0], 2), _crop_length(grid[1], size[1], 2)


def crop_patches(
    images: np.ndarray,
    image: np.ndarray,
    row: np.ndarray,
    column: np.ndarray,
    grid: tuple[int, int],
    fields: int = 2,
) -> np.ndarray:
    """Crop patches from images.

    Args:
        images: (B, H, W, 3) uint8.
        image: (n,) int64, the image of each patch, a position in `images`.
        row: (n,) int64, row of the grid.
        column: (n,) int64, column of the grid.
        grid: (h, w).
        fields: Width of a crop in fields of the grid. At 2, the smallest width that `rebuild` can
            blend, each crop overlaps half of its neighbours; larger crops show the surroundings.

    Returns:
        (n, ph, pw, 3) uint8. Images are mirrored at their borders.
    """
    height, width = images.shape[1:3]
    rows = _mirror(_spans(row, grid[0], height, fields), height)  # (n, ph)
    columns = _mirror(_spans(column, grid[1], width, fields), width)  # (n, pw)
    return images[image[:, None, None], rows[:, :, None], columns[:, None, :]]


def rebuild(patches: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Compose an image from patches, blended where they overlap.

    Args:
        patches: (h, w, ph, pw, 3) uint8, a crop of `crop_patches` for each position of the grid.
        size: (H, W) of the image in pixels.

    Returns:
        (H, W, 3) uint8.
    """
    grid = patches.shape[:2]
    rows = _spans(np.arange(grid[0]), grid[0], size[0])  # (h, ph)
    columns = _spans(np.arange(grid[1]), grid[1], size[1])  # (w, pw)
    # The weight decreases from a patch's centre to its edge, so that no border is visible.
    fades = _window(rows.shape[1]), _window(columns.shape[1])
    weighted = patches * np.outer(*fades).astype(np.float32)[..., None]  # (h, w, ph, pw, 3)
    margin = rows.shape[1], columns.shape[1]
    total = np.zeros((size[0] + 2 * margin[0], size[1] + 2 * margin[1], 3), dtype=np.float32)
    tops, lefts = rows[:, 0] + margin[0], columns[:, 0] + margin[1]
    for patches_of_row, top in zip(weighted, tops, strict=True):
        for patch, left in zip(patches_of_row, lefts, strict=True):
            total[top : top + margin[0], left : left + margin[1]] += patch
    inside = slice(margin[0], -margin[0]), slice(margin[1], -margin[1])
    # Each window is the product of one for rows and one for columns; so is the sum of all windows.
    weight = np.outer(
        *(
            _sum_of_windows(starts, fade, length)
            for starts, fade, length in zip((tops, lefts), fades, total.shape, strict=False)
        )
    )
    return np.rint(total[inside] / weight[inside][..., None].astype(np.float32)).astype(np.uint8)


def _spans(positions: np.ndarray, count: int, length: int, fields: int = 2) -> np.ndarray:
    """Return the (n, p) pixels of each patch along one axis; some may be beyond the border."""
    field, width = length / count, _crop_length(count, length, fields)
    # The centre does not depend on `fields`.
    centre = np.floor((positions + 0.5) * field).astype(np.int64)
    return centre[:, None] - width // 2 + np.arange(width)


def _crop_length(count: int, length: int, fields: int) -> int:
    return max(round(fields * length / count), fields)


def _sum_of_windows(starts: np.ndarray, fade: np.ndarray, length: int) -> np.ndarray:
    """Return (length,), the sum of all patches' weights at each pixel of one axis."""
    total = np.zeros(length)
    for start in starts:
        total[start : start + len(fade)] += fade
    return total


def _mirror(pixels: np.ndarray, length: int) -> np.ndarray:
    """Reflect pixel numbers beyond the border into the image; the border pixel is repeated."""
    folded = np.mod(pixels, 2 * length)
    return np.where(folded < length, folded, 2 * length - 1 - folded)


def _window(width: int) -> np.ndarray:
    """Return (width,) weights, largest at the centre; windows half a width apart sum to 1."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(width) + 0.5) / width)
