"""Defect regions with saturation thresholds: one per mask file."""

from collections.abc import Sequence

import numpy as np

from datasets.base import DatasetError, MaskFiles, Sample, Saturation


def read_regions(
    sample: Sample, saturations: Sequence[Saturation]
) -> list[tuple[np.ndarray, float]]:
    """Read the defect regions of an image.

    Args:
        sample: The image; it has no region if it has no mask files.
        saturations: Saturation thresholds; the value of a file's pixels chooses one.

    Returns:
        (H, W) bool and the share, in (0, 1], that must be found, of each region.

    Raises:
        DatasetError: A file cannot be read, or there is no threshold for its value.
    """
    from PIL import Image

    by_value = {saturation.pixel_value: saturation for saturation in saturations}
    regions = []
    for path in sample.mask.paths if isinstance(sample.mask, MaskFiles) else ():
        try:
            with Image.open(path) as image:
                values = np.asarray(image)
        except (OSError, SyntaxError, ValueError) as error:
            raise DatasetError(f"expected a mask, found a damaged file: {path}") from error
        found = np.unique(values[values > 0]).tolist()
        if len(found) != 1 or found[0] not in by_value:
            raise DatasetError(
                "expected one pixel value of defects_config.json "
                f"({', '.join(map(str, sorted(by_value)))}), found {found} in {path}"
            )
        mask = values > 0
        regions.append((mask, by_value[found[0]].share(int(mask.sum()))))
    return regions
