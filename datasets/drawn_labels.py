"""Images with a mask next to each: a good image has a mask without a defective pixel."""

from pathlib import Path

from datasets.base import GOOD, DatasetError, MaskFiles
from datasets.entries import Entry
from datasets.listing import list_files, stem_of
from datasets.type_folders import Found, spare_masks

DEFECT = "defect"


def read_beside(folder: Path, split: str, ending: str) -> Found:
    """List the images of a folder; their masks have the same stem with an ending.

    Args:
        folder: The folder; its masks are opened to distinguish good images from defective images.
        split: Split of these images.
        ending: End of the stems of masks, for example ``_GT``.

    Raises:
        DatasetError: A mask is missing or cannot be read.
    """
    listing = list_files(folder)
    by_stem = {stem_of(file): file for file in listing.images}
    drawn = {stem: by_stem.pop(stem) for stem in tuple(by_stem) if stem.endswith(ending)}
    entries = []
    for stem, file in by_stem.items():
        mask = drawn.pop(stem + ending, None)
        if mask is None:
            raise DatasetError(f"expected the mask {stem}{ending} next to the image {file}")
        if is_empty_mask(mask):
            entries.append(Entry(file, GOOD, split))
        else:
            entries.append(Entry(file, DEFECT, split, MaskFiles((mask,))))
    return Found(tuple(entries), listing.left_out) + spare_masks(drawn.values())


def is_empty_mask(path: Path) -> bool:
    """Return whether a mask file marks no pixel, as `datasets.masks.read_mask` reads it.

    Raises:
        DatasetError: The file cannot be read.
    """
    # Pillow, because listing a dataset does not import OpenCV.
    from PIL import Image

    try:
        with Image.open(path) as image:
            if image.has_transparency_data:
                lowest, highest = image.convert("RGBA").getchannel("A").getextrema()
                if lowest < highest:  # opaque pixels are paint
                    return False
            colours = image.convert("RGB") if image.mode in ("P", "LA", "RGBA") else image
            return colours.getbbox() is None
    except (OSError, SyntaxError, ValueError) as error:
        raise DatasetError(f"expected a mask, found a damaged or unknown file: {path}") from error
