import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision import transforms
from torchvision.models import Wide_ResNet50_2_Weights

from patchcore.preprocess import Preprocess


def make_image(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def crop_by_torchvision(image, size_resize, size_crop, how=Image.Resampling.BILINEAR):
    resized = Image.fromarray(image).resize(size_resize[::-1], how)
    return np.asarray(transforms.functional.center_crop(resized, list(size_crop)))


@pytest.mark.parametrize(("height", "width"), [(900, 900), (1024, 1024), (700, 700), (840, 840)])
def test_equals_torchvisions_resize_and_centre_crop(height, width):
    image = make_image(height, width)
    expected = crop_by_torchvision(image, (256, 256), (224, 224))
    np.testing.assert_array_equal(Preprocess().crop_image(image), expected)


def test_bicubic_equals_torchvisions_too():
    image = make_image(900, 900)
    expected = crop_by_torchvision(image, (256, 256), (224, 224), Image.Resampling.BICUBIC)
    found = Preprocess(interpolation="bicubic").crop_image(image)
    np.testing.assert_array_equal(found, expected)


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 120),
    width=st.integers(1, 120),
    size_resize=st.tuples(st.integers(8, 64), st.integers(8, 64)),
    cut=st.tuples(st.integers(0, 7), st.integers(0, 7)),
)
def test_equals_resize_then_crop_for_any_size(height, width, size_resize, cut):
    """To two grey levels: the box is in float32, so that in each of Pillow's two passes, along
    rows and along columns, a rounding may fall the other way.
    """
    size_crop = size_resize[0] - cut[0], size_resize[1] - cut[1]
    image = make_image(height, width)
    found = Preprocess(size_resize, size_crop).crop_image(image)
    expected = crop_by_torchvision(image, size_resize, size_crop)
    assert found.shape == (*size_crop, 3)
    assert np.abs(found.astype(int) - expected).max() <= 2


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    size_resize=st.tuples(st.integers(8, 64), st.integers(8, 64)),
    cut=st.tuples(st.integers(0, 7), st.integers(0, 7)),
)
def test_a_mask_takes_the_nearest_pixel_and_the_same_crop(height, width, size_resize, cut):
    size_crop = size_resize[0] - cut[0], size_resize[1] - cut[1]
    mask = make_image(height, width)[:, :, 0] > 128
    found = Preprocess(size_resize, size_crop).crop_mask(mask)
    rows, columns = (
        [math.floor((pixel + Fraction(1, 2)) * length / resized) for pixel in range(resized)]
        for length, resized in zip(mask.shape, size_resize, strict=True)
    )
    resized_mask = Image.fromarray(mask[rows][:, columns])
    expected = transforms.functional.center_crop(resized_mask, list(size_crop))
    assert found.dtype == bool
    np.testing.assert_array_equal(found, np.asarray(expected))


@pytest.mark.parametrize(("height", "width"), [(900, 900), (1024, 1024), (700, 700), (840, 840)])
def test_a_mask_is_resized_as_pillow_does(height, width):
    mask = make_image(height, width)[:, :, 0] > 128
    grey = mask.astype(np.uint8)
    expected = crop_by_torchvision(grey, (256, 256), (224, 224), Image.Resampling.NEAREST)
    np.testing.assert_array_equal(Preprocess().crop_mask(mask), expected > 0)


def test_equals_the_transform_of_torchvisions_weights():
    """Resize, crop and normalisation are those that the backbone was trained with."""
    transform = Wide_ResNet50_2_Weights.IMAGENET1K_V1.transforms()
    images = [make_image(300, 300, seed) for seed in range(3)]
    expected = torch.stack([transform(Image.fromarray(image)) for image in images])
    preprocess = Preprocess()
    crops = np.stack([preprocess.crop_image(image) for image in images])
    found = preprocess.normalise(torch.from_numpy(crops))
    torch.testing.assert_close(found, expected)
    assert found.dtype == torch.float32
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_area_interpolation_takes_the_mean_of_the_area_that_a_pixel_covers():
    image = make_image(64, 96)
    found = Preprocess((16, 16), (12, 10), interpolation="area").crop_image(image)
    means = image.reshape(16, 4, 16, 6, 3).mean((1, 3))
    assert np.abs(found - means[2:14, 3:13]).max() <= 0.5


def pixels_shown(preprocess, size, axis):
    """Return which pixel of an image each pixel of its mask's crop shows, along one axis."""
    numbers = np.indices(size)[axis]
    crops = [preprocess.crop_mask(numbers == number) for number in range(size[axis])]
    return np.argmax([crop.any(axis=1 - axis) for crop in crops], axis=0)


