import numpy as np
import pytest

from patchcore.explain import (
    GAP,
    _mirror,
    crop_patches,
    crop_size,
    find_most_anomalous,
    patch_box,
    rebuild,
)


def make_images(count, size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *size, 3), dtype=np.uint8)


def all_patches(images, grid, fields=2):
    """Return (B, h, w, ph, pw, 3), the crops of all patches."""
    positions = np.indices((len(images), *grid)).reshape(3, -1)
    patches = crop_patches(images, *positions, grid, fields)
    return patches.reshape(len(images), *grid, *patches.shape[1:])


def cut_patch(images, image, row, column, grid, fields=2):
    """Return the crop of one patch."""
    return crop_patches(images, *np.array([[image], [row], [column]]), grid, fields)[0]


def test_a_patch_is_cut_around_the_middle_of_its_field():
    """Field (1, 2) of an 8-pixel grid is rows 8..15 and columns 16..23, and 4 more around it."""
    images = make_images(2, (32, 32))
    patch = cut_patch(images, 1, 1, 2, (4, 4))
    np.testing.assert_array_equal(patch, images[1, 4:20, 12:28])


def test_beyond_the_border_the_image_is_mirrored():
    images = make_images(1, (32, 32))
    patch = cut_patch(images, 0, 0, 3, (4, 4))
    padded = np.pad(images[0], ((4, 4), (4, 4), (0, 0)), mode="symmetric")
    np.testing.assert_array_equal(patch, padded[0:16, 24:40])


@pytest.mark.parametrize("length", [1, 5])
def test_mirrored_pixels_are_those_of_a_symmetric_padding(length):
    """Also farther from the border than the image is long."""
    expected = np.pad(np.arange(length), 3 * length, mode="symmetric")
    np.testing.assert_array_equal(_mirror(np.arange(-3 * length, 4 * length), length), expected)


@pytest.mark.parametrize(
    ("grid", "size"),
    [
        ((28, 28), (224, 224)),
        ((7, 5), (60, 41)),
        ((1, 1), (9, 9)),
        ((9, 8), (9, 9)),
        ((6, 6), (50, 47)),
    ],
)
def test_an_image_is_rebuilt_from_its_own_patches_to_the_last_value(grid, size):
    images = make_images(2, size)
    patches = all_patches(images, grid)[1]
    assert patches.shape[2:4] == crop_size(grid, size)
    rebuilt = rebuild(patches, size)
    np.testing.assert_array_equal(rebuilt, images[1])


def test_a_foreign_patch_shows_only_around_its_place():
    grid, size = (8, 8), (64, 64)
    image = np.full((1, *size, 3), 100, dtype=np.uint8)
    patches = all_patches(image, grid)[0]
    patches[2, 5] = 200
    rebuilt = rebuild(patches, size)
    changed = np.argwhere(rebuilt[:, :, 0] != 100)
    assert changed.min(0).tolist() >= [12, 36]
    assert changed.max(0).tolist() <= [27, 51]
    assert rebuilt[20, 44, 0] > 180


def rebuild_slowly(patches, size):
    """The weighted mean of all patches over each pixel, in double precision."""
    grid, (height, width) = patches.shape[:2], patches.shape[2:4]
    fade = [0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(n) + 0.5) / n) for n in (height, width)]
    total, weight = np.zeros((*size, 3)), np.zeros((*size, 1))
    for row in range(grid[0]):
        for column in range(grid[1]):
            top = int((row + 0.5) * size[0] / grid[0]) - height // 2
            left = int((column + 0.5) * size[1] / grid[1]) - width // 2
            for y in range(max(top, 0), min(top + height, size[0])):
                for x in range(max(left, 0), min(left + width, size[1])):
                    share = fade[0][y - top] * fade[1][x - left]
                    total[y, x] += share * patches[row, column, y - top, x - left]
                    weight[y, x] += share
    return total / weight


@pytest.mark.parametrize(("grid", "size"), [((4, 5), (32, 40)), ((5, 3), (33, 29))])
def test_rebuilding_is_a_weighted_mean(grid, size):
    count = grid[0] * grid[1]
    pool = all_patches(make_images(3, size), grid)
    pool = pool.reshape(3 * count, *pool.shape[3:])
    chosen = np.random.default_rng(1).integers(0, 3 * count, grid)
    rebuilt = rebuild(pool[chosen], size)
    assert np.abs(rebuilt - rebuild_slowly(pool[chosen], size)).max() <= 0.501


@pytest.mark.parametrize("fields", [1, 2, 3, 6])
def test_patches_of_any_width_have_the_same_middle(fields):
    images = make_images(1, (64, 64))
    patch = cut_patch(images, 0, 3, 4, (8, 8), fields)
    left, top, right, bottom = patch_box(3, 4, (8, 8), (64, 64), fields)
    assert patch.shape[:2] == (8 * fields, 8 * fields)
    np.testing.assert_array_equal(patch, images[0, top:bottom, left:right])
    assert (left + right, top + bottom) == (2 * 36, 2 * 28)


def test_boxes_end_at_the_border():
    assert patch_box(0, 7, (8, 8), (64, 64)) == (56, 0, 64, 8)
    assert patch_box(0, 7, (8, 8), (64, 64), fields=3) == (48, 0, 64, 16)


@pytest.mark.parametrize(
    ("row_step", "column_step"),
    [(0, 1), (1, 0), (0, -1), (-1, 0), (1, 1), (-1, -1), (1, -1), (-1, 1)],
)
def test_patches_near_a_found_one_are_left_out_on_all_sides(row_step, column_step):
    distance = np.zeros((21, 21, 1))
    distance[10, 10] = 9
    near = (10 + (GAP - 1) * row_step, 10 + (GAP - 1) * column_step)
    apart = (10 + GAP * row_step, 10 + GAP * column_step)
    distance[near], distance[apart] = 8, 7
    assert find_most_anomalous(distance, 2) == [(10, 10), apart]


def test_the_most_anomalous_patches_come_first_and_apart():
    distance = np.zeros((20, 20, 2))
    distance[3, 4] = 9, 11  # mean 10
    distance[3, 4 + GAP - 1] = 9  # too near to the first
    distance[3, 4 + GAP] = 8
    distance[15, 15] = 0, 12  # mean 6
    assert find_most_anomalous(distance, 3) == [(3, 4), (3, 4 + GAP), (15, 15)]
    assert find_most_anomalous(distance, 0) == []
    assert find_most_anomalous(np.ones((2, 2, 1)), 3) == [(0, 0)]  # the others are all too near


def test_neighbours_of_a_corner_count_as_one_spot():
    """Suppression ends at the border: it neither wraps around nor leaves the border out."""
    rising = np.arange(25.0).reshape(5, 5, 1)
    assert find_most_anomalous(rising, 5) == [(4, 4), (4, 0), (0, 4), (0, 0)]
    assert find_most_anomalous(rising[::-1, ::-1], 5) == [(0, 0), (0, 4), (4, 0), (4, 4)]
