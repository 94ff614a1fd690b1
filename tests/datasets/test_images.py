"""Decoding is checked at pixels of known colours, in files of other encoders."""

import io
import itertools
import re
import struct
import zlib
from dataclasses import replace
from functools import cache
from pathlib import Path
from unittest import mock

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from datasets.base import DatasetError, MaskFiles, Sample
from datasets.decoding import ImageFile, _colours
from datasets.depth import Decoding, RangeFinder, ValueRange
from datasets.images import (
    BYTES_PER_DEEP_PIXEL,
    BYTES_PER_PIXEL,
    OTHER_DEPTH,
    UNKNOWN_DEPTH,
    bytes_to_read,
    read_image,
    read_sample,
)
from datasets.jpeg import FILLING, is_complete, with_filling
from datasets.masks import read_mask
from datasets.notes import Note, Notes
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

    @pytest.mark.parametrize("channels", [1, 2])
    def test_grey_with_and_without_opacity_becomes_equal_channels(self, channels):
        values = np.arange(12 * channels, dtype=np.uint8).reshape(3, 4, channels)
        found = _colours(values)
        assert found.shape == (3, 4, 3)
        assert np.array_equal(found, values[:, :, [0, 0, 0]])

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
        self.check(read, path, "the file is empty")

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


# Pillow's encoders with their options, by a name of the form.
FORMS = {
    "png": ("PNG", {}),
    "jpeg": ("JPEG", {}),
    "progressive": ("JPEG", {"progressive": True}),
    "restarts": ("JPEG", {"restart_marker_blocks": 2}),
    "bmp": ("BMP", {}),
    "tiff": ("TIFF", {}),
    "tiff lzw": ("TIFF", {"compression": "tiff_lzw"}),
    "tiff jpeg": ("TIFF", {"compression": "jpeg"}),
    "tiff zstd": ("TIFF", {"compression": "zstd"}),
    "webp": ("WEBP", {}),
    "lossless webp": ("WEBP", {"lossless": True}),
    "gif": ("GIF", {}),
    "jpeg 2000": ("JPEG2000", {}),
    "avif": ("AVIF", {}),
    "ppm": ("PPM", {}),
    "tga": ("TGA", {}),
    "qoi": ("QOI", {}),
    "pcx": ("PCX", {}),
    "sgi": ("SGI", {}),
    "ico": ("ICO", {"sizes": [(40, 40)]}),
}
LOSSY = {"jpeg", "progressive", "restarts", "tiff jpeg", "webp", "avif"}
NOISE = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)


@cache
def encode(form: str) -> bytes:
    """Encode noise; of 8 colours for GIF, which has a palette."""
    name, options = FORMS[form]
    pixels = NOISE & 128 if form == "gif" else NOISE
    Image.fromarray(pixels).save(data := io.BytesIO(), name, **options)
    return data.getvalue()


@pytest.mark.parametrize("form", FORMS)
def test_every_format_under_any_name(tmp_path, form):
    (path := tmp_path / "file.dat").write_bytes(encode(form))
    image = read_image(path)
    assert image.shape == NOISE.shape
    if form in LOSSY:
        with Image.open(path) as other:
            np.testing.assert_allclose(image.astype(int), np.asarray(other), atol=3)
    else:
        np.testing.assert_array_equal(image, NOISE & 128 if form == "gif" else NOISE)


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

    @pytest.mark.parametrize("form", FORMS)
    @settings(deadline=None, max_examples=40)
    @given(share=st.floats(0, 1, exclude_max=True))
    def test_cut_off(self, tmp_path_factory, form, share):
        data = encode(form)
        self.check(tmp_path_factory.getbasetemp(), data, data[: int(share * len(data))])

    @pytest.mark.parametrize("form", ["jpeg", "restarts"])
    @settings(deadline=None, max_examples=60)
    @given(share=st.floats(0.2, 0.95), trailing=st.binary(max_size=3))
    def test_a_jpeg_cut_off_and_closed_again(self, tmp_path_factory, form, share, trailing):
        data = encode(form)
        cut = data[: int(share * len(data))] + b"\xff\xd9" + trailing
        self.check(tmp_path_factory.getbasetemp(), data, cut)

    @settings(deadline=None)
    @given(share=st.floats(0, 1, exclude_max=True), change=st.integers(1, 255))
    def test_one_byte_changed(self, tmp_path_factory, share, change):
        data = encode("png")  # which has checksums
        damaged = bytearray(data)
        damaged[int(share * len(data))] ^= change
        self.check(tmp_path_factory.getbasetemp(), data, bytes(damaged))


