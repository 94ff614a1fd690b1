"""What headers say: depth by the specifications of the formats, and defaults of tags left out."""

import io
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace

import cv2
import numpy as np
import pytest
from PIL import Image

from datasets.header import OPENCV, PILLOW, Header, HeaderError, read_header
from tests.datasets.test_tiff import noise, write_tiff
from tests.support import ROOT


def header_of(data: bytes) -> Header:
    return read_header(io.BytesIO(data))


@pytest.mark.parametrize(("largest", "is_deep"), [(1, False), (255, False), (256, True)])
@pytest.mark.parametrize("comment", [b"", b"# a comment\n"])
def test_values_of_pnm_above_255_have_two_bytes(largest, is_deep, comment):
    data = b"P5\n%b2 1\n%d\n" % (comment, largest) + bytes(4)
    assert header_of(data).is_deep == is_deep


@pytest.mark.parametrize(
    ("dtype", "depth", "is_deep"),
    [
        (np.uint8, 7, False),
        (np.uint16, 11, False),
        (np.uint16, 15, True),
        (np.uint16, 128 + 15, True),
    ],
)
def test_the_depth_of_jpeg_2000_is_that_of_its_first_bytes(dtype, depth, is_deep):
    """Decoders scale 12 bits to 8, and not 16. One byte states the depth, less 1, and the sign.

    It is 40 bytes behind the marker SIZ; 600 bytes are read.
    """
    data = bytearray(cv2.imencode(".jp2", np.ones((40, 45), dtype))[1].tobytes())
    marker = data.index(b"\xff\x51")
    data[marker + 40] = depth
    assert header_of(data).is_deep == is_deep
    last = 599 - 40 - marker
    for length in range(last - 3, last + 3):  # of other data
        moved = data[:32] + length.to_bytes(4, "big") + b"free" + bytes(length - 8) + data[32:]
        assert header_of(moved).is_deep == (is_deep if length <= last else dtype == np.uint16)


@pytest.mark.parametrize(
    ("values", "bits", "expected"),
    [
        (noise(1, 1), 1, Header("TIFF", 8, 6)),
        (noise(8, 1), 8, Header("TIFF", 8, 6)),
        *((noise(bits, 1), bits, Header("TIFF", 8, 6, True, bits)) for bits in (9, 10, 12, 16)),
        (noise(12, 1).astype(np.float32), 32, Header("TIFF", 8, 6, True, 16)),
    ],
)
def test_bits_of_tiff(tmp_path, values, bits, expected):
    tags = {"t339": 3} if values.dtype.kind == "f" else {}
    found = header_of(write_tiff(tmp_path / "i.tif", values, bits, **tags).read_bytes())
    assert replace(found, bits=expected.bits) == expected
    assert found.bits == expected.bits or not found.is_deep


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("tag", [254, 274, 277, 284, 339])
def test_tags_with_a_default_may_be_left_out(tmp_path, bits, tag):
    """As in TIFF 6.0: one sample, no planes, unsigned integers, upright, no preview."""
    channels = 1 if tag == 277 else 3
    path = write_tiff(tmp_path / "i.tif", noise(bits, channels), bits, **{f"t{tag}": None})
    expected = Header("TIFF", 8, 6, bits == 16, bits, decoders=(OPENCV, PILLOW))
    assert header_of(path.read_bytes()) == expected


@pytest.mark.parametrize("side", [0, 1, 9, 2**32 - 1, 2**32])
def test_sizes(side):
    """One pixel is an image; no format can state a side of 2**32."""
    for size in ((side, 9), (9, side)):
        is_possible = 0 < side < 2**32
        with nullcontext() if is_possible else pytest.raises(HeaderError, match="impossible size"):
            Header("PNG", *size)


@pytest.mark.parametrize(("value", "expected"), [(0, 1), (1, 1), (8, 8), (9, 1), (60000, 1)])
@pytest.mark.parametrize("form", ["JPEG", "TIFF"])
def test_an_orientation_that_exif_does_not_define_is_upright(form, value, expected):
    exif = Image.Exif()
    exif[274] = value
    Image.new("RGB", (8, 6)).save(data := io.BytesIO(), form, exif=exif.tobytes())
    assert header_of(data.getvalue()).orientation == expected


def test_the_first_file_that_a_program_reads_may_be_in_any_format():
    """Pillow loads its decoders of usual formats first, and all others when it is asked to."""
    Image.new("RGB", (8, 6)).save(data := io.BytesIO(), "SGI")
    code = f"""
import io
from datasets.header import read_header
print(read_header(io.BytesIO({data.getvalue()!r})).width)
"""
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT) == b"8\n"


@pytest.mark.parametrize("count", [1, 2, 6])
def test_pages_of_tiff_that_lie_anywhere(tmp_path, count):
    """Each page has the tags of the first one; it leads to the page that lies before it."""
    data = write_tiff(tmp_path / "i.tif", noise(8, 3), 8).read_bytes()
    end = 8 + 2 + 12 * int.from_bytes(data[8:10], "little")
    tags, following = data[8:end], 0
    for _ in range(1, count):
        data += bytes(100)
        place = len(data)
        data += tags + following.to_bytes(4, "little")
        following = place
    data = data[:end] + following.to_bytes(4, "little") + data[end + 4 :]
    assert header_of(data).pages == count


@pytest.mark.parametrize(
    ("tags", "is_preview"),
    [({"t254": 1}, True), ({"t254": 2}, False), ({"t254": 3}, True), ({"t50706": 1}, True)],
)
def test_previews_in_raw_data_are_refused(tmp_path, tags, is_preview):
    """Bit 0 of NewSubfileType marks them, and the version of DNG; bit 1 marks one of many pages."""
    data = write_tiff(tmp_path / "i.tif", noise(8, 3), 8, **tags).read_bytes()
    with pytest.raises(HeaderError, match="raw data") if is_preview else nullcontext():
        header_of(data)


def test_a_tiff_without_its_bits_has_one(tmp_path):
    path = write_tiff(tmp_path / "i.tif", noise(1, 1), 1, t258=None)
    assert header_of(path.read_bytes()) == Header("TIFF", 8, 6, bits=1)
