"""Mask files -> defective pixels.

A mask is black where there is no defect. Two values, and class numbers (VisA has 0 to 3), are
defective above 0. A mask that was compressed as JPEG, or drawn with smooth borders, has values
between black and the defect's that belong to neither, and is thresholded at half of its largest
value.
"""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from datasets.base import MaskFiles
from datasets.decoding import ImageFile
from datasets.depth import Decoding
from datasets.header import Header
from datasets.notes import Notes

JPEG_MASK = "JPEG mask, thresholded at half of its largest value; use PNG, which is lossless"
SMOOTH_MASK = (
    "mask with smooth borders, thresholded at half of its largest value; use a mask with two values"
)
EMPTY_MASK = "mask of a defective image without a marked pixel"
FULL_MASK = "mask that marks the whole image"
LARGE_MASK = (
    "mask that marks more than half of its image; if it is inverted, make the defects white"
)
UNMARKED_MASK = (
    "mask without the EXIF orientation of its image, used as upright; if it is not, rotate its "
    "pixels"
)
# Half of the error of JPEG compression around black.
JPEG_NOISE = 16
# More grey values than this are no class numbers, unless they fill regions.
MAX_CLASSES = 16
# Width in pixels of a smooth border on each side of a region.
BORDER = 2


@dataclass(frozen=True)
class Mask:
    """A decoded mask file.

    Attributes:
        marked: (H, W) bool, True where the image is defective.
        brightest: (H, W) of the file's number type, the largest colour channel.
        header: Header of the file.
    """

    marked: np.ndarray
    brightest: np.ndarray
    header: Header


def read_mask(
    path: Path, decoding: Decoding | None = None, notes: Notes | None = None
) -> np.ndarray:
    """Decode a mask file to (H, W) bool, upright: True where the image is defective.

    Args:
        path: Image file: black is not defective. Where the opacity varies, transparent pixels are
            not defective, and if all others have one colour, opaque ones are.
        decoding: Largest size.
        notes: Collects remarks about the mask.

    Raises:
        DatasetError: The file cannot be read, is not an image, or is truncated.
    """
    return decode_mask(path, decoding or Decoding(), notes or Notes()).marked


def read_masks(
    files: MaskFiles,
    image: ImageFile,
    size: tuple[int, int],
    decoding: Decoding,
    notes: Notes,
) -> np.ndarray:
    """Decode and join the mask files of a defective image.

    Args:
        files: Mask files; each is rotated by its own EXIF orientation.
        image: The image's file.
        size: (H, W) of the image, upright.
        decoding: Largest size.
        notes: Collects remarks about the masks.

    Returns:
        (H, W) bool, True where the image is defective.

    Raises:
        DatasetError: A file cannot be read, or has another size than its image.
    """
    joined = np.zeros(size, dtype=bool)
    for path in files.paths:
        mask = decode_mask(path, decoding, notes)
        _check_orientation(mask, path, image, size, notes)
        joined |= mask.marked
    share, example = joined.mean(), files.paths[0]
    if share == 0:
        notes.add(EMPTY_MASK, example)
    elif share == 1:
        notes.add(FULL_MASK, example)
    elif share > 0.5:
        notes.add(LARGE_MASK, example)
    return joined


def decode_mask(path: Path, decoding: Decoding, notes: Notes) -> Mask:
    """Decode a mask file like `read_mask`, with the values of its pixels.

    Raises:
        DatasetError: The file cannot be read, is not an image, or is truncated.
    """
    file = ImageFile(path, "a mask", decoding)
    colours, opacity = _split(file.values())
    brightest = colours.max(axis=2)
    values = brightest if opacity is None else _paint(colours, opacity, brightest)
    if file.header.format == "JPEG":
        notes.add(JPEG_MASK, path)
        marked = values > max(float(values.max()), 2 * JPEG_NOISE) / 2
    elif has_smooth_borders(values):
        notes.add(SMOOTH_MASK, path)
        marked = values > float(values.max()) / 2
    else:
        marked = values > 0
    return Mask(marked, brightest, file.header)


def _split(values: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the colours (H, W, 1 or 3) and, if there is one, the opacity (H, W)."""
    if values.ndim == 2:
        return values[:, :, None], None
    num_colours = 1 if values.shape[2] <= 2 else 3
    opacity = values[:, :, num_colours] if values.shape[2] > num_colours else None
    return values[:, :, :num_colours], opacity


def _paint(colours: np.ndarray, opacity: np.ndarray, brightest: np.ndarray) -> np.ndarray:
    """Return (H, W): the largest colour channel, or the opacity of paint of one colour."""
    painted = opacity > 0
    if (opacity == opacity.flat[0]).all():
        return brightest
    if (colours[painted] == colours[painted][0]).all():
        return opacity
    return np.where(painted, brightest, 0)


def has_smooth_borders(values: np.ndarray) -> bool:
    """Return whether values between 0 and the largest belong to borders, not to classes.

    Args:
        values: (H, W) of any number type; 0 is not defective.
    """
    highest = values.max()
    between = (values > 0) & (values < highest)
    if not between.any():
        return False
    same = values.astype(np.float32)
    square = np.ones((3, 3), np.uint8)
    # Pixels that are surrounded by their own value.
    inner = between & (cv2.erode(same, square) == same) & (cv2.dilate(same, square) == same)
    if len(np.unique(values[between])) > MAX_CLASSES:
        return bool(inner.sum() < between.sum() / 2)
    reach = np.ones((2 * BORDER + 1, 2 * BORDER + 1), np.uint8)
    is_near = cv2.dilate((values == highest).astype(np.uint8), reach).astype(bool)
    # Thin tips of a region may not reach its value anywhere.
    return not inner.any() and bool(is_near[between].mean() > 0.9)


def _check_orientation(
    mask: Mask, path: Path, image: ImageFile, size: tuple[int, int], notes: Notes
) -> None:
    """Check that a mask has the size of its image, and note if it may have to be rotated."""
    of_image, of_mask = image.header.orientation, mask.header.orientation
    if mask.marked.shape == size:
        # Of other sizes than this, only an upright mask fits.
        if of_image != 1 and of_mask == 1 and (size[0] == size[1] or of_image < 5):
            notes.add(UNMARKED_MASK, path)
        return
    hint = ""
    # From 5 on, height and width are exchanged.
    if mask.marked.shape == size[::-1] and (of_image >= 5) != (of_mask >= 5):
        hint = (
            f"; the EXIF orientation of the image is {of_image}, that of the mask {of_mask}: "
            "rotate the pixels of both and remove the EXIF orientation"
        )
    raise image.mask_of_other_size(size, mask.marked.shape, path, hint)
