"""Image files -> arrays: by OpenCV, or by Pillow where OpenCV has no decoder."""

import io
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from datasets.base import DatasetError
from datasets.depth import Decoding
from datasets.header import (
    OPENCV,
    PILLOW,
    PILLOW_FORMATS,
    UNREADABLE,
    Header,
    HeaderError,
    read_header,
)
from datasets.jpeg import is_complete

# Pillow's modes that `convert` would round to 8 bits, or clip at 255.
DEEP_MODES = ("F", "I", "I;16", "I;16L", "I;16B", "I;16N")


class ImageFile:
    """An image or mask file that has been read, and not yet decoded.

    Attributes:
        path: The file.
        header: What it says about itself.

    Args:
        path: The file.
        meaning: What it is expected to be, for errors: ``an image`` or ``a mask``.
        decoding: Largest size.

    Raises:
        DatasetError: The file cannot be read, is no image, or is too large.
    """

    def __init__(self, path: Path, meaning: str, decoding: Decoding):
        self.path = path
        self._meaning = meaning
        try:
            self._data = path.read_bytes()
            self.header = read_header(io.BytesIO(self._data))
        except OSError as error:
            raise DatasetError(f"cannot read {path}: {error.strerror or error}") from error
        except HeaderError as error:
            raise self._damaged(str(error)) from error
        check_size(self.header, path, decoding)

    def rgb(self) -> np.ndarray:
        """Decode to (H, W, 3) uint8 RGB, upright; transparency is dropped.

        Raises:
            DatasetError: The file is damaged or truncated.
        """
        self._check_jpeg()
        # OpenCV's own reading of EXIF would differ between formats.
        image = self._by_opencv(cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
        if image is None:
            image = _colours(self._by_pillow())
            if image.dtype != np.uint8:
                raise self._damaged(f"{image.dtype} values where the header says 8 bits")
        return self._upright(image)

    def values(self) -> np.ndarray:
        """Decode without changing any value, upright; where 0 is white, it becomes the largest.

        Returns:
            (H, W) or (H, W, C) of the file's number type: grey, grey and opacity, RGB or RGBA.

        Raises:
            DatasetError: The file is damaged or truncated.
        """
        self._check_jpeg()
        values = self._by_opencv(cv2.IMREAD_UNCHANGED)  # also ignores the orientation
        if values is None:
            values = self._by_pillow()
        elif values.ndim == 3 and values.shape[2] >= 3:  # BGR or BGRA
            values = values[:, :, [2, 1, 0, *range(3, values.shape[2])]]
        if values.dtype == np.uint16 and self.header.is_inverted:
            values = np.uint16(2**self.header.bits - 1) - values
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise self._damaged("values that are not finite")
        return self._upright(values)

    def deep_rgb(self) -> np.ndarray:
        """Decode to (H, W, 3) RGB of the file's number type, upright; transparency is dropped.

        Raises:
            DatasetError: The file is damaged or truncated.
        """
        return _colours(self.values())

    def unusable(self, text: str) -> DatasetError:
        """Return the error ``expected <text>: <path>``."""
        return DatasetError(f"expected {text}: {self.path}")

    def mask_of_other_size(
        self, size: tuple[int, int], found: tuple[int, int], mask: Path, hint: str = ""
    ) -> DatasetError:
        """Return the error of a mask that does not have the (height, width) of its image."""
        return DatasetError(
            f"expected a mask of the size of its image, {size[1]}x{size[0]}, found "
            f"{found[1]}x{found[0]}: {mask}, mask of {self.path}{hint}"
        )

    def _by_opencv(self, flags: int) -> np.ndarray | None:
        if OPENCV not in self.header.decoders:
            return None
        try:
            values = cv2.imdecode(np.frombuffer(self._data, np.uint8), flags)
        except cv2.error:
            return None
        if values is not None and values.dtype == np.uint16:
            values >>= 16 - self.header.bits  # OpenCV moves fewer bits to the upper end
        return values

    def _by_pillow(self) -> np.ndarray:
        if PILLOW not in self.header.decoders:
            raise self._too_deep()
        try:
            with Image.open(io.BytesIO(self._data), formats=PILLOW_FORMATS) as image:
                image.load()
                if image.mode in DEEP_MODES:
                    values = np.asarray(image)
                    return values.astype(values.dtype.newbyteorder("="))
                has_opacity = image.has_transparency_data
                values = np.asarray(image.convert("RGBA" if has_opacity else "RGB"))
        except Image.UnidentifiedImageError as error:  # its text is an address in memory
            raise self._damaged(f"{self.header.format}: {UNREADABLE}") from error
        except Exception as error:  # decoders raise errors of any type for damaged files
            raise self._damaged(f"{self.header.format}: {error}") from error
        if self.header.is_deep:
            raise self._too_deep()
        return values

    def _too_deep(self) -> DatasetError:
        return self._damaged(
            f"{self.header.format} of more than 8 bits, of which neither OpenCV nor this Pillow "
            "reads all"
        )

    def _check_jpeg(self) -> None:
        """Raise DatasetError for a file without some of its pixels, which would be grey."""
        if self.header.format != "JPEG":
            return
        try:
            if is_complete(self._data):
                return
        except (ValueError, OSError) as error:
            raise self._damaged(f"JPEG: {error}") from error
        raise self._damaged("JPEG: it ends early, a part of its pixels is missing")

    def _upright(self, array: np.ndarray) -> np.ndarray:
        # Both libraries turn a TIFF themselves.
        if self.header.format == "TIFF":
            return array
        return turn(array, self.header.orientation)

    def _damaged(self, reason: str) -> DatasetError:
        return DatasetError(
            f"expected {self._meaning}, found a damaged or unknown file: {self.path} ({reason})"
        )


def check_size(header: Header, path: Path, decoding: Decoding) -> None:
    """Raise DatasetError if an image is declared to be larger than the limit."""
    if header.megapixels > decoding.max_megapixels:
        raise DatasetError(
            f"expected an image of at most {decoding.max_megapixels:g} megapixels, found "
            f"{header.width}x{header.height} ({header.megapixels:.0f} megapixels): {path} "
            "(--max_megapixels)"
        )


def turn(array: np.ndarray, orientation: int) -> np.ndarray:
    """Turn an array upright.

    Args:
        array: (H, W) or (H, W, C).
        orientation: EXIF orientation, 1 to 8, of which 1 is upright.

    Returns:
        (H, W, ...), or (W, H, ...) for orientations from 5 on.
    """
    if orientation >= 5:
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return np.ascontiguousarray(array)


def _colours(values: np.ndarray) -> np.ndarray:
    """Return (H, W, 3) of grey, grey and opacity, RGB or RGBA."""
    if values.ndim == 2:
        values = values[:, :, None]
    if values.shape[2] <= 2:
        return values[:, :, :1].repeat(3, axis=2)
    return np.ascontiguousarray(values[:, :, :3])
