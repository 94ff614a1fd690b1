"""Images with a mask next to each: a good image has a mask without a defective pixel."""

import math
from pathlib import Path

from datasets.base import GOOD, DatasetError, MaskFiles
from datasets.depth import Decoding
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
    # Here, because listing other datasets does not import OpenCV.
    from datasets.masks import read_mask

    any_size = Decoding(max_megapixels=math.inf)  # checked where samples are read
    listing = list_files(folder)
    by_stem = {stem_of(file): file for file in listing.images}
    drawn = {stem: by_stem.pop(stem) for stem in tuple(by_stem) if stem.endswith(ending)}
    entries = []
    for stem, file in by_stem.items():
        mask = drawn.pop(stem + ending, None)
        if mask is None:
            raise DatasetError(f"expected the mask {stem}{ending} next to the image {file}")
        if read_mask(mask, any_size).any():
            entries.append(Entry(file, DEFECT, split, MaskFiles((mask,))))
        else:
            entries.append(Entry(file, GOOD, split))
    return Found(tuple(entries), listing.left_out) + spare_masks(drawn.values())
