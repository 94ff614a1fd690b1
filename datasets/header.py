"""Headers of image files: format, declared size, depth, pages and orientation, without decoding."""

import io
import re
from dataclasses import dataclass, replace
from typing import BinaryIO

from PIL import Image, TiffImagePlugin

from datasets.content import HEAD_BYTES, TGA_END, format_of_bytes, is_archive

# Pillow reads others by running programs (EPS, WMF), or only names their format.
PILLOW_FORMATS = (
    *("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "JPEG2000", "AVIF", "PPM", "TGA"),
    *("SUN", "SGI", "PSD", "DDS", "QOI", "ICO", "PCX", "FITS"),
)
# Tags of TIFF 6.0, and of DNG 1.6.
WIDTH, HEIGHT, BITS, SAMPLE_FORMAT, ORIENTATION, SUBFILE, DNG = 256, 257, 258, 339, 274, 254, 50706
PHOTOMETRIC, SAMPLES, PLANES = 262, 277, 284
UNSIGNED = 1
WHITE_IS_ZERO, PALETTE, LAB = 0, 3, 8  # values of the tag PHOTOMETRIC
REDUCED_IMAGE = 1  # bit of the tag SUBFILE: a preview
# Declared size in formats that OpenCV reads and Pillow does not; names as in `datasets.content`.
SIZES = {
    "PFM": re.compile(rb"P[Ff]\s+(?P<width>\d+)\s+(?P<height>\d+)\s"),
    "PNM": re.compile(
        rb"P7\n(?=.*?WIDTH\s+(?P<width>\d+)\s)(?=.*?HEIGHT\s+(?P<height>\d+)\s)", re.DOTALL
    ),
    "Radiance HDR": re.compile(rb"#\?.*?-Y (?P<height>\d+) \+X (?P<width>\d+)\s", re.DOTALL),
}
# Two sizes, and a largest value above 255 in two bytes.
DEEP_PNM = re.compile(
    rb"P[2356]\s+(?:#[^\n]*\n\s*)*\d+\s+(?:#[^\n]*\n\s*)*\d+\s+(?:#[^\n]*\n\s*)*(\d+)"
)
# Cards of a FITS file that Pillow ignores: other values than no offset and no scale.
SCALED_FITS = re.compile(rb"(?:BZERO   = +(?!0(?:\.0*)? )|BSCALE  = +(?!1(?:\.0*)? ))\S")
FITS_HEADER_BYTES = 100 * 2880
OPENCV, PILLOW = "OpenCV", "Pillow"
ANIMATED = ("GIF", "PNG", "WEBP", "AVIF")
# No format declares longer sides; their product may not fit a float.
MAX_SIDE = 2**32 - 1
# Formats that `datasets.content` knows and neither Pillow nor OpenCV decodes.
UNSUPPORTED = ("HEIC", "JPEG XL", "OpenEXR", "DICOM", "CR3")
UNREADABLE = "damaged, or not supported by this Pillow and OpenCV"

# Pillow's own limit is lower than --max_megapixels, and it can only be set for the whole process.
Image.MAX_IMAGE_PIXELS = None


class HeaderError(Exception):
    """A header cannot be read; the message is the reason."""


@dataclass(frozen=True)
class Header:
    """What an image file says about itself.

    Attributes:
        format: Name of the format, for example ``JPEG``; empty if it is not known.
        width: Width in pixels, before it is turned by the orientation.
        height: Height in pixels.
        is_deep: Whether the values may need more than 8 bits, and the decoders do not scale them to
            8 bits by the depth that the file states, as in AVIF and JPEG 2000.
        bits: Bits of unsigned integers above 8 bits: 16, or the 10, 12 or 14 of a TIFF file.
        is_inverted: Whether 0 is white in values above 8 bits.
        decoders: The libraries that read the values as they are stored.
        pages: Number of pages or frames.
        orientation: EXIF orientation, 1 to 8; 1 is upright.

    Raises:
        HeaderError: The size is impossible.
    """

    format: str
    width: int
    height: int
    is_deep: bool = False
    bits: int = 16
    is_inverted: bool = False
    decoders: tuple[str, ...] = (OPENCV, PILLOW)
    pages: int = 1
    orientation: int = 1

    def __post_init__(self) -> None:
        if not (0 < self.width <= MAX_SIDE and 0 < self.height <= MAX_SIDE):
            raise HeaderError("it declares an impossible size")

    @property
    def megapixels(self) -> float:
        """Millions of pixels."""
        return self.width * self.height / 1e6


def read_header(file: BinaryIO) -> Header:
    """Read the header of an image file.

    Args:
        file: A file in binary mode, at its beginning, that can be sought in.

    Raises:
        HeaderError: The file is no image, is damaged, or is in a format that is not supported.
        OSError: The file cannot be read.
    """
    head = file.read(HEAD_BYTES)
    if not head:
        raise HeaderError("the file is empty")
    end = file.seek(0, io.SEEK_END)
    file.seek(max(end - len(TGA_END), 0))
    found = format_of_bytes(head, file.read())
    file.seek(0)
    if found is None and is_archive(head):
        raise HeaderError("an archive, or compressed: unpack it")
    name = "" if found is None else found.name
    if name in UNSUPPORTED:
        raise HeaderError(f"{name} is not supported by this Pillow and OpenCV")
    if name == "FITS":
        cards = file.read(FITS_HEADER_BYTES).partition(b"END".ljust(80))[0]
        if SCALED_FITS.search(cards):
            raise HeaderError("FITS with BZERO or BSCALE, which Pillow ignores: convert it to TIFF")
    if name == "TIFF":
        return _read_tiff(file)
    if name in SIZES and (match := SIZES[name].match(head)):
        return Header(name, int(match["width"]), int(match["height"]), is_deep=True)
    return _read_by_pillow(file, head, name)


def _read_by_pillow(file: BinaryIO, head: bytes, name: str) -> Header:
    """Read a header by Pillow; the name is that of `datasets.content`, or empty."""
    try:
        with Image.open(file, formats=_pillow_formats()) as image:
            return Header(
                name or image.format,
                *image.size,
                is_deep=_is_deep(image, name, head),
                pages=image.n_frames if image.format in ANIMATED else 1,
                orientation=_orientation(image),
            )
    except Exception as error:  # decoders raise errors of any type for damaged files
        if not name:
            raise HeaderError("no known image format") from error
        if isinstance(error, Image.UnidentifiedImageError):
            raise HeaderError(f"{name}: {UNREADABLE}") from error
        raise HeaderError(f"{name}: {error}") from error


def _pillow_formats() -> list[str]:
    Image.init()
    return [name for name in PILLOW_FORMATS if name in Image.OPEN]


def _is_deep(image: Image.Image, name: str, head: bytes) -> bool:
    if image.mode in ("F", "I") or image.mode.startswith("I;16"):
        return _declared_depth(name, head) in (0, 16)
    return _declared_depth(name, head) == 16


def _declared_depth(name: str, head: bytes) -> int:
    """Return the bits of a value that the header declares; 0 if it does not."""
    if name == "PNG":
        return head[24]
    if name == "JPEG 2000":
        size = head.find(b"\xff\x51")  # the marker SIZ of the codestream
        return (head[size + 40] & 0x7F) + 1 if 0 <= size < len(head) - 40 else 0
    if name == "PNM" and (match := DEEP_PNM.match(head)):
        return 16 if int(match[1]) > 255 else 8
    return 0


def _orientation(image: Image.Image) -> int:
    # For a PNG without EXIF, Pillow would decode the image to search behind it.
    if image.format == "PNG" and "exif" not in image.info:
        return 1
    return _valid(image.getexif().get(ORIENTATION, 1))


def _valid(orientation: object) -> int:
    return orientation if orientation in range(1, 9) else 1


def _read_tiff(file: BinaryIO) -> Header:
    """Read the tags of the first page, and count the pages.

    Pillow's `Image.open` refuses kinds of values that OpenCV decodes.
    """
    try:
        head = file.read(8)
        if head[2:4] in (b"+\0", b"\0+"):  # BigTIFF
            head += file.read(8)
        tags = TiffImagePlugin.ImageFileDirectory_v2(head)
        file.seek(tags.next)
        tags.load(file)
        is_preview = tags.get(SUBFILE, 0) & REDUCED_IMAGE or DNG in tags
        bits, is_unsigned = max(tags.get(BITS, (1,))), _is_unsigned(tags)
        is_deep = bits > 8 or not is_unsigned
        header = Header(
            "TIFF",
            int(tags[WIDTH]),
            int(tags[HEIGHT]),
            is_deep=is_deep,
            bits=min(bits, 16),
            is_inverted=is_deep and is_unsigned and tags.get(PHOTOMETRIC) == WHITE_IS_ZERO,
            decoders=_deep_decoders(tags, bits, head) if is_deep else _decoders(tags),
            orientation=_valid(tags.get(ORIENTATION)),
        )
        pages = _count_pages(tags, file)
    except Exception as error:  # as above
        raise HeaderError(f"TIFF: {error}") from error
    if is_preview:
        raise HeaderError("raw data of a camera behind a preview: convert it to TIFF or PNG")
    return replace(header, pages=pages)


def _is_unsigned(tags: TiffImagePlugin.ImageFileDirectory_v2) -> bool:
    return tags.get(SAMPLE_FORMAT, (UNSIGNED,))[0] == UNSIGNED


def _decoders(tags: TiffImagePlugin.ImageFileDirectory_v2) -> tuple[str, ...]:
    """Return the libraries that read a TIFF of up to 8 bits.

    OpenCV multiplies colours by their opacity, and mixes up planes of grey and opacity.
    """
    return (OPENCV, PILLOW) if tags.get(SAMPLES, 1) in (1, 3) else (PILLOW,)


def _deep_decoders(
    tags: TiffImagePlugin.ImageFileDirectory_v2, bits: int, head: bytes
) -> tuple[str, ...]:
    """Return the libraries that read a TIFF above 8 bits.

    OpenCV mixes up planes, ignores palettes, and rounds grey with opacity and CIELAB to 8 bits.
    Pillow reads 32 bits in the wrong order of bytes, or as signed.
    """
    samples, is_unsigned = tags.get(SAMPLES, 1), _is_unsigned(tags)
    is_chunky = samples == 1 or (samples != 2 and tags.get(PLANES, 1) == 1)
    reads = {
        OPENCV: is_chunky and tags.get(PHOTOMETRIC) not in (PALETTE, LAB),
        PILLOW: bits <= 16 if is_unsigned else head.startswith(b"II"),
    }
    return tuple(library for library in reads if reads[library])


def _count_pages(tags: TiffImagePlugin.ImageFileDirectory_v2, file: BinaryIO) -> int:
    """Return the number of pages from the first one on; damage behind it ends the count."""
    visited, following = set(), tags.next
    while following and following not in visited:  # a damaged file may lead back
        visited.add(following)
        try:
            file.seek(following)
            tags.load(file)
        except Exception:  # the first page is still readable
            break
        following = tags.next
    return 1 + len(visited)
