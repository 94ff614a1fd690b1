"""Format of a file by its first bytes, whatever its name; nothing is decoded."""

import re
from dataclasses import dataclass
from pathlib import Path

IMAGE, VIDEO, OTHER = "image", "video", "other"
# Enough for three packets of an MPEG transport stream, which has no other mark.
HEAD_BYTES = 600
# A TGA file has no mark at its beginning; version 2 has one at its end.
TGA_END = b"TRUEVISION-XFILE.\0"


@dataclass(frozen=True)
class Format:
    """A file format.

    Attributes:
        name: Usual name, for example ``JPEG 2000``.
        kind: ``image`` or ``video``.
    """

    name: str
    kind: str


# Brands of the ISO base media file format (ISO 14496-12); all others are videos.
HEIC_BRANDS = frozenset({b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"})
AVIF_BRANDS = frozenset({b"avif", b"avis"})
AUDIO_BRANDS = frozenset({b"M4A ", b"M4B ", b"M4P ", b"F4A ", b"F4B "})

# Marks at the beginning of a file. A mark that could also begin a text includes further fields.
IMAGE_MARKS = {
    "PNG": rb"\x89PNG\r\n\x1a\n",
    "JPEG": rb"\xff\xd8\xff",
    "GIF": rb"GIF8[79]a",
    "BMP": rb"BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\0\0\0",
    "TIFF": rb"II[*+]\0|MM\0[*+]",
    "WebP": rb"RIFF....WEBP",
    "JPEG 2000": rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51",
    "JPEG XL": rb"\0\0\0\x0cJXL \r\n\x87\n|\xff\x0a",
    "PNM": rb"P[1-6]\s+[\d#]|P7\n(?:#|WIDTH|HEIGHT|DEPTH|MAXVAL|TUPLTYPE)",
    "PFM": rb"P[Ff]\s+\d+\s+\d+\s+[-+]?\.?\d",
    "Radiance HDR": rb"#\?(?:RADIANCE|RGBE)",
    "OpenEXR": rb"\x76\x2f\x31\x01",
    "Sun raster": rb"\x59\xa6\x6a\x95",
    "SGI": rb"\x01\xda[\0\x01][\x01\x02]\0[\x01-\x03]",
    "PSD": rb"8BPS\0[\x01\x02]",
    "DDS": rb"DDS \x7c\0\0\0",
    "QOI": rb"qoif",
    "ICO": rb"\0\0\x01\0[^\0]\0",
    "PCX": rb"\n[\0\x02\x03\x05]\x01[\x01\x02\x04\x08]",
    "FITS": rb"SIMPLE  =",
    "DICOM": rb".{128}DICM",
}
VIDEO_MARKS = {
    "AVI": rb"RIFF....AVI ",
    "Matroska or WebM": rb"\x1a\x45\xdf\xa3",
    "ASF or WMV": rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c",
    "MPEG": rb"\0\0\x01[\xba\xb3]",
    "MPEG transport stream": rb"\x47.{187}\x47.{187}\x47|.{4}\x47.{191}\x47.{191}\x47",
    "QuickTime": rb"\0...(?:moov|wide|free|skip|pnot)|....mdat",
    "MXF": rb"\x06\x0e\x2b\x34\x02\x05\x01\x01",
    "Flash video": rb"FLV\x01",
    "Ogg Theora": rb"OggS.{24,283}\x80theora",
    "Y4M": rb"YUV4MPEG2 ",
    "IVF": rb"DKIF\0\0",
}
# ZIP, gzip, bzip2, xz, 7z, RAR and tar.
ARCHIVES = re.compile(
    rb"PK\x03\x04|PK\x05\x06|\x1f\x8b|BZh[1-9]|\xfd7zXZ\0|7z\xbc\xaf\x27\x1c|Rar!\x1a\x07|.{257}ustar",
    re.DOTALL,
)
FORMATS = tuple(
    (re.compile(pattern, re.DOTALL), Format(name, kind))
    for kind, marks in ((IMAGE, IMAGE_MARKS), (VIDEO, VIDEO_MARKS))
    for name, pattern in marks.items()
)


def kind_of(path: Path) -> str:
    """Return whether a file is an ``image``, a ``video`` or ``other``, by its content.

    A damaged file keeps its kind, and so does a file in a format that cannot be decoded here.

    Args:
        path: A file; anything but a regular file is ``other``.

    Raises:
        OSError: The file cannot be read.
    """
    found = format_of(path)
    return OTHER if found is None else found.kind


def is_archive(head: bytes) -> bool:
    """Return whether a file is an archive, or compressed, by its first bytes."""
    return ARCHIVES.match(head) is not None


def format_of(path: Path) -> Format | None:
    """Return the format of an image or video file by its content; None for any other file.

    Args:
        path: A file; anything but a regular file has no format.

    Raises:
        OSError: The file cannot be read.
    """
    if not path.is_file():  # opening a pipe would block
        path.stat()  # raises if there is none
        return None
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
        length = file.seek(0, 2)
        file.seek(max(length - len(TGA_END), 0))
        tail = file.read()
    return format_of_bytes(head, tail)


def format_of_bytes(head: bytes, tail: bytes = b"") -> Format | None:
    """Return the format of an image or video; None for anything else.

    Args:
        head: First bytes of the file, `HEAD_BYTES` of them or all.
        tail: Last bytes of the file, at least as many as `TGA_END`.
    """
    if head[4:8] == b"ftyp":
        return _format_of_brands(head)
    for pattern, found in FORMATS:
        if pattern.match(head):
            return found
    return Format("TGA", IMAGE) if tail.endswith(TGA_END) else None


def _format_of_brands(head: bytes) -> Format | None:
    """Return the format of an ISO base media file: its main brand, then its compatible ones."""
    length = int.from_bytes(head[:4], "big")
    main, others = head[8:12], head[16 : min(length, len(head))]
    brands = {main, *(others[first : first + 4] for first in range(0, len(others), 4))}
    if not main.strip() or length < 12:
        return None
    if main in AUDIO_BRANDS:
        return None
    if main in AVIF_BRANDS or (main in HEIC_BRANDS and brands & AVIF_BRANDS):
        return Format("AVIF", IMAGE)
    if main in HEIC_BRANDS:
        return Format("HEIC", IMAGE)
    if main == b"crx ":
        return Format("CR3", IMAGE)
    return Format("QuickTime" if main == b"qt  " else "MP4", VIDEO)