class TestJpeg:
    @pytest.mark.parametrize("form", ["jpeg", "progressive", "restarts"])
    def test_half_of_it_is_refused(self, tmp_path, form):
        data = encode(form)
        (path := tmp_path / "i.jpg").write_bytes(data[: len(data) // 2] + b"\xff\xd9")
        with pytest.raises(DatasetError, match=r"i\.jpg \(JPEG: it ends early"):
            read_image(path)

    def test_a_progressive_file_that_ends_within_a_later_scan_is_refused(self, tmp_path):
        """Later scans refine details; the mean of each block is in the first one."""
        data, path = encode("progressive"), tmp_path / "i.jpg"
        starts = [match.start() for match in re.finditer(b"\xff\xda", data)]
        assert len(starts) == 10
        for start, stop in itertools.pairwise([*starts[1:], len(data)]):
            # Half of the way, one scan is over: what follows it is a table of the next one.
            path.write_bytes(data[: (2 * start + stop) // 3] + b"\xff\xd9")
            with pytest.raises(DatasetError, match=r"i\.jpg \(JPEG: "):
                read_image(path)

    @pytest.mark.parametrize("blocks", [4, 32])
    @pytest.mark.parametrize("progressive", [False, True])
    def test_a_file_that_ends_at_a_restart_is_refused(self, blocks, progressive):
        """The markers have the numbers 0 to 7 again and again."""
        pixels = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
        options = {"restart_marker_blocks": blocks, "progressive": progressive}
        Image.fromarray(pixels).save(data := io.BytesIO(), "JPEG", **options)
        data = data.getvalue()
        first_scan = b"\xff\xda".join(data.split(b"\xff\xda")[:2])
        restarts = [match.start() for match in re.finditer(b"\xff[\xd0-\xd7]", first_scan)]
        assert len(restarts) == 64 // blocks - 1
        for place in restarts:
            for length in (place, place + 2):
                assert not is_complete(data[:length] + b"\xff\xd9")

    @pytest.mark.parametrize("code", range(0xC0, 0xD0))
    def test_only_sequential_and_progressive_huffman_coding_is_filled(self, code):
        """Table B.1 of ITU-T T.81; DHT, JPG and DAC (C4, C8, CC) begin no frame."""
        data = encode("jpeg")
        place = data.index(b"\xff\xc0") + 1
        filled = with_filling(data[:place] + bytes([code]) + data[place + 1 :])
        assert (filled is not None) == (code in {0xC0, 0xC1, 0xC2, 0xC4, 0xC8, 0xCC})

    @pytest.mark.parametrize(("blocks", "due"), [(0, 0), (16, 3), (4, 7), (2, 7)])
    def test_the_filling_has_the_restart_that_is_due(self, blocks, due):
        """Of 64 blocks; each scan begins with restart 0 (ITU-T T.81, section F.1.1.5.2)."""
        grey = Image.fromarray(np.zeros((64, 64), np.uint8))
        grey.save(
            data := io.BytesIO(), "JPEG", **({"restart_marker_blocks": blocks} if blocks else {})
        )
        filled = with_filling(data.getvalue())
        assert filled.endswith(FILLING + bytes([0xFF, 0xD0 + due]) + FILLING + b"\xff\xd9")

    def test_zeros_in_place_of_the_rest_are_refused(self, tmp_path):
        data = encode("jpeg")
        (path := tmp_path / "i.jpg").write_bytes(data[: len(data) // 2] + bytes(2 * len(data)))
        with pytest.raises(DatasetError, match="ends before the marker of the image's end"):
            read_image(path)

    @pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
    @pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}])
    @pytest.mark.parametrize("size", [(1, 1), (17, 9), (64, 33)])
    def test_complete_ones_of_any_kind_are_complete(self, options, mode, size):
        noise = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(noise).convert(mode).save(data := io.BytesIO(), "JPEG", **options)
        assert is_complete(data.getvalue())
        assert is_complete(data.getvalue() + b"behind the end")

    @pytest.mark.parametrize("form", ["jpeg", "progressive", "restarts"])
    @pytest.mark.parametrize("fill", [b"\xff", b"\xff" * 5])
    def test_fill_bytes_may_precede_every_marker(self, tmp_path, form, fill):
        """As in section B.1.1.2 of ITU-T T.81."""
        data = encode(form)
        scan = data.index(b"\xff\xda")
        filled = data[:scan] + re.sub(rb"\xff(?=[^\0])", fill + b"\xff", data[scan:])
        (tmp_path / "plain.jpg").write_bytes(data)
        (path := tmp_path / "i.jpg").write_bytes(filled)
        np.testing.assert_array_equal(read_image(path), read_image(tmp_path / "plain.jpg"))
        path.write_bytes(filled[: len(filled) // 2] + fill + b"\xff\xd9")
        with pytest.raises(DatasetError, match="JPEG: it ends early"):
            read_image(path)

    def test_a_preview_with_an_end_of_its_own(self, tmp_path):
        exif = Image.Exif()
        exif[0x9286] = encode("jpeg")  # a tag that may hold anything
        path = save(tmp_path / "i.jpg", IMAGE, quality=95, exif=exif)
        assert path.read_bytes().count(b"\xff\xd9") == 2
        plain = save(tmp_path / "plain.jpg", IMAGE, quality=95)
        np.testing.assert_array_equal(read_image(path), read_image(plain))

    def test_a_preview_directly_at_the_beginning(self):
        """Cameras write it into the first segment."""
        preview, data = encode("restarts"), encode("jpeg")
        segment = b"\xff\xe1" + (2 + len(preview)).to_bytes(2, "big") + preview
        camera = data[:2] + segment + data[2:]
        assert is_complete(camera)
        assert not is_complete(camera[: -len(data) // 4] + b"\xff\xd9")

    def test_no_decoder_warns(self, tmp_path, capfd):
        (path := tmp_path / "i.jpg").write_bytes(encode("jpeg"))
        read_image(path)
        assert capfd.readouterr() == ("", "")


class TestSize:
    def test_the_declared_size_is_refused_before_decoding(self, tmp_path, monkeypatch):
        path = save(tmp_path / "i.png", np.zeros((1000, 3000), np.uint8))
        monkeypatch.setattr(cv2, "imdecode", lambda *a: pytest.fail("decoded"))
        with pytest.raises(DatasetError) as caught:
            read_image(path, Decoding(max_megapixels=2.9))
        assert str(caught.value) == (
            "expected an image of at most 2.9 megapixels, found 3000x1000 (3 megapixels): "
            f"{path} (--max_megapixels)"
        )

    @pytest.mark.parametrize("ending", ["pfm", "hdr", "tif", "jp2", "png"])
    def test_in_every_format(self, tmp_path, ending):
        dtype = np.float32 if ending in ("pfm", "hdr", "tif") else np.uint8
        path = write_image(tmp_path / f"i.{ending}", np.zeros((100, 200, 3), dtype))
        with pytest.raises(DatasetError, match=r"found 200x100 .*--max_megapixels"):
            read_image(path, Decoding(max_megapixels=0.0199))

    def test_the_limit_itself_is_allowed(self, tmp_path):
        path = save(tmp_path / "i.png", np.zeros((100, 200), np.uint8))
        assert read_image(path, Decoding(max_megapixels=0.02)).shape == (100, 200, 3)

    def test_more_pixels_than_pillows_own_limit(self, tmp_path):
        header = b"IHDR" + struct.pack(">II", 33_000, 33_000) + b"\x08\0\0\0\0"
        data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header
        data += struct.pack(">I", zlib.crc32(header)) + struct.pack(">I", 0) + b"IDAT"
        (path := tmp_path / "i.png").write_bytes(data)
        with pytest.raises(DatasetError, match=r"found 33000x33000 \(1089 megapixels\)"):
            read_image(path)

    def test_a_side_that_opencv_does_not_decode(self, tmp_path):
        strip = np.arange(2 * 1_100_000, dtype=np.uint8).reshape(2, -1)
        image = read_image(save(tmp_path / "i.png", strip))
        assert image.shape == (2, 1_100_000, 3)
        np.testing.assert_array_equal(image[:, :, 1], strip)


def fits(**scaling: str) -> bytes:
    """Return a FITS file of 20x30 zeros of 16 bits, with more cards."""
    cards = {"SIMPLE": "T", "BITPIX": 16, "NAXIS": 2, "NAXIS1": 30, "NAXIS2": 20}
    cards |= {f"CARD{number}": number for number in range(20)} | scaling
    header = "".join(f"{name:8}= {value:>20}".ljust(80) for name, value in cards.items())
    return f"{header}{'END':80}".ljust(2880).encode() + bytes(2880)


class TestTrueReason:
    @pytest.mark.parametrize(
        ("data", "reason"),
        [
            (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC is not supported by this Pillow"),
            (b"\xff\x0a" + bytes(99), "JPEG XL is not supported"),
            (bytes(128) + b"DICM" + bytes(99), "DICOM is not supported"),
            (b"\x89PNG\r\n\x1a\n" + bytes(99), "PNG: damaged, or not supported by this Pillow"),
            (b"P5\n" + b"1" * 99 + b" 1 255\n\0", "PNM: .*[Tt]oo long"),  # as Pillow says it
            (b"hello", "no known image format"),
            # Beginnings like those of formats that have their own pattern of a size.
            (b"PF\n640 480\n", "no known image format"),
            (fits(BZERO="32768.0"), "FITS with BZERO or BSCALE, which Pillow ignores: convert"),
            (fits(BSCALE="0.5", BZERO="0"), "FITS with BZERO or BSCALE"),
            (b"Pf 12 34 x", "no known image format"),
            (b"P7\nx\nWIDTH 3\nHEIGHT 4\n", "no known image format"),
            (b"#?x\n-Y 3 +X 4\n", "no known image format"),
            (b"PF\n5 4\n-1.0\n", "PFM: damaged, or not supported by this Pillow and OpenCV"),
            (b"PF\n" + b"9" * 200 + b" " + b"9" * 200 + b"\n-1.0\n", "an impossible size"),
            (b"#?RGBE\n\n-Y 0 +X 4\n", "an impossible size"),
        ],
    )
    def test_of_files_that_cannot_be_decoded(self, tmp_path, data, reason):
        (path := tmp_path / "i.png").write_bytes(data)
        with pytest.raises(DatasetError, match=f"damaged or unknown file: .*{reason}"):
            read_image(path)

    @pytest.mark.parametrize("ending", ["pfm", "hdr", "pam", "ras", "pgm", "jp2", "tiff", "bmp"])
    def test_of_every_beginning(self, tmp_path, ending):
        write_image(path := tmp_path / f"i.{ending}", NOISE[:, :, 0])
        data = path.read_bytes()
        for length in range(0, 120, 2):
            path.write_bytes(data[:length])
            assert bytes_to_read(path) >= 0
            with pytest.raises(DatasetError, match="found a damaged or unknown file"):
                read_image(path)

    @pytest.mark.parametrize("width", [-5.0, 0.0, 1e300])
    def test_of_a_tiff_with_an_impossible_size(self, tmp_path, width):
        data = save(tmp_path / "i.tif", GREY, tiffinfo={65000: 1.5}).read_bytes()
        double = struct.pack("<HHI", 65000, 12, 1)
        entry, size = data.index(double), data.index(struct.pack("<HH", 256, 4))
        data = data.replace(struct.pack("<d", 1.5), struct.pack("<d", width))
        data = (
            data[:size] + struct.pack("<H", 256) + data[entry + 2 : entry + 12] + data[size + 12 :]
        )
        (tmp_path / "i.tif").write_bytes(data)
        with pytest.raises(DatasetError, match=r"TIFF: it declares an impossible size"):
            read_image(tmp_path / "i.tif")

    def test_the_preview_in_raw_data_is_no_image(self, tmp_path):
        path = save(tmp_path / "i.dng", IMAGE, format="TIFF", tiffinfo={254: 1})
        with pytest.raises(DatasetError, match="raw data of a camera"):
            read_image(path)


@pytest.mark.parametrize("form", ["TIFF", "GIF", "PNG", "WEBP"])
def test_of_several_pages_the_first_is_read_and_noted(tmp_path, form):
    first, *others = (Image.fromarray(IMAGE // part) for part in (1, 2, 3))
    details = {"lossless": True} if form == "WEBP" else {}
    first.save(path := tmp_path / "i", form, save_all=True, append_images=others, **details)
    notes = Notes()
    for _ in range(2):
        np.testing.assert_array_equal(read_image(path, notes=notes), IMAGE)
    assert notes.all() == [Note("only the first of 3 pages is read", 1, str(path))]


class TestDepth:
    VALUES = np.random.default_rng(0).integers(0, 4096, (20, 30, 3), dtype=np.uint16)
    BITS_12 = Decoding(value_range=ValueRange.of_bits(12))

    @pytest.mark.parametrize("ending", ["png", "tif", "ppm"])
    @pytest.mark.parametrize("bits", [8, 10, 12, 14])
    def test_the_upper_8_of_the_real_bits_are_kept(self, tmp_path, ending, bits):
        values = self.VALUES & (2**bits - 1)
        path = write_image(tmp_path / f"i.{ending}", values)
        image = read_image(path, Decoding(value_range=ValueRange.of_bits(bits)))
        np.testing.assert_array_equal(image, values >> (bits - 8))

    @pytest.mark.parametrize(
        ("name", "channels"),
        [(f"i.{ending}", number) for ending in ("png", "tif", "jp2") for number in (1, 3)]
        + [("i.pgm", 1), ("i.ppm", 3)],
    )
    def test_the_upper_8_of_16_bits_are_kept_in_every_format(self, tmp_path, name, channels):
        values = np.random.default_rng(0).integers(0, 65536, (64, 96, 3), dtype=np.uint16)
        path = write_image(tmp_path / name, values[:, :, 0] if channels == 1 else values)
        # JPEG 2000 is lossy.
        stored = cv2.imread(str(path), cv2.IMREAD_UNCHANGED).reshape(64, 96, channels)[:, :, ::-1]
        for value_range in (None, ValueRange.of_bits(16)):
            image = read_image(path, Decoding(value_range=value_range))
            np.testing.assert_array_equal(image, np.broadcast_to(stored >> 8, image.shape))

    def test_of_a_jpeg_2000_file_with_other_data_first(self, tmp_path):
        """They hide what the file says about its depth."""
        path = write_image(tmp_path / "i.jp2", self.VALUES.reshape(40, 45))
        expected, data = read_image(path, self.BITS_12), path.read_bytes()
        path.write_bytes(data[:32] + struct.pack(">I4s992x", 1000, b"free") + data[32:])
        np.testing.assert_array_equal(read_image(path, self.BITS_12), expected)

    def test_of_a_format_that_opencv_does_not_read(self, tmp_path):
        values = self.VALUES[:, :, 0]
        cards = [
            "SIMPLE  = T",
            "BITPIX  = 16",
            "NAXIS   = 2",
            "NAXIS1  = 30",
            "NAXIS2  = 20",
            "END",
        ]
        header = "".join(f"{card:80}" for card in cards)
        data = f"{header:2880}".encode() + values[::-1].astype(">u2").tobytes()  # from the bottom
        (path := tmp_path / "i.fits").write_bytes(data)
        np.testing.assert_array_equal(read_image(path, self.BITS_12), _colours(values >> 4))

    def test_of_a_fits_file_without_an_offset_and_a_scale(self, tmp_path):
        (path := tmp_path / "i.fits").write_bytes(fits(BZERO="0", BSCALE="1.000"))
        assert read_image(path).shape == (20, 30, 3)

    def test_the_values_of_a_fits_file_are_no_cards(self, tmp_path):
        """The card END is the last one of its block: no spaces separate it from the values."""
        data = fits(**{f"MORE{number}": "1" for number in range(10)})
        assert data[35 * 80 : 2880] == b"END".ljust(80)
        values = b"BZERO   =                  5".ljust(20 * 30 * 2)
        (path := tmp_path / "i.fits").write_bytes(data[:2880] + values)
        assert read_image(path).shape == (20, 30, 3)

    def test_values_beyond_the_range_are_clipped_and_noted(self, tmp_path):
        path = write_image(tmp_path / "i.png", self.VALUES)
        notes = Notes()
        image = read_image(path, Decoding(value_range=ValueRange.of_bits(10)), notes)
        np.testing.assert_array_equal(image, np.minimum(self.VALUES >> 2, 255))
        (note,) = notes.all()
        assert "range of the training images, 10 bits; clipped to it (--bit_depth" in note.reason

    def test_16_bits_in_a_range_of_floats(self):
        values = np.array([0, 500, 1000, 2000], np.uint16)
        found = ValueRange(0, 1000, is_float=True).to_8_bits(values)
        assert found.tolist() == [0, 128, 255, 255]

    def test_8_bits_among_more_are_used_as_they_are(self, tmp_path):
        notes = Notes()
        path = save(tmp_path / "i.png", IMAGE)
        np.testing.assert_array_equal(read_image(path, self.BITS_12, notes), IMAGE)
        assert [note.reason for note in notes.all()] == [OTHER_DEPTH]

    def test_16_bits_where_training_images_have_8_are_noted(self, tmp_path):
        notes = Notes()
        read_image(write_image(tmp_path / "i.png", self.VALUES), notes=notes)
        assert [note.reason for note in notes.all()] == [UNKNOWN_DEPTH]

    @pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32])
    @pytest.mark.parametrize("channels", [1, 3])
    def test_numbers_without_a_depth_are_mapped_by_their_range(self, tmp_path, dtype, channels):
        values = np.linspace(-1000, 3000, 600 * channels).reshape(20, 30, channels).astype(dtype)
        stored = values[:, :, ::-1] if channels == 3 else values[:, :, 0]
        cv2.imwrite(str(path := tmp_path / "i.tiff"), stored)
        image = read_image(path, Decoding(value_range=ValueRange(-1000, 3000, is_float=True)))
        expected = np.clip(np.floor((values.astype(float) + 1000) / 4000 * 256), 0, 255)
        np.testing.assert_array_equal(image, np.broadcast_to(expected, image.shape))

    def test_zstd_and_floats(self, tmp_path):
        values = np.linspace(0, 1, 600, dtype=np.float32).reshape(20, 30)
        path = save(tmp_path / "i.tiff", values, compression="zstd")
        image = read_image(path, Decoding(value_range=ValueRange(0, 1, is_float=True)))
        np.testing.assert_array_equal(image[:, :, 1], np.clip(np.floor(values * 256), 0, 255))

    @pytest.mark.parametrize("value_range", [None, ValueRange.of_bits(12)])
    def test_floats_without_a_range_are_refused(self, tmp_path, value_range):
        path = write_image(tmp_path / "i.tiff", np.full((4, 4), 0.5, np.float32))
        with pytest.raises(DatasetError, match=r"(of|like) the training images"):
            read_image(path, Decoding(value_range=value_range))

    def test_values_that_are_not_finite_are_refused(self, tmp_path):
        path = write_image(tmp_path / "i.tiff", np.array([[0.5, np.nan]], np.float32))
        with pytest.raises(DatasetError, match="values that are not finite"):
            read_image(path, Decoding(value_range=ValueRange(0, 1, is_float=True)))


class TestDecoders:
    """What Pillow decodes where OpenCV does not, and what no decoder should give."""

    DEEP = IMAGE.astype(np.uint16) * 256

    @pytest.fixture(params=["nothing", "an error"])
    def without_opencv(self, monkeypatch, request):
        result = (
            {"return_value": None} if request.param == "nothing" else {"side_effect": cv2.error}
        )
        monkeypatch.setattr(cv2, "imdecode", mock.Mock(**result))

    def test_pillow_reads_the_rest(self, tmp_path, without_opencv):
        np.testing.assert_array_equal(read_image(save(tmp_path / "i.png", IMAGE)), IMAGE)

    def test_colours_of_which_pillow_drops_bits_are_refused(self, tmp_path, without_opencv):
        path = write_image(tmp_path / "i.png", self.DEEP)
        with pytest.raises(
            DatasetError, match=r"i\.png \(PNG of more than 8 bits, of which neither"
        ):
            read_image(path)

    def test_more_bits_than_the_header_says_are_refused(self, tmp_path, without_opencv):
        file = ImageFile(
            write_image(tmp_path / "i.png", self.DEEP[:, :, 0]), "an image", Decoding()
        )
        file.header = replace(file.header, is_deep=False)
        with pytest.raises(DatasetError, match=r"i\.png \(uint16 values where the header says 8"):
            file.rgb()

    def test_fewer_bits_than_the_header_says_are_used_as_they_are(self, tmp_path, monkeypatch):
        monkeypatch.setattr(cv2, "imdecode", lambda *_: IMAGE[:, :, ::-1])
        notes = Notes()
        path = write_image(tmp_path / "i.png", self.DEEP)
        np.testing.assert_array_equal(read_image(path, notes=notes), IMAGE)
        assert notes.all() == []


@pytest.mark.parametrize("scale", ["1.0", "+1.0", "+.1e1", "1e0"])
def test_a_pfm_file_with_a_scale_in_any_form(tmp_path, scale):
    data = b"Pf\n3 1\n" + scale.encode() + b"\n" + np.array([0, 0.25, 0.5], ">f4").tobytes()
    (path := tmp_path / "i.pfm").write_bytes(data)
    image = read_image(path, Decoding(value_range=ValueRange(0, 1, is_float=True)))
    assert image[0, :, 0].tolist() == [0, 64, 128]


class TestValueRange:
    @pytest.mark.parametrize(("low", "high"), [(1, 1), (2, 1), (0, np.inf), (np.nan, 1)])
    def test_a_record_of_no_range(self, low, high):
        record = {"low": low, "high": high, "is_float": True}
        with pytest.raises(ValueError, match=f"expected a range of values, found {low:g} to"):
            ValueRange.from_json(record)

    @pytest.mark.parametrize(
        ("value_range", "text", "low", "high"),
        [
            (ValueRange.of_bits(12), "12 bits", 0, 4095),
            (ValueRange(-1.5, 3000, is_float=True), "-1.5 to 3000", -1.5, 3000),
        ],
    )
    def test_both_ends_are_in_the_range(self, value_range, text, low, high):
        assert str(value_range) == text
        assert not value_range.clips(np.array([low, high]))
        assert value_range.clips(np.array([low - 1, high]))
        assert value_range.clips(np.array([low, high + 1]))
        assert ValueRange.from_json(value_range.as_json()) == value_range

    @pytest.mark.parametrize("value", [-7.5, 0, 1e6, 1e17, -1e38])
    def test_constant_images_without_a_depth_are_black(self, value):
        finder, values = RangeFinder(), np.full((2, 3), value, np.float32)
        finder.add(Path("i.tif"), values)
        found = finder.range()
        assert ValueRange.from_json(found.as_json()) == found
        assert not found.to_8_bits(values).any()
        if abs(value) < 2**24:  # above, the sum is rounded
            assert (found.low, found.high) == (value, value + 1)

    def test_8_bits_do_not_count(self):
        finder = RangeFinder()
        finder.add(Path("i.png"), IMAGE)
        assert finder.range() is None
        finder.add(Path("j.png"), np.full((2, 2), 1000, np.uint16))
        assert finder.range() == ValueRange.of_bits(10)


@pytest.mark.parametrize("following", [0, 2**64 - 1])
def test_a_tiff_with_64_bit_offsets(tmp_path, following):
    """The second page of a damaged one counts; the first one is read nevertheless."""
    data = bytearray(save(tmp_path / "i.tif", IMAGE, big_tiff=True).read_bytes())
    place = struct.unpack_from("<Q", data, 8)[0]
    place += 8 + 20 * struct.unpack_from("<Q", data, place)[0]
    assert struct.unpack_from("<Q", data, place) == (0,)
    struct.pack_into("<Q", data, place, following)
    (path := tmp_path / "j.tif").write_bytes(data)
    notes = Notes()
    np.testing.assert_array_equal(read_image(path, notes=notes), IMAGE)
    assert [note.reason for note in notes.all()] == (
        ["only the first of 2 pages is read"] if following else []
    )


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_in_every_format(tmp_path, form, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    save(path := tmp_path / "i", IMAGE, format=form, exif=exif.tobytes(), quality=95)
    with Image.open(path) as stored:
        upright = np.asarray(ImageOps.exif_transpose(stored))
    np.testing.assert_allclose(read_image(path).astype(int), upright, atol=3)


@pytest.mark.parametrize("name", ["i.png", "i.jpg", "i.bmp", "i.tif", "i.webp"])
@pytest.mark.parametrize("channels", [1, 3])
def test_usual_formats_need_no_pillow(tmp_path, monkeypatch, name, channels):
    """The decoders of JPEG give values that differ."""
    path = save(tmp_path / name, IMAGE if channels == 3 else GREY, quality=95)
    monkeypatch.setattr(ImageFile, "_by_pillow", mock.Mock(side_effect=AssertionError))
    assert read_image(path).shape == IMAGE.shape
    assert read_mask(path).shape == GREY.shape


def test_more_bits_need_more_memory(tmp_path):
    path = save(tmp_path / "i.png", IMAGE)
    deep = write_image(tmp_path / "deep.png", GREY.astype(np.uint16))
    assert bytes_to_read(path) == GREY.size * BYTES_PER_PIXEL
    assert bytes_to_read(deep) == GREY.size * BYTES_PER_DEEP_PIXEL
    path.write_bytes(b"damaged")
    assert bytes_to_read(path) == 0


def test_the_name_of_a_sample_is_the_stem_of_its_file_unless_it_has_one():
    assert Sample(Path("a/b.c.png"), "x", "good").name == "b.c"
    assert Sample(Path("a/b.c.png"), "x", "good", name="d").name == "d"


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
