"""Defect regions with saturation thresholds: one per mask file."""

from collections.abc import Sequence

import numpy as np

from datasets.base import DatasetError, MaskFiles, Sample, Saturation
from datasets.depth import Decoding
from datasets.masks import decode_mask
from datasets.notes import Notes


def read_regions(
    sample: Sample, saturations: Sequence[Saturation], decoding: Decoding | None = None
) -> list[tuple[np.ndarray, float]]:
    """Read the defect regions of an image, which are those of its mask.

    Args:
        sample: The image; it has no region if it has no mask files.
        saturations: Saturation thresholds; the value of a file's pixels chooses one.
        decoding: Largest size.

    Returns:
        (H, W) bool and the share, in (0, 1], that must be found, of each region.

    Raises:
        DatasetError: A file cannot be read, or there is no threshold for its value.
    """
    by_value = {saturation.pixel_value: saturation for saturation in saturations}
    regions = []
    for path in sample.mask.paths if isinstance(sample.mask, MaskFiles) else ():
        # `read_sample` reads the same files, adds the notes, and compares the sizes.
        mask = decode_mask(path, decoding or Decoding(), Notes())
        found = np.unique(mask.brightest[mask.marked]).tolist()
        if len(found) != 1 or found[0] not in by_value:
            raise DatasetError(
                "expected one pixel value of defects_config.json "
                f"({', '.join(map(str, sorted(by_value)))}), found {found} in {path}"
            )
        regions.append((mask.marked, by_value[found[0]].share(int(mask.marked.sum()))))
    return regions
