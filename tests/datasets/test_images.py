"""Decoding is checked at pixels whose colours are known; threads by what they have begun."""

import io
import threading
import time
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from datasets.base import DatasetError, MaskFiles, Sample
from datasets.images import read_image, read_sample
from datasets.masks import read_mask
from datasets.reading_ahead import in_batches, map_ahead
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


class TestReadMask:
    @pytest.mark.parametrize("value", [1, 128, 255])
    @pytest.mark.parametrize("name", ["mask.png", "mask.bmp", "mask.tif"])
    def test_whatever_is_above_zero_is_defective(self, tmp_path, name, value):
        mask = read_mask(save(tmp_path / name, (MASK * value).astype(np.uint8)))
        assert mask.dtype == bool
        np.testing.assert_array_equal(mask, MASK)

    @pytest.mark.parametrize("value", [1, 255, 256, 65535])
    def test_also_the_smallest_of_65536_values(self, tmp_path, value):
        path = write_image(tmp_path / "deep.png", (MASK * value).astype(np.uint16))
        np.testing.assert_array_equal(read_mask(path), MASK)

    @pytest.mark.parametrize("channel", [0, 1, 2])
    @pytest.mark.parametrize("value", [1, 255])
    def test_also_in_one_colour_channel_alone(self, tmp_path, channel, value):
        colours = np.zeros((*MASK.shape, 3), np.uint8)
        colours[(*DEFECT, channel)] = value
        np.testing.assert_array_equal(read_mask(save(tmp_path / "m.png", colours)), MASK)

    @pytest.mark.parametrize("colour", [(128, 0, 0), (0, 0, 1), (255, 255, 255)])
    def test_a_palette_mask_is_read_by_its_colours(self, tmp_path, colour):
        palette_image(MASK, [(0, 0, 0), colour]).save(path := tmp_path / "palette.png")
        np.testing.assert_array_equal(read_mask(path), MASK)

    def test_one_bit(self, tmp_path):
        Image.fromarray(MASK).save(path := tmp_path / "bit.png")
        np.testing.assert_array_equal(read_mask(path), MASK)

    @pytest.mark.parametrize("mode", ["RGBA", "LA"])
    def test_opacity_is_no_defect(self, tmp_path, mode):
        path = save(tmp_path / "m.png", (MASK * 255).astype(np.uint8), mode)
        np.testing.assert_array_equal(read_mask(path), MASK)


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


def reading_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("read")]


class TestMapAhead:
    @settings(deadline=None)
    @given(st.lists(st.integers()), st.integers(0, 4), st.integers(1, 9))
    def test_results_come_in_the_items_order(self, items, num_workers, ahead):
        results = map_ahead(str, items, num_workers=num_workers, ahead=ahead)
        assert list(results) == [str(item) for item in items]

    @pytest.mark.parametrize(("num_workers", "ahead"), [(1, 1), (2, 5), (4, 4), (0, 3)])
    def test_no_more_than_ahead_items_are_taken_before_they_are_wanted(self, num_workers, ahead):
        taken = 0

        def endless():
            nonlocal taken
            while True:
                taken += 1
                yield taken

        results = map_ahead(str, endless(), num_workers=num_workers, ahead=ahead)
        for given_out in range(1, 20):
            next(results)
            assert taken <= given_out + (ahead if num_workers else 0)
        results.close()

    def test_nothing_is_taken_before_the_first_result_is_asked_for(self):
        items = iter([1, 2])
        map_ahead(str, items, num_workers=2, ahead=2)
        assert list(items) == [1, 2]

    @pytest.mark.parametrize("num_workers", [1, 3])
    def test_as_many_items_as_workers_are_under_way_at_once(self, num_workers):
        meeting = threading.Barrier(num_workers, timeout=10)  # broken if one comes too late
        items = range(2 * num_workers)
        results = map_ahead(
            lambda item: (meeting.wait(), item)[1], items, num_workers=num_workers, ahead=6
        )
        assert list(results) == list(items)

    def test_no_workers_compute_in_the_callers_thread(self):
        results = map_ahead(lambda _: threading.current_thread(), [1], num_workers=0, ahead=4)
        assert list(results) == [threading.current_thread()]

    @pytest.mark.parametrize("num_workers", [0, 2])
    def test_an_exception_is_raised_where_its_result_was_due(self, num_workers):
        results = map_ahead(lambda item: 6 // item, [1, 2, 0, 3], num_workers=num_workers, ahead=4)
        assert [next(results), next(results)] == [6, 3]
        with pytest.raises(ZeroDivisionError):
            next(results)
        assert not reading_threads()

    def test_closing_early_ends_the_threads_and_begins_nothing_more(self):
        begun = []

        def work(item: int) -> int:
            begun.append(item)
            time.sleep(0.05 if item else 0)
            return item

        results = map_ahead(work, count(), num_workers=2, ahead=8)
        next(results)
        assert reading_threads()
        results.close()
        assert not reading_threads()
        assert len(begun) < 6  # of the 9 that were asked for


class TestInBatches:
    @given(st.lists(st.integers()), st.integers(1, 7))
    def test_all_items_in_order_in_full_batches_but_the_last(self, items, batch_size):
        batches = list(in_batches(items, batch_size))
        assert [item for batch in batches for item in batch] == items
        assert all(len(batch) == batch_size for batch in batches[:-1])
        assert all(1 <= len(batch) <= batch_size for batch in batches[-1:])

    def test_items_are_taken_as_batches_are_asked_for(self):
        items = count()
        assert next(in_batches(items, 3)) == [0, 1, 2]
        assert next(items) == 3
