"""Formats are told by content: files of real encoders, under names that say something else."""

import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from datasets.content import (
    HEAD_BYTES,
    IMAGE,
    OTHER,
    VIDEO,
    Format,
    format_of,
    is_archive,
    kind_of,
)
from datasets.header import HeaderError, read_header
from tests.support import ROOT

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)
# By the names that Pillow gives to its encoders.
ENCODERS = {
    "PNG": "PNG",
    "JPEG": "JPEG",
    "GIF": "GIF",
    "BMP": "BMP",
    "TIFF": "TIFF",
    "WEBP": "WebP",
    "JPEG2000": "JPEG 2000",
    "AVIF": "AVIF",
    "PPM": "PNM",
    "TGA": "TGA",
    "ICO": "ICO",
    "PCX": "PCX",
    "SGI": "SGI",
    "DDS": "DDS",
}


def encode(form: str, pixels: np.ndarray = PIXELS, **details) -> bytes:
    Image.fromarray(pixels).save(data := io.BytesIO(), form, **details)
    return data.getvalue()


def box(kind: bytes, content: bytes) -> bytes:
    return (8 + len(content)).to_bytes(4, "big") + kind + content


def brands(main: bytes, *others: bytes) -> bytes:
    return box(b"ftyp", main + bytes(4) + b"".join(others)) + box(b"mdat", bytes(99))


@pytest.fixture
def check(tmp_path):
    def check(data: bytes, kind: str, name: str = "") -> None:
        (path := tmp_path / "file.txt").write_bytes(data)
        assert kind_of(path) == kind
        assert format_of(path) == (None if kind == OTHER else Format(name, kind))

    return check


@pytest.mark.parametrize(("form", "name"), ENCODERS.items())
def test_images_that_pillow_writes(check, form, name):
    check(encode(form), IMAGE, name)
    header = read_header(io.BytesIO(encode(form)))
    assert (header.format, header.pages, header.orientation) == (name, 1, 1)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (encode("JPEG2000", no_jp2=True), "JPEG 2000"),
        (encode("TIFF", big_tiff=True), "TIFF"),
        (encode("PPM", PIXELS[:, :, 0]), "PNM"),
        (encode("PPM", PIXELS[:, :, 0] > 128), "PNM"),
        (b"P2\n# made by hand\n2 1\n255\n0 9\n", "PNM"),
        (b"P7\nWIDTH 2\nHEIGHT 1\nDEPTH 1\nMAXVAL 255\nTUPLTYPE GRAYSCALE\nENDHDR\n12", "PNM"),
        (b"II*\0", "TIFF"),
        (b"MM\0*", "TIFF"),
        (brands(b"heic", b"mif1", b"heic"), "HEIC"),
        (brands(b"mif1", b"mif1", b"heic"), "HEIC"),
        (brands(b"mif1", b"avif", b"miaf"), "AVIF"),
        (brands(b"mif1", b"mif1", b"avif", b"miaf"), "AVIF"),
        (box(b"ftyp", b"mif1\0\0\0\0heic") + box(b"avif", b""), "HEIC"),
        (brands(b"avis"), "AVIF"),
        (brands(b"crx ", b"isom"), "CR3"),
        (b"\xff\x0a" + bytes(30), "JPEG XL"),
        (b"v/1\x01" + bytes(30), "OpenEXR"),
        (bytes(128) + b"DICM" + bytes(30), "DICOM"),
        (cv2.imencode(".hdr", np.ones((4, 4, 3), np.float32))[1].tobytes(), "Radiance HDR"),
        (cv2.imencode(".pfm", np.ones((4, 4, 3), np.float32))[1].tobytes(), "PFM"),
        (cv2.imencode(".ras", PIXELS)[1].tobytes(), "Sun raster"),
    ],
)
def test_other_forms_of_images(check, data, name):
    check(data, IMAGE, name)


