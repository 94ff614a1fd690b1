"""TIFF files of each kind of values: the same pixels whatever the compression and the decoder."""

import lzma
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.base import DatasetError
from datasets.decoding import ImageFile
from datasets.depth import Decoding, ValueRange
from datasets.images import UNKNOWN_DEPTH, find_value_range, read_image
from datasets.masks import read_mask
from datasets.notes import Notes

# OpenCV reads no LZMA.
COMPRESSIONS = {
    "none": (1, bytes),
    "deflate": (8, zlib.compress),
    "lzma": (34925, lambda data: lzma.compress(data, check=lzma.CHECK_CRC32)),
}
UNASSOCIATED = 2  # opacity that the colours are not multiplied by
REFUSED = (
    r"\(TIFF( of more than 8 bits, of which neither OpenCV nor this Pillow reads all|"
    r": damaged, or not supported by this Pillow and OpenCV)\)"
)
# Type of a value in a tag.
SHORT, LONG = (3, "H", 2), (4, "I", 4)


def write_tiff(
    path: Path,
    values: np.ndarray,
    bits: int,
    compression: str = "none",
    order: str = "<",
    planes: int = 1,
    **tags: int | None,
) -> Path:
    """Write (H, W, C) values in one strip, or in one for each of several planes.

    Tags are named by their numbers, as ``t262``; a tag that is None is left out.
    """
    height, width, channels = values.shape
    code, compress = COMPRESSIONS[compression]
    parts = [values] if planes == 1 else np.split(values, channels, axis=2)
    strips = [compress(_rows(part, bits, order)) for part in parts]
    entries = {256: [width], 257: [height], 258: [bits] * channels, 259: [code]}
    entries |= {262: [2 if channels > 2 else 1], 273: [0] * len(strips), 277: [channels]}
    entries |= {278: [height], 279: [len(strip) for strip in strips], 284: [planes]}
    entries |= {int(name[1:]): [value] for name, value in tags.items()}
    entries = {tag: found for tag, found in entries.items() if found != [None]}
    kinds = {tag: LONG if tag in (256, 257, 273, 278, 279) else SHORT for tag in entries}
    sizes = [len(entries[tag]) * kinds[tag][2] for tag in entries]
    behind = 8 + 2 + 12 * len(entries) + 4
    first = behind + sum(size for size in sizes if size > 4)
    entries[273] = [first + sum(map(len, strips[:number])) for number in range(len(strips))]
    directory, data = b"", b""
    for tag, found in sorted(entries.items()):
        kind, letter, _ = kinds[tag]
        raw = struct.pack(f"{order}{len(found)}{letter}", *found)
        if len(raw) > 4:
            raw, data = struct.pack(f"{order}I", behind + len(data)), data + raw
        directory += struct.pack(f"{order}HHI", tag, kind, len(found)) + raw.ljust(4, b"\0")
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(entries))
    path.write_bytes(head + directory + bytes(4) + data + b"".join(strips))
    return path


def _rows(values: np.ndarray, bits: int, order: str) -> bytes:
    if bits % 8 == 0:
        return values.astype(values.dtype.newbyteorder(order)).tobytes()
    single = (values[..., None] >> np.arange(bits - 1, -1, -1)) & 1
    return np.packbits(single.reshape(len(values), -1).astype(np.uint8), axis=1).tobytes()