class TestCropBox:
    def test_by_hand(self):
        assert Preprocess().crop_box((900, 512)) == (32.0, 56.25, 480.0, 843.75)
        # The origin is rounded to even, as torchvision's is: (257 - 224) / 2 = 16.5 -> 16.
        assert Preprocess((257, 259), (224, 224)).crop_box((257, 259)) == (18, 16, 242, 240)

    @given(
        size=st.tuples(st.integers(1, 5000), st.integers(1, 5000)),
        side=st.tuples(st.integers(1, 600), st.integers(1, 600)),
    )
    def test_without_a_crop_it_is_the_image_to_the_last_bit(self, size, side):
        height, width = size
        assert Preprocess(side, side).crop_box(size) == (0, 0, width, height)

    @settings(max_examples=60, deadline=None)
    @given(
        size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
        size_resize=st.tuples(st.integers(8, 64), st.integers(8, 64)),
        cut=st.tuples(st.integers(0, 7), st.integers(0, 7)),
    )
    def test_its_parts_are_what_the_pixels_of_a_mask_show(self, size, size_resize, cut):
        size_crop = size_resize[0] - cut[0], size_resize[1] - cut[1]
        preprocess = Preprocess(size_resize, size_crop)
        left, top, right, bottom = preprocess.crop_box(size)
        assert 0 <= left < right <= size[1]
        assert 0 <= top < bottom <= size[0]
        for axis, (first, last) in enumerate([(top, bottom), (left, right)]):
            count = size_crop[axis]
            centres = first + (np.arange(count) + 0.5) * (last - first) / count
            shown = pixels_shown(preprocess, size, axis)
            assert (np.abs(shown + 0.5 - centres) <= 0.5 + 1e-9).all()


class TestShorterEdge:
    """AnomalyDINO resizes the shorter edge by torchvision and crops to multiples of the patch."""

    @pytest.mark.parametrize("size", [(60, 60), (60, 91), (123, 60), (31, 40)], ids=str)
    @pytest.mark.parametrize("crop", [(32, 32), (24, 40), (48, 32)], ids=str)
    def test_equals_torchvision_where_the_image_covers_the_crop(self, size, crop):
        image = make_image(*size)
        resized = np.asarray(transforms.Resize(32)(Image.fromarray(image)))
        preprocess = Preprocess((32, 32), crop, resize="shorter_edge")
        assert preprocess.resized(size) == resized.shape[:2]
        padded = np.pad(resized, ((40, 40), (40, 40), (0, 0)), mode="edge")
        top, left = (
            round((length - count) / 2) + 40
            for length, count in zip(resized.shape, crop, strict=False)
        )
        expected = padded[top : top + crop[0], left : left + crop[1]]
        found = preprocess.crop_image(image)
        assert found.shape == (*crop, 3)
        assert np.abs(found.astype(int) - expected).max() <= 2  # the box is in float32

    def test_masks_are_cropped_as_their_images_and_end_at_the_border(self):
        preprocess = Preprocess((32, 32), (40, 32), resize="shorter_edge")
        mask = np.zeros((64, 128), bool)
        mask[:, 40:80] = True
        found = preprocess.crop_mask(mask)
        expected = np.zeros((40, 32), bool)
        expected[4:36, 4:24] = True  # half the size, from column 16 and row -4 on
        np.testing.assert_array_equal(found, expected)
        assert preprocess.crop_box((64, 128)) == (32, -8, 96, 72)

    def test_area(self):
        image = make_image(64, 96)
        preprocess = Preprocess((32, 32), (32, 32), interpolation="area", resize="shorter_edge")
        blocks = image.reshape(32, 2, 48, 2, 3).mean((1, 3))[:, 8:40]
        assert np.abs(preprocess.crop_image(image) - blocks).max() <= 0.5

    def test_words_for_the_whole_image_name_no_crop(self):
        whole = Preprocess((32, 24), (32, 24)).describe()
        assert whole == "resized to 32x24 (height x width, antialiased bilinear)"
        cropped = Preprocess((32, 32), (32, 24)).describe()
        assert cropped.endswith("antialiased bilinear), then centre-cropped to 32x24")

    def test_words_for_area_interpolation_name_no_filter(self):
        text = Preprocess((32, 32), (32, 32), interpolation="area").describe()
        assert text == "resized to 32x32 (height x width, area)"

    def test_its_words(self):
        text = Preprocess((32, 32), (40, 32), resize="shorter_edge").describe()
        assert text == (
            "resized to a shorter edge of 32 pixels (the aspect kept, antialiased bilinear), then "
            "centre-cropped to 40x32 and extended by its border pixels where it is smaller"
        )
