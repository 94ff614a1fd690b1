"""The same picture in every form gives the same array."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from patchcore import PatchCoreError
from patchcore.images import as_rgb, each_image

SIZES = st.tuples(st.integers(1, 9), st.integers(1, 9))


def picture(height=4, width=6, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def tensor(image):
    return torch.from_numpy(image).permute(2, 0, 1)


class TestAsRgb:
    @given(SIZES, st.integers(0, 99))
    def test_array_image_and_tensors_agree(self, size, seed):
        image = picture(*size, seed)
        whole = tensor(image)
        forms = [image, Image.fromarray(image), whole, whole.contiguous()]
        forms += [(whole / 255).to(dtype) for dtype in (torch.float32, torch.float64)]
        for form in forms:
            found = as_rgb(form)
            assert found.dtype == np.uint8
            np.testing.assert_array_equal(found, image)

    @given(SIZES, st.integers(0, 99))
    def test_forms_of_a_grey_picture_agree(self, size, seed):
        grey = picture(*size, seed)[:, :, 0]
        expected = np.stack([grey] * 3, axis=2)
        one = torch.from_numpy(grey.copy())[None]
        for form in (grey, Image.fromarray(grey), one, one / 255):
            np.testing.assert_array_equal(as_rgb(form), expected)

    @pytest.mark.parametrize(("dtype", "allowed"), [(torch.float16, 0), (torch.bfloat16, 1)])
    def test_short_floats_are_as_near_as_they_can_be(self, dtype, allowed):
        image = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
        found = as_rgb((tensor(image) / 255).to(dtype))
        assert np.abs(found.astype(int) - image).max() <= allowed

    def test_floats_are_rounded_to_the_nearest(self):
        values = torch.tensor([0, 0.4, 0.6, 127.4, 127.6, 254.6, 255]) / 255
        assert as_rgb(values.view(1, 1, -1))[0, :, 0].tolist() == [0, 0, 1, 127, 128, 255, 255]

    def test_a_tensor_that_learns(self):
        whole = (tensor(picture()) / 255).requires_grad_()
        np.testing.assert_array_equal(as_rgb(whole), picture())

    @pytest.mark.parametrize(
        "view", [np.s_[::-1], np.s_[:, ::2], np.s_[:, :, ::-1], np.s_[1:3, 2:5]]
    )
    def test_views_of_arrays_and_tensors(self, view):
        np.testing.assert_array_equal(as_rgb(picture()[view]), picture()[view])
        np.testing.assert_array_equal(as_rgb(tensor(picture()[view].copy())), picture()[view])

    def test_transparency_is_dropped_and_the_colours_below_it_kept(self):
        layered = np.concatenate([picture(), np.zeros((4, 6, 1), np.uint8)], axis=2)
        np.testing.assert_array_equal(as_rgb(Image.fromarray(layered)), picture())
        grey = Image.fromarray(picture()[:, :, 0])
        layered = grey.convert("LA")
        layered.putalpha(0)
        np.testing.assert_array_equal(as_rgb(layered), as_rgb(grey))

    def test_a_palette_becomes_its_colours(self):
        image = Image.fromarray(np.array([[0, 1], [1, 2]], np.uint8), "P")
        image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
        expected = [[[10, 20, 30], [40, 50, 60]], [[40, 50, 60], [70, 80, 90]]]
        assert as_rgb(image).tolist() == expected

    def test_black_and_white(self):
        image = Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1")
        assert as_rgb(image).tolist() == [[[0] * 3, [255] * 3]]

    @pytest.mark.parametrize("low", [0, 100, 255])
    def test_of_16_bits_the_upper_8_are_kept(self, low, tmp_path):
        """As `read_image` does; Pillow alone would give white for all above 255."""
        grey = picture()[:, :, 0]
        deep = Image.fromarray(grey.astype(np.uint16) * 256 + low)
        deep.save(tmp_path / "deep.png")
        for image in (deep, Image.open(tmp_path / "deep.png")):
            assert image.mode.startswith("I;16")
            np.testing.assert_array_equal(as_rgb(image), as_rgb(grey))

    def test_a_damaged_file_that_was_opened_only(self, tmp_path):
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(
            path := tmp_path / "a.png"
        )
        path.write_bytes(path.read_bytes()[:3000])
        with pytest.raises(PatchCoreError, match="a complete PIL image, found a damaged one: "):
            as_rgb(Image.open(path))

    @pytest.mark.parametrize(
        ("given_image", "found"),
        [
            (picture().astype(np.float32), r"float32 \(4, 6, 3\)"),
            (picture() > 9, r"bool \(4, 6, 3\)"),
            (picture()[:, :, :2], r"uint8 \(4, 6, 2\)"),
            (picture().transpose(2, 0, 1), r"uint8 \(3, 4, 6\)"),
            (picture()[None], r"uint8 \(1, 4, 6, 3\)"),
            (picture()[0, 0], r"uint8 \(3,\)"),
            (np.zeros((0, 6, 3), np.uint8), r"uint8 \(0, 6, 3\)"),
            (np.zeros((4, 0), np.uint8), r"uint8 \(4, 0, 3\)"),
            (torch.zeros(4, 6), r"a tensor \(4, 6\)"),
            (torch.zeros(3, 6), r"a tensor \(3, 6\)"),
            (torch.zeros(1, 3, 4, 6), r"a tensor \(1, 3, 4, 6\)"),
            (torch.zeros(4, 6, 3), r"a tensor \(4, 6, 3\)"),
            (torch.zeros(3, 0, 6), r"a tensor \(3, 0, 6\)"),
            (torch.zeros(3, 4, 6, dtype=torch.int64), "torch.int64"),
            (torch.zeros(3, 4, 6, dtype=torch.bool), "torch.bool"),
            (torch.full((3, 4, 6), 1.01), "found 1.01 to 1.01.*normalises them itself"),
            (torch.full((3, 4, 6), -0.1), "found -0.1 to -0.1"),
            (torch.tensor([0.0, torch.nan, 1.0]).expand(3, 1, 3), "found nan to nan"),
            (torch.tensor([0.0, torch.inf, 1.0]).expand(3, 1, 3), "found 0 to inf"),
            (Image.new("RGB", (0, 4)), r"size \(0, 4\)"),
            (Image.new("I", (6, 4)), "mode I .*scaled to 8 bits"),
            (Image.new("F", (6, 4)), "mode F .*scaled to 8 bits"),
            ("a.png", "found str"),
            (Path("a.png"), "found .*Path"),
            (None, "found NoneType"),
            ([], "found list"),
        ],
    )
    def test_anything_else_is_told(self, given_image, found):
        with pytest.raises(PatchCoreError, match=found):
            as_rgb(given_image)


class TestEachImage:
    IMAGES = tuple(picture(seed=seed) for seed in range(5))

    def check(self, images, count=5):
        found = list(each_image(images))
        assert len(found) == count
        for one, expected in zip(found, self.IMAGES, strict=False):
            np.testing.assert_array_equal(one, expected)

    def test_single_images_of_any_form_and_size(self):
        first, second, third, *_ = self.IMAGES
        self.check([first, Image.fromarray(second), tensor(third)], 3)
        sizes = [image.shape for image in each_image([picture(3, 5), picture(9, 2)])]
        assert sizes == [(3, 5, 3), (9, 2, 3)]

    def test_one_batch_for_all(self):
        self.check(np.stack(self.IMAGES))
        self.check(torch.stack([*map(tensor, self.IMAGES)]))

    def test_batches_and_batches_with_labels(self):
        batches = [np.stack(self.IMAGES[:3]), torch.stack([*map(tensor, self.IMAGES[3:])])]
        self.check(batches)
        self.check([(batch, torch.zeros(len(batch))) for batch in batches])
        self.check([[batch, ["a"] * len(batch), np.zeros((len(batch), 4, 6))] for batch in batches])

    def test_images_with_labels(self):
        self.check([(image, 0) for image in self.IMAGES])
        self.check([(Image.fromarray(image), "good") for image in self.IMAGES])
        self.check([[tensor(image), torch.tensor(0)] for image in self.IMAGES])
        self.check([(image,) for image in self.IMAGES])

    def test_a_data_loader(self):
        images = torch.stack([*map(tensor, self.IMAGES)])
        data = torch.utils.data.TensorDataset(images, torch.arange(5))
        self.check(torch.utils.data.DataLoader(data, batch_size=2))
        self.check(data)  # it has no __iter__

    def test_is_lazy(self):
        asked = []

        def endless():
            while True:
                asked.append(1)
                yield self.IMAGES[0]

        images = each_image(endless())
        next(images), next(images)
        assert len(asked) == 2

    def test_what_has_items_alone(self):
        """As data sets of torch, which do not say that they can be iterated."""

        class Items:
            def __getitem__(self, number):
                return TestEachImage.IMAGES[number]

        self.check(Items())

    def test_no_images_are_none(self):
        assert list(each_image([])) == list(each_image(np.zeros((0, 4, 6, 3), np.uint8))) == []

    @pytest.mark.parametrize(
        ("images", "found"),
        [
            (picture(), r"one array of shape \(4, 6, 3\): put a single image into a list"),
            (tensor(picture()), r"one array of shape \(3, 4, 6\)"),
            (Image.fromarray(picture()), "found one Image"),
            ("folder", "found one str"),
            (None, "several images, found NoneType"),
            (Path("folder"), "found one .*Path"),
            (["a.png"], "found str"),
            ([{"image": picture()}], "found dict"),
            ([[]], "found list"),
            ([(picture(), picture()[:, :, 0])], "a tuple of 2 images within the images"),
        ],
    )
    def test_what_is_no_collection_of_images_is_told(self, images, found):
        with pytest.raises(PatchCoreError, match=found):
            list(each_image(images))

    @pytest.mark.parametrize(
        "form", [np.asarray, lambda image: image[:, :, 0], Image.fromarray, tensor]
    )
    @pytest.mark.parametrize("kind", [list, tuple])
    def test_lists_of_images_within_the_list_are_told_rather_than_their_first_taken(
        self, form, kind
    ):
        images = [kind(map(form, self.IMAGES[:3])), kind(map(form, self.IMAGES[3:]))]
        with pytest.raises(PatchCoreError, match=f"a {kind.__name__} of 3 images within"):
            list(each_image(images))


@settings(max_examples=20)
@given(SIZES, st.integers(0, 9))
def test_what_was_given_is_not_changed(size, seed):
    image = picture(*size, seed)
    whole = tensor(image) / 255
    before = whole.clone()
    as_rgb(whole), as_rgb(image)
    assert torch.equal(whole, before)
    np.testing.assert_array_equal(image, picture(*size, seed))