@pytest.mark.parametrize("form", ["zip", "tar", "gztar", "bztar", "xztar", "7z", "rar"])
def test_archives(tmp_path, form):
    marks = {"7z": b"7z\xbc\xaf\x27\x1c\0\x04", "rar": b"Rar!\x1a\x07\x01\0"}
    (tmp_path / "a.png").write_bytes(encode("PNG"))
    data = (
        marks.get(form)
        or Path(shutil.make_archive(tmp_path.parent / "made", form, tmp_path)).read_bytes()
    )
    assert is_archive(data[:HEAD_BYTES])
    with pytest.raises(HeaderError, match="an archive, or compressed: unpack it"):
        read_header(io.BytesIO(data))


@pytest.mark.parametrize("data", [b"", b"PK", b"PKZIP makes archives", b"BZhang", encode("PNG")])
def test_no_archives(data):
    assert not is_archive(data)


@pytest.mark.parametrize(
    ("ending", "codec", "name"),
    [
        ("mp4", "mp4v", "MP4"),
        ("mov", "mp4v", "QuickTime"),
        ("m4v", "mp4v", "MP4"),
        ("3gp", "mp4v", "MP4"),
        ("avi", "MJPG", "AVI"),
        ("mkv", "mp4v", "Matroska or WebM"),
        ("webm", "VP80", "Matroska or WebM"),
        ("wmv", "WMV2", "ASF or WMV"),
        ("mpg", "mpg1", "MPEG"),
        ("ts", "mpg2", "MPEG transport stream"),
        ("flv", "FLV1", "Flash video"),
    ],
)
def test_videos_that_opencv_writes(check, tmp_path, ending, codec, name):
    path = tmp_path / f"film.{ending}"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), 25, (48, 40))
    assert writer.isOpened()
    for _ in range(8):
        writer.write(PIXELS)
    writer.release()
    check(path.read_bytes(), VIDEO, name)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"".join(bytes(4) + b"\x47" + bytes(187) for _ in range(4)), "MPEG transport stream"),
        (b"\0\0\x01\xb3" + bytes(30), "MPEG"),
        (box(b"wide", b"") + box(b"mdat", bytes(99)), "QuickTime"),
        (box(b"mdat", bytes(99)), "QuickTime"),
        (box(b"moov", bytes(99)), "QuickTime"),
        (b"OggS" + bytes(24) + b"\x80theora" + bytes(30), "Ogg Theora"),
        (brands(b"isom", b"avc1"), "MP4"),
        (brands(b"3gp4"), "MP4"),
        (brands(b"mp42", b"avif"), "MP4"),
        (box(b"ftyp", b"isom"), "MP4"),
        (brands(b"M4V "), "MP4"),
    ],
)
def test_other_forms_of_videos(check, data, name):
    check(data, VIDEO, name)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"B",
        b"BMW is a car, and so is this line",
        b"The free software",
        b"P1 is the first part of this report",
        b"II*",
        b"RIFF\x24\0\0\0WAVEfmt ",
        b"ID3\x04" + bytes(99),
        b"OggS" + bytes(24) + b"\x01vorbis" + bytes(30),
        b"G is no transport stream" * 40,
        b"%PDF-1.7",
        b"PK\x03\x04" + bytes(99),
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"\x7fELF" + bytes(700),
        bytes(700),
        brands(b"M4A ", b"isom"),
        brands(b"    ", b"isom"),
        box(b"ftyp", b"") + b"isom",
    ],
)
def test_anything_else(check, data):
    check(data, OTHER)


def test_neither_folders_nor_pipes_are_opened(tmp_path):
    assert kind_of(tmp_path) == OTHER
    os.mkfifo(pipe := tmp_path / "pipe")
    assert kind_of(pipe) == OTHER


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        kind_of(tmp_path / "nothing")


def test_nothing_heavy_is_imported():
    heavy = "{'torch', 'cv2', 'PIL', 'numpy'} & set(sys.modules)"
    code = f"import sys, datasets.content; assert not {heavy}, {heavy}"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
