"""Masks are read as they are meant: exact ones, class numbers, JPEG, smooth borders, paint."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from datasets.base import GOOD, DatasetError, MaskFiles, Sample
from datasets.decoding import turn
from datasets.drawn_labels import DEFECT as DEFECT_TYPE
from datasets.drawn_labels import read_beside
from datasets.entries import TEST
from datasets.images import read_sample
from datasets.masks import (
    EMPTY_MASK,
    FULL_MASK,
    JPEG_MASK,
    LARGE_MASK,
    SMOOTH_MASK,
    UNMARKED_MASK,
    _split,
    has_smooth_borders,
    read_mask,
)
from datasets.notes import Notes
from tests.datasets.test_images import DEFECT, MASK, palette_image, save
from tests.support import write_image

# A disk and a stroke, in an image that is large enough for smooth borders.
ROWS, COLUMNS = np.mgrid[:120, :160]
DISK = (ROWS - 60) ** 2 + (COLUMNS - 70) ** 2 <= 30**2
STROKE = (np.abs(ROWS - COLUMNS + 60) <= 2) & (COLUMNS > 110)
SHAPES = DISK | STROKE


def smooth(mask: np.ndarray, factor: int = 4) -> np.ndarray:
    """Return a mask drawn at a larger size and reduced, uint8 with grey borders."""
    large = mask.repeat(factor, axis=0).repeat(factor, axis=1)
    shifted = np.roll(large, (factor // 2, factor // 4), axis=(0, 1))
    means = shifted.reshape(mask.shape[0], factor, mask.shape[1], factor).mean(axis=(1, 3))
    return np.round(255 * means).astype(np.uint8)


def read(path: Path) -> tuple[np.ndarray, list[str]]:
    """Read a mask; return it with the reasons of its notes."""
    notes = Notes()
    mask = read_mask(path, notes=notes)
    return mask, [note.reason for note in notes.all()]


class TestReadMask:
    @pytest.mark.filterwarnings("error")
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

    def test_nothing_is_noted_about_an_exact_mask(self, tmp_path):
        path = save(tmp_path / "m.png", (MASK * 255).astype(np.uint8))
        assert read(path)[1] == []


class TestValuesBetween:
    @pytest.mark.parametrize("quality", [50, 75, 95])
    @pytest.mark.parametrize("value", [255, 128])
    def test_a_jpeg_mask_is_cut_at_half(self, tmp_path, quality, value):
        path = save(tmp_path / "m.jpg", (SHAPES * value).astype(np.uint8), quality=quality)
        mask, reasons = read(path)
        assert reasons == [JPEG_MASK]
        assert (mask != SHAPES).mean() < 0.002
        assert not mask[:20].any()  # no specks away from the defect

    def test_specks_of_jpeg_in_an_empty_mask_are_no_defect(self, tmp_path):
        specks = np.random.default_rng(0).integers(0, 6, (64, 64), dtype=np.uint8)
        mask, _ = read(save(tmp_path / "m.jpg", specks, quality=95))
        assert not mask.any()

    def test_half_of_a_jpeg_mask_is_refused(self, tmp_path):
        data = save(tmp_path / "m.jpg", (SHAPES * 255).astype(np.uint8)).read_bytes()
        (tmp_path / "m.jpg").write_bytes(data[: len(data) * 3 // 4] + b"\xff\xd9")
        with pytest.raises(DatasetError, match=r"expected a mask, .*m\.jpg \(JPEG: it ends early"):
            read_mask(tmp_path / "m.jpg")

    @pytest.mark.parametrize("factor", [2, 4, 8])
    def test_smooth_borders_are_cut_at_half(self, tmp_path, factor):
        grey = smooth(SHAPES, factor)
        mask, reasons = read(save(tmp_path / "m.png", grey))
        assert reasons == [SMOOTH_MASK]
        np.testing.assert_array_equal(mask, grey > 127)

    @pytest.mark.parametrize(
        ("profile", "is_smooth"),
        [
            ([85, 170], True),
            ([170, 85], True),
            ([100, 0, 0], False),  # a thin class that is further away
        ],
    )
    def test_a_border_of_two_pixels(self, profile, is_smooth):
        values = np.zeros((40, 60), np.uint8)
        columns = range(30 - len(profile), 30)
        values[:, columns], values[:, 30:50] = profile, 255
        for turns in range(4):
            assert has_smooth_borders(np.rot90(values, turns)) == is_smooth

    @pytest.mark.parametrize("sigma", [1, 3, 6])
    def test_a_blurred_mask_is_cut_at_half(self, tmp_path, sigma):
        grey = cv2.GaussianBlur((DISK * 255).astype(np.uint8), (0, 0), sigma)
        mask, reasons = read(save(tmp_path / "m.png", grey))
        assert reasons == [SMOOTH_MASK]
        np.testing.assert_array_equal(mask, grey > 127)

    def test_smooth_paint_of_one_colour(self, tmp_path):
        grey = smooth(SHAPES)
        colours = np.stack([grey, grey * 0, grey * 0], axis=2)
        mask, reasons = read(save(tmp_path / "m.png", colours))
        assert reasons == [SMOOTH_MASK]
        np.testing.assert_array_equal(mask, grey > 127)

    @pytest.mark.parametrize("values", [(1, 2, 3), (1, 255), (100, 200), (60, 120, 180)])
    def test_class_numbers_are_defective_above_0(self, tmp_path, values):
        classes = np.zeros(DISK.shape, np.uint8)
        for number, value in enumerate(values):
            classes[10:30, 10 + 40 * number : 40 + 40 * number] = value
        mask, reasons = read(save(tmp_path / "m.png", classes))
        assert reasons == []
        np.testing.assert_array_equal(mask, classes > 0)

    def test_a_thin_class_away_from_the_others(self, tmp_path):
        classes = DISK.astype(np.uint8) * 2
        classes[5, 20:120] = 1
        np.testing.assert_array_equal(read_mask(save(tmp_path / "m.png", classes)), classes > 0)

    def test_numbered_regions(self, tmp_path):
        numbers = np.zeros(DISK.shape, np.uint8)
        for number in range(24):
            row, column = divmod(number, 8)
            numbers[10 + 35 * row : 25 + 35 * row, 5 + 19 * column : 15 + 19 * column] = number + 1
        mask, reasons = read(save(tmp_path / "m.png", numbers))
        assert reasons == []
        np.testing.assert_array_equal(mask, numbers > 0)

    @pytest.mark.parametrize("dtype", [np.uint16, np.float32, np.int32])
    def test_other_number_types(self, dtype):
        assert not has_smooth_borders((SHAPES * 3).astype(dtype))
        assert has_smooth_borders(smooth(SHAPES).astype(dtype))

    def test_values_from_0_to_1(self):
        assert not has_smooth_borders(SHAPES.astype(np.float32))
        assert has_smooth_borders(smooth(SHAPES) / np.float32(255))

    def test_nothing(self):
        assert not has_smooth_borders(np.zeros((8, 8), np.uint8))


class TestTransparency:
    def paint(self, folder: Path, colour, canvas, opacity: np.ndarray | None = None) -> Path:
        """Write paint of a colour on a transparent canvas of another one."""
        pixels = np.empty((*SHAPES.shape, 4), np.uint8)
        pixels[:] = (*canvas, 0)
        pixels[SHAPES] = (*colour, 255)
        if opacity is not None:
            pixels[:, :, :3], pixels[:, :, 3] = colour, opacity
        return save(folder / "m.png", pixels)

    @pytest.mark.parametrize("colour", [(0, 0, 0), (9, 9, 9), (200, 0, 0)])
    def test_only_an_opacity_of_0_is_transparent(self, tmp_path, colour):
        opacity = SHAPES.astype(np.uint8)
        np.testing.assert_array_equal(
            read_mask(self.paint(tmp_path, colour, colour, opacity)), SHAPES
        )

    def test_grey_and_opacity_of_two_channels(self):
        """No decoder returns them at present."""
        values = np.arange(24, dtype=np.uint8).reshape(3, 4, 2)
        colours, opacity = _split(values)
        np.testing.assert_array_equal(colours, values[:, :, :1])
        np.testing.assert_array_equal(opacity, values[:, :, 1])

    @pytest.mark.parametrize("canvas", [(0, 0, 0), (255, 255, 255)])
    @pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (200, 0, 0)])
    def test_paint_is_defective_whatever_its_colour(self, tmp_path, colour, canvas):
        np.testing.assert_array_equal(read_mask(self.paint(tmp_path, colour, canvas)), SHAPES)

    def test_smooth_paint(self, tmp_path):
        opacity = smooth(SHAPES)
        mask, reasons = read(self.paint(tmp_path, (0, 0, 0), (0, 0, 0), opacity))
        assert reasons == [SMOOTH_MASK]
        np.testing.assert_array_equal(mask, opacity > 127)

    def test_black_and_white_with_a_transparent_margin(self, tmp_path):
        pixels = np.zeros((*SHAPES.shape, 4), np.uint8)
        pixels[SHAPES] = 255
        pixels[2:-2, 2:-2, 3] = 255
        np.testing.assert_array_equal(read_mask(save(tmp_path / "m.png", pixels)), SHAPES)

    @pytest.mark.parametrize("size", [1, 5])
    def test_paint_of_one_pixel(self, tmp_path, size):
        expected = np.zeros((size, size), bool)
        expected[-1, -1] = True
        pixels = np.zeros((size, size, 4), np.uint8)
        pixels[expected] = 255
        np.testing.assert_array_equal(read_mask(save(tmp_path / "m.png", pixels)), expected)

    def test_constant_opacity_says_nothing(self, tmp_path):
        pixels = np.zeros((*SHAPES.shape, 4), np.uint8)
        pixels[SHAPES, :3] = 255
        np.testing.assert_array_equal(read_mask(save(tmp_path / "m.png", pixels)), SHAPES)

    @pytest.mark.parametrize("opacity", [0, 128, 255])
    @pytest.mark.parametrize("value", [0, 255])
    def test_of_one_colour_it_says_nothing_either(self, tmp_path, value, opacity):
        pixels = np.full((4, 5, 4), (*[value] * 3, opacity), np.uint8)
        mask = read_mask(save(tmp_path / "m.png", pixels))
        np.testing.assert_array_equal(mask, np.full((4, 5), value > 0))

    @pytest.mark.parametrize("form", ["GIF", "TIFF", "WEBP"])
    def test_paint_in_every_format_with_opacity(self, tmp_path, form):
        """White paint on white is marked by its opacity alone."""
        with Image.open(self.paint(tmp_path, (255, 255, 255), (255, 255, 255))) as image:
            image.save(path := tmp_path / "m", form, lossless=True, exact=True)
        np.testing.assert_array_equal(read_mask(path), SHAPES)


@pytest.mark.parametrize(
    ("values", "name", "expected"),
    [
        (SHAPES * np.uint8(0), "m.png", GOOD),
        (SHAPES * np.uint8(1), "m.png", DEFECT_TYPE),
        (SHAPES * np.uint16(0), "m.png", GOOD),
        (SHAPES * np.uint16(1), "m.png", DEFECT_TYPE),
        (SHAPES[:, :, None].repeat(3, axis=2) * np.uint16(1), "m.png", DEFECT_TYPE),
        (SHAPES * np.float32(0.5), "m.tif", DEFECT_TYPE),
        (SHAPES * np.uint8(6), "m.jpg", GOOD),  # less than the error of JPEG compression
        (SHAPES * np.uint8(255), "m.jpg", DEFECT_TYPE),
    ],
)
def test_a_mask_distinguishes_good_from_defective_as_it_is_read(tmp_path, values, name, expected):
    """As in KolektorSDD2, where a good image has an empty mask."""
    save(tmp_path / "i.png", np.zeros(SHAPES.shape, np.uint8))
    mask = write_image(tmp_path / name, values).rename(tmp_path / f"i_GT{Path(name).suffix}")
    found = read_beside(tmp_path, TEST, "_GT")
    assert [entry.defect_type for entry in found.entries] == [expected]
    assert read_mask(mask).any() == (expected == DEFECT_TYPE)


@pytest.mark.parametrize(
    ("marked", "reason"),
    [
        (np.zeros((20, 30), bool), EMPTY_MASK),
        (np.ones((20, 30), bool), FULL_MASK),
        (np.arange(600).reshape(20, 30) >= 299, LARGE_MASK),
        (np.arange(600).reshape(20, 30) >= 300, None),
    ],
)
def test_remarkable_masks_are_noted(tmp_path, marked, reason):
    image = save(tmp_path / "image.png", np.zeros((20, 30, 3), np.uint8))
    path = save(tmp_path / "m.png", (marked * 255).astype(np.uint8))
    notes = Notes()
    _, mask = read_sample(Sample(image, "x", "hole", MaskFiles((path,))), notes=notes)
    np.testing.assert_array_equal(mask, marked)
    assert [(note.reason, note.example) for note in notes.all()] == (
        [(reason, str(path))] if reason else []
    )


class TestOrientation:
    """The image is stored lying on its side; EXIF says how to turn it."""

    def sample(self, folder: Path, orientation: int, mask: np.ndarray, own: int = 1) -> Sample:
        marks = []
        for value in (orientation, own):
            mark = Image.Exif()
            mark[0x0112] = value
            marks.append({"exif": mark} if value != 1 else {})
        image = save(folder / "i.jpg", np.zeros((*MASK.shape, 3), np.uint8), **marks[0])
        path = save(folder / "m.png", (mask * 255).astype(np.uint8), **marks[1])
        return Sample(image, "x", "hole", MaskFiles((path,)))

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_a_mask_is_turned_like_its_image(self, tmp_path, orientation):
        image, mask = read_sample(self.sample(tmp_path, orientation, MASK, orientation))
        np.testing.assert_array_equal(mask, turn(MASK, orientation))
        assert mask.shape == image.shape[:2]

    @pytest.mark.parametrize("orientation", [5, 6, 7, 8])
    def test_a_mask_that_fits_only_when_turned_names_exif(self, tmp_path, orientation):
        for own, other in ((orientation, 1), (1, orientation), (orientation, 3), (3, orientation)):
            message = f"EXIF orientation of the image is {own}, that of the mask {other}: rotate"
            with pytest.raises(DatasetError, match=message):
                read_sample(self.sample(tmp_path, own, MASK, other))

    @pytest.mark.parametrize(
        ("orientation", "own", "mask"),
        [
            (1, 1, MASK.T),  # turned, but nothing has an orientation
            (6, 6, MASK.T),  # both have the same
            (3, 1, MASK.T),  # upside down
            (1, 3, MASK.T),
            (6, 1, MASK[:-1]),  # of a size that no rotation gives
            (1, 6, MASK[:-1]),
        ],
    )
    def test_a_mask_of_another_size_for_another_reason_does_not(
        self, tmp_path, orientation, own, mask
    ):
        with pytest.raises(DatasetError, match="expected a mask of the size of its im") as caught:
            read_sample(self.sample(tmp_path, orientation, mask, own))
        assert "EXIF" not in str(caught.value)

    @pytest.mark.parametrize("orientation", [5, 6, 7, 8])
    def test_an_upright_mask_of_a_turned_image_fits(self, tmp_path, orientation):
        notes = Notes()
        upright = turn(MASK, orientation)
        _, mask = read_sample(self.sample(tmp_path, orientation, upright), notes=notes)
        np.testing.assert_array_equal(mask, upright)
        assert notes.all() == []

    @pytest.mark.parametrize("orientation", [2, 3, 4])
    def test_a_mask_that_fits_both_ways_is_noted(self, tmp_path, orientation):
        notes = Notes()
        _, mask = read_sample(self.sample(tmp_path, orientation, MASK), notes=notes)
        np.testing.assert_array_equal(mask, MASK)
        assert [note.reason for note in notes.all()] == [UNMARKED_MASK]
