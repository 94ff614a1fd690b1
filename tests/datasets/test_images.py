"""Decoding is checked at pixels of known colours, in files of other encoders."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from datasets.base import DatasetError, MaskFiles, Sample
from datasets.images import read_image, read_sample
from datasets.masks import read_mask
from tests.support import truncate, write_image

# (24, 36, 3): four fields of different colours, and of a shape that tells height from width.
COLOURS = np.array([[(250, 20, 10), (15, 200, 30)], [(5, 40, 230), (120, 120, 120)]], np.uint8)
IMAGE = COLOURS.repeat(12, axis=0).repeat(18, axis=1)
GREY = IMAGE[:, :, 0]
AS_GREY = np.stack([GREY] * 3, axis=2)
CENTRES = np.ix_([6, 18], [9, 27])
DEFECT = (slice(3, 9), slice(20, 30))
MASK = np.zeros(GREY.shape, bool)
MASK[DEFECT] = True


def save(path: Path, array: np.ndarray, mode: str | None = None, **details) -> Path:
    """Write with Pillow, in any of its modes: another library than the one that reads."""
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, **details)
    return path


def palette_image(indices: np.ndarray, colours: list[tuple[int, int, int]]) -> Image.Image:
    image = Image.fromarray(indices.astype(np.uint8), "P")
    image.putpalette([value for colour in colours for value in colour])
    return image


class TestReadImage:
    @pytest.mark.parametrize("name", ["rgb.png", "rgb.bmp", "rgb.tif", "grösse 图像.png"])
    def test_colours_come_in_the_order_red_green_blue(self, tmp_path, name):
        image = read_image(save(tmp_path / name, IMAGE))
        assert image.dtype == np.uint8
        np.testing.assert_array_equal(image, IMAGE)

    @pytest.mark.parametrize("name", ["image.jpg", "image.jpeg", "image.webp"])
    def test_lossy_formats_are_close(self, tmp_path, name):
        image = read_image(save(tmp_path / name, IMAGE, quality=95))
        assert image.shape == IMAGE.shape
        np.testing.assert_allclose(image[CENTRES].astype(int), COLOURS.astype(int), atol=6)

    @pytest.mark.parametrize("name", ["grey.png", "grey.bmp", "grey.tif"])
    def test_grey_becomes_three_equal_channels(self, tmp_path, name):
        np.testing.assert_array_equal(read_image(save(tmp_path / name, GREY)), AS_GREY)

    def test_grey_jpeg_becomes_three_equal_channels(self, tmp_path):
        image = read_image(save(tmp_path / "grey.jpg", GREY, quality=95))
        assert (image == image[:, :, :1]).all()
        np.testing.assert_allclose(image[CENTRES].astype(int), AS_GREY[CENTRES], atol=6)

    @pytest.mark.parametrize("alpha", [255, 128, 0])
    def test_transparency_is_dropped_and_the_colours_below_it_kept(self, tmp_path, alpha):
        layer = np.full((*GREY.shape, 1), alpha, np.uint8)
        path = save(tmp_path / "rgba.png", np.concatenate([IMAGE, layer], axis=2))
        np.testing.assert_array_equal(read_image(path), IMAGE)

    def test_grey_with_transparency(self, tmp_path):
        path = save(tmp_path / "la.png", GREY, "LA")
        np.testing.assert_array_equal(read_image(path), AS_GREY)

    @pytest.mark.parametrize("lower", [0, 100, 255])
    @pytest.mark.parametrize(("eight_bit", "expected"), [(GREY, AS_GREY), (IMAGE, IMAGE)])
    def test_of_16_bits_the_upper_8_are_kept(self, tmp_path, eight_bit, expected, lower):
        path = write_image(tmp_path / "deep.png", eight_bit.astype(np.uint16) * 256 + lower)
        np.testing.assert_array_equal(read_image(path), expected)

    def test_a_palette_becomes_its_colours(self, tmp_path):
        indices = np.arange(4).reshape(2, 2).repeat(12, axis=0).repeat(18, axis=1)
        palette_image(indices, [tuple(map(int, c)) for c in COLOURS.reshape(4, 3)]).save(
            path := tmp_path / "palette.png"
        )
        np.testing.assert_array_equal(read_image(path), IMAGE)

    def test_one_bit_becomes_black_and_white(self, tmp_path):
        path = tmp_path / "bit.png"
        Image.fromarray(MASK).save(path)
        expected = np.where(MASK[:, :, None], 255, 0).repeat(3, axis=2)
        np.testing.assert_array_equal(read_image(path), expected)

    def test_a_cameras_orientation_mark_is_obeyed(self, tmp_path):
        exif = Image.Exif()
        exif[0x0112] = 6  # turned clockwise to be upright
        image = read_image(save(tmp_path / "turned.jpg", IMAGE, quality=95, exif=exif))
        upright = np.rot90(IMAGE, -1)
        assert image.shape == upright.shape
        centres = np.ix_([9, 27], [6, 18])
        np.testing.assert_allclose(image[centres].astype(int), upright[centres], atol=6)


@pytest.mark.parametrize("read", [read_image, read_mask])
class TestUnreadableFile:
    def check(self, read, path: Path, reason: str) -> None:
        with pytest.raises(DatasetError, match=reason) as caught:
            read(path)
        assert str(path) in str(caught.value)

    @pytest.mark.parametrize("ending", ["png", "jpg", "bmp", "tif", "webp"])
    def test_truncated(self, tmp_path, read, ending):
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        path = truncate(save(tmp_path / f"half.{ending}", noise))
        self.check(read, path, "damaged or unknown file")

    def test_empty(self, tmp_path, read):
        (path := tmp_path / "empty.png").touch()
        self.check(read, path, "damaged or unknown file")

    def test_text_under_an_images_name(self, tmp_path, read):
        (path := tmp_path / "text.png").write_text("not an image")
        self.check(read, path, "damaged or unknown file")

    def test_a_folder_in_place_of_a_file(self, tmp_path, read):
        (path := tmp_path / "folder.png").mkdir()
        self.check(read, path, "cannot read")

    def test_missing(self, tmp_path, read):
        self.check(read, tmp_path / "nowhere.png", "cannot read .*No such file")

    def test_no_permission(self, tmp_path, read, monkeypatch):
        def refuse(*arguments, **options):
            raise PermissionError(13, "Permission denied")

        path = save(tmp_path / "closed.png", IMAGE)
        monkeypatch.setattr(Path, "read_bytes", refuse)
        self.check(read, path, "cannot read .*Permission denied")


class TestDamagedAnywhere:
    """A damaged file is an error or, where nothing of the image was lost, read correctly."""

    def check(self, folder: Path, whole: bytes, damaged: bytes) -> None:
        (folder / "whole").write_bytes(whole)
        (folder / "damaged").write_bytes(damaged)
        try:
            image = read_image(folder / "damaged")
        except DatasetError:
            return
        np.testing.assert_array_equal(image, read_image(folder / "whole"))

    def encode(self, form: str) -> bytes:
        noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(noise).save(data := io.BytesIO(), form)
        return data.getvalue()

    @pytest.mark.parametrize("form", ["PNG", "JPEG"])
    @settings(deadline=None)
    @given(share=st.floats(0, 1, exclude_max=True))
    def test_cut_off(self, tmp_path_factory, form, share):
        data = self.encode(form)
        self.check(tmp_path_factory.getbasetemp(), data, data[: int(share * len(data))])

    @settings(deadline=None)
    @given(share=st.floats(0, 1, exclude_max=True), change=st.integers(1, 255))
    def test_one_byte_changed(self, tmp_path_factory, share, change):
        data = self.encode("PNG")  # which has checksums
        damaged = bytearray(data)
        damaged[int(share * len(data))] ^= change
        self.check(tmp_path_factory.getbasetemp(), data, bytes(damaged))


class TestReadSample:
    @pytest.fixture
    def image(self, tmp_path) -> Path:
        return save(tmp_path / "image.png", IMAGE)

    def test_a_good_image_has_a_mask_without_defect(self, image):
        found, mask = read_sample(Sample(image, "widget", "good"))
        np.testing.assert_array_equal(found, IMAGE)
        np.testing.assert_array_equal(mask, np.zeros(GREY.shape, bool))

    def test_a_defective_image_comes_with_its_mask(self, image, tmp_path):
        path = save(tmp_path / "mask.png", (MASK * 255).astype(np.uint8))
        found, mask = read_sample(Sample(image, "widget", "crack", MaskFiles((path,))))
        np.testing.assert_array_equal(found, IMAGE)
        np.testing.assert_array_equal(mask, MASK)

    def test_several_masks_of_an_image_are_joined(self, image, tmp_path):
        halves = MASK.copy(), MASK.copy()
        halves[0][::2], halves[1][1::2] = False, False
        paths = tuple(
            save(tmp_path / f"mask_{number}.png", (half * 255).astype(np.uint8))
            for number, half in enumerate(halves)
        )
        _, mask = read_sample(Sample(image, "widget", "crack", MaskFiles(paths)))
        np.testing.assert_array_equal(mask, MASK)

    def test_a_defective_image_without_ground_truth_has_none(self, image):
        assert read_sample(Sample(image, "widget", "crack"))[1] is None

    @pytest.mark.parametrize("size", [(24, 24), (36, 24), (25, 36)])
    def test_a_mask_of_another_size_is_refused(self, image, tmp_path, size):
        path = save(tmp_path / "mask.png", np.zeros(size, np.uint8))
        with pytest.raises(DatasetError) as caught:
            read_sample(Sample(image, "widget", "crack", MaskFiles((path,))))
        message = str(caught.value)
        assert f"of its image, 36x24, found {size[1]}x{size[0]}: " in message
        assert str(path) in message
        assert str(image) in message
