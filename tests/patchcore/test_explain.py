import numpy as np
import pytest

from patchcore.explain import PatchPlaces, cut_patches, locate, rebuild


def make_images(count, size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *size, 3), dtype=np.uint8)


def test_locates_a_patch_by_image_row_and_column():
    grid = (3, 4)
    places = locate(np.array([0, 3, 4, 11, 12, 12 * 5 + 6]), grid)
    assert places.images.tolist() == [0, 0, 0, 0, 1, 5]
    assert places.rows.tolist() == [0, 0, 1, 2, 0, 1]
    assert places.columns.tolist() == [0, 3, 0, 3, 0, 2]


def test_a_patch_is_cut_around_the_middle_of_its_field():
    """Field (1, 2) of an 8-pixel grid is rows 8..15 and columns 16..23, and 4 more around it."""
    images = make_images(2, (32, 32))
    places = PatchPlaces(np.array([1]), np.array([1]), np.array([2]))
    patch = cut_patches(images, places, (4, 4))[0]
    np.testing.assert_array_equal(patch, images[1, 4:20, 12:28])


def test_beyond_the_border_the_image_is_mirrored():
    images = make_images(1, (32, 32))
    corner = PatchPlaces(np.array([0]), np.array([0]), np.array([3]))
    patch = cut_patches(images, corner, (4, 4))[0]
    padded = np.pad(images[0], ((4, 4), (4, 4), (0, 0)), mode="symmetric")
    np.testing.assert_array_equal(patch, padded[0:16, 24:40])


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
    count = grid[0] * grid[1]
    patches = cut_patches(images, locate(np.arange(count, 2 * count), grid), grid)
    rebuilt = rebuild(patches.reshape(*grid, *patches.shape[1:]), size)
    np.testing.assert_array_equal(rebuilt, images[1])


def test_a_foreign_patch_shows_only_around_its_place():
    grid, size = (8, 8), (64, 64)
    image = np.full((1, *size, 3), 100, dtype=np.uint8)
    patches = cut_patches(image, locate(np.arange(64), grid), grid)
    patches = patches.reshape(*grid, *patches.shape[1:])
    patches[2, 5] = 200
    rebuilt = rebuild(patches, size)
    changed = np.argwhere(rebuilt[:, :, 0] != 100)
    assert changed.min(0).tolist() >= [12, 36]
    assert changed.max(0).tolist() <= [27, 51]
    assert rebuilt[20, 44, 0] > 180
