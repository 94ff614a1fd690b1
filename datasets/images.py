"""Samples on disk -> images and masks."""

from contextlib import suppress
from pathlib import Path

import numpy as np

from datasets.base import DatasetError, MaskShapes, Sample
from datasets.decoding import ImageFile
from datasets.depth import Decoding, RangeFinder, ValueRange, has_no_depth
from datasets.header import Header, HeaderError, read_header
from datasets.masks import read_masks
from datasets.notes import Notes
from datasets.polygons import read_shapes

CLIPPED = (
    "values outside the range of the training images, {}; clipped to it (--bit_depth sets another "
    "range)"
)
OTHER_DEPTH = "8-bit image among images with more bits; used unchanged"
UNKNOWN_DEPTH = (
    "more than 8 bits where the training images have 8; only the upper 8 bits are used "
    "(--bit_depth sets another range)"
)
# Bytes per pixel while an image is decoded: the file, its pixels, and a copy.
BYTES_PER_PIXEL = 8
BYTES_PER_DEEP_PIXEL = 40


def read_image(
    path: Path, decoding: Decoding | None = None, notes: Notes | None = None
) -> np.ndarray:
    """Decode an image file to (H, W, 3) uint8 RGB.

    Grey values are repeated in three channels, palettes are resolved, transparency is dropped, and
    the EXIF orientation is applied. Values above 8 bits are mapped by the range of ``decoding``;
    without one, the upper 8 bits are kept. Of several pages the first one is read.

    Args:
        path: The file.
        decoding: Largest size, and range of values above 8 bits.
        notes: Collects remarks about the image.

    Raises:
        DatasetError: The file cannot be read, is not an image, is truncated or too large, or has
            floats without a range.
    """
    decoding = decoding or Decoding()
    return _decode(ImageFile(path, "an image", decoding), decoding, notes or Notes())


def read_sample(
    sample: Sample, decoding: Decoding | None = None, notes: Notes | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Read a sample's image and its mask.

    Args:
        sample: The sample.
        decoding: Largest size, and range of values above 8 bits.
        notes: Collects remarks about the files.

    Returns:
        The image (H, W, 3) uint8 RGB, and its mask (H, W) bool: all False for a good image, None
        for a defective image without ground truth.

    Raises:
        DatasetError: A file cannot be read, or image and mask differ in size.
    """
    decoding, notes = decoding or Decoding(), notes or Notes()
    file = ImageFile(sample.path, "an image", decoding)
    image = _decode(file, decoding, notes)
    if not sample.is_defective:
        return image, np.zeros(image.shape[:2], dtype=bool)
    if sample.mask is None:
        return image, None
    if isinstance(sample.mask, MaskShapes):
        return image, read_shapes(sample.mask, file, image.shape[:2], notes)
    return image, read_masks(sample.mask, file, image.shape[:2], decoding, notes)


def find_value_range(paths: list[Path], decoding: Decoding) -> ValueRange | None:
    """Find the range of values above 8 bits over training images.

    Only the headers are read, unless an image has more than 8 bits; then all such images are
    decoded.

    Args:
        paths: The image files; a file that cannot be read is ignored, since reading it later is an
            error.
        decoding: Largest size.

    Returns:
        For 16-bit images, the smallest of 8, 10, 12, 14 and 16 bits that holds the largest value;
        for floats and 32-bit integers, their range. None if all images have 8 bits.

    Raises:
        DatasetError: 16-bit images and floats are mixed.
    """
    finder = RangeFinder()
    for path in paths:
        header = _read_header(path)
        if header is not None and header.is_deep:
            with suppress(DatasetError):
                finder.add(path, ImageFile(path, "an image", decoding).deep_rgb())
    return finder.range()


def bytes_to_read(path: Path) -> int:
    """Return about how many bytes are needed to decode an image, by its header alone."""
    header = _read_header(path)
    if header is None:
        return 0
    per_pixel = BYTES_PER_DEEP_PIXEL if header.is_deep else BYTES_PER_PIXEL
    return header.width * header.height * per_pixel


def _read_header(path: Path) -> Header | None:
    """Return the header of an image; None if it is damaged, which is an error in later reading."""
    try:
        with path.open("rb") as file:
            return read_header(file)
    except (OSError, HeaderError):
        return None


def _decode(file: ImageFile, decoding: Decoding, notes: Notes) -> np.ndarray:
    header, value_range = file.header, decoding.value_range
    if header.pages > 1:
        notes.add(f"only the first of {header.pages} pages is read", file.path)
    if not header.is_deep:
        if value_range is not None:
            notes.add(OTHER_DEPTH, file.path)
        return file.rgb()
    values = file.deep_rgb()
    if values.dtype == np.uint8:  # formats with a header that does not state the depth
        return values
    if value_range is None:
        if has_no_depth(values):
            raise file.unusable(
                f"values of 8 or 16 bits like the training images', found {values.dtype}"
            )
        notes.add(UNKNOWN_DEPTH, file.path)
        return ValueRange.of_bits(header.bits).to_8_bits(values)
    if value_range.is_float != has_no_depth(values):
        raise file.unusable(
            f"values in the range of the training images, {value_range}, found {values.dtype}"
        )
    if value_range.clips(values):
        notes.add(CLIPPED.format(value_range), file.path)
    return value_range.to_8_bits(values)