def noise(bits: int, channels: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    dtype = np.uint8 if bits <= 8 else np.uint16
    return rng.integers(0, 2**bits, (6, 8, channels), dtype=dtype)


def of_bits(bits: int) -> Decoding:
    return Decoding(value_range=ValueRange.of_bits(bits))


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("order", ["<", ">"])
def test_16_bits_of_grey_in_every_compression(tmp_path, compression, order):
    values = noise(16, 1)
    path = write_tiff(tmp_path / "i.tif", values, 16, compression, order)
    assert find_value_range([path], Decoding()) == ValueRange.of_bits(16)
    for decoding in (of_bits(16), Decoding()):
        assert np.array_equal(read_image(path, decoding), (values >> 8).repeat(3, axis=2))


@pytest.mark.parametrize("compression", ["zstd", "lzma"])
def test_what_only_pillow_reads_is_noted_where_training_images_have_8_bits(tmp_path, compression):
    values, notes = noise(16, 1)[:, :, 0], Notes()
    Image.fromarray(values).save(path := tmp_path / "i.tif", compression=compression)
    assert np.array_equal(read_image(path, notes=notes)[:, :, 0], values >> 8)
    assert [note.reason for note in notes.all()] == [UNKNOWN_DEPTH]


def test_fits_of_16_bits(tmp_path):
    values = noise(15, 1)[:, :, 0]
    cards = ["SIMPLE  =                    T", "BITPIX  =                   16"]
    cards += ["NAXIS   =                    2", "NAXIS1  =                    8"]
    cards += ["NAXIS2  =                    6", "END"]
    header = "".join(card.ljust(80) for card in cards).ljust(2880)
    (path := tmp_path / "i.fits").write_bytes(header.encode() + values.astype(">i2").tobytes())
    for decoding in (of_bits(16), Decoding()):
        assert np.array_equal(read_image(path, decoding)[:, :, 0], values[::-1] >> 8)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("bits", [10, 12, 14])
def test_packed_bits_are_values_of_so_many_bits(tmp_path, bits, channels):
    values = noise(bits, channels)
    tags = {"t338": UNASSOCIATED} if channels == 4 else {}
    path = write_tiff(tmp_path / "i.tif", values, bits, **tags)
    twin = write_tiff(tmp_path / "twin.tif", values, 16, **tags)
    for one in (path, twin):
        assert find_value_range([one], Decoding()) == ValueRange.of_bits(bits)
        expected = (values >> (bits - 8))[:, :, [0] * 3 if channels == 1 else [0, 1, 2]]
        assert np.array_equal(read_image(one, of_bits(bits)), expected)
    assert np.array_equal(read_image(path), expected)


def test_packed_12_bits_by_either_decoder(tmp_path):
    values = noise(12, 1)
    for compression in ("none", "lzma"):
        path = write_tiff(tmp_path / "i.tif", values, 12, compression)
        found = ImageFile(path, "an image", Decoding()).values()
        assert np.array_equal(found, values[:, :, 0])


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("planes", [1, 2])
@pytest.mark.parametrize("channels", [2, 4])
def test_opacity_does_not_change_colours_of_8_bits(tmp_path, channels, planes, compression):
    if (channels, planes, compression) == (2, 2, "none"):
        return  # no decoder reads grey and opacity in planes without a compression
    values = noise(8, channels)
    path = write_tiff(tmp_path / "i.tif", values, 8, compression, planes=planes, t338=UNASSOCIATED)
    expected = values[:, :, [0, 0, 0] if channels == 2 else [0, 1, 2]]
    assert np.array_equal(read_image(path), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_of_colours_with_opacity(tmp_path, orientation):
    values = noise(8, 4)
    path = write_tiff(tmp_path / "i.tif", values, 8, t338=UNASSOCIATED, t274=orientation)
    opaque = write_tiff(tmp_path / "o.tif", values[:, :, :3], 8, t274=orientation)
    assert np.array_equal(read_image(path), read_image(opaque))


def test_opacity_does_not_change_colours_of_16_bits(tmp_path):
    values = noise(16, 4)
    path = write_tiff(tmp_path / "i.tif", values, 16, t338=UNASSOCIATED)
    for decoding in (of_bits(16), Decoding()):
        assert np.array_equal(read_image(path, decoding), values[:, :, :3] >> 8)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_cmyk_in_every_compression(tmp_path, compression):
    path = write_tiff(tmp_path / "i.tif", noise(8, 4), 8, compression, t262=5)
    with Image.open(path) as image:
        assert np.array_equal(read_image(path), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_where_0_is_white(tmp_path, bits):
    values = noise(bits, 1)
    path = write_tiff(tmp_path / "i.tif", values, bits, t262=0)
    for decoding in (of_bits(bits), Decoding()):
        found = read_image(path, decoding)[:, :, 0]
        assert np.array_equal(found, (2**bits - 1 - values[:, :, 0]) >> (bits - 8))


@pytest.mark.parametrize(
    ("values", "bits", "details"),
    [
        (noise(12, 2), 16, {"t338": UNASSOCIATED}),  # OpenCV keeps the upper 8 bits
        (noise(12, 3), 16, {"planes": 2}),  # OpenCV mixes up the planes
        (noise(12, 3), 12, {"planes": 2}),
        (noise(16, 3), 16, {"compression": "lzma"}),  # Pillow keeps the upper 8 bits
        (noise(16, 1), 16, {"t262": 3}),  # numbers of a palette
        (noise(16, 3), 16, {"t262": 8}),  # CIELAB
        (noise(10, 1), 10, {"compression": "lzma"}),
        # Pillow swaps the bytes, or reads 2**32 - 1 as -1.
        (noise(12, 1).astype(np.float32), 32, {"compression": "lzma", "order": ">", "t339": 3}),
        (noise(12, 1).astype(np.uint32), 32, {"compression": "lzma"}),
    ],
)
def test_values_that_no_decoder_reads_as_they_are_are_refused(tmp_path, values, bits, details):
    path = write_tiff(tmp_path / "i.tif", values, bits, **details)
    assert find_value_range([path], Decoding()) is None
    for read in (read_image, read_mask):
        with pytest.raises(DatasetError, match=REFUSED):
            read(path)
