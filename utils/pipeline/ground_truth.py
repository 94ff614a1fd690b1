"""Known defects of the test images, at the size of the crop and at that of the images."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from patchcore.regions import CropBox, crop_window, resize_map_to_image, resize_mask_to_image
from utils.saturated_overlap import SaturatedRegion


@dataclass(frozen=True)
class OriginalTruth:
    """Known defects of one image within its crop, in the image's own pixels.

    Attributes:
        size: (H, W) of the image in pixels.
        crop_box: The part of the image that the crop shows, as `Preprocess.crop_box` returns it.
        mask: Bool of the pixels with their centres in the crop; None without ground truth.
        regions: The defect regions of the same pixels, with the share that must be found.
    """

    size: tuple[int, int]
    crop_box: CropBox
    mask: np.ndarray | None
    regions: tuple[tuple[np.ndarray, float], ...]

    @classmethod
    def of(
        cls,
        size: tuple[int, int],
        crop_box: CropBox,
        mask: np.ndarray | None,
        regions: Sequence[tuple[np.ndarray, float]],
    ) -> "OriginalTruth":
        """Cut masks (H, W) of an image to the pixels of its crop."""
        window = crop_window(size, crop_box)
        cut = tuple((region[window], share) for region, share in regions)
        return cls(size, crop_box, None if mask is None else mask[window], cut)

    @property
    def window(self) -> tuple[slice, slice]:
        """The rows and columns of the image with their centres in the crop."""
        return crop_window(self.size, self.crop_box)


@dataclass(frozen=True)
class JudgedPixels:
    """What the metrics of pixels are computed from.

    Attributes:
        maps: (B, H, W) float32, or B maps of different sizes.
        masks: Of the same shapes, bool.
        regions: Defect regions; empty without saturation thresholds.
        hidden: Bool, pixels that are not measured: (H, W) for all images, or one for each; None to
            measure all.
    """

    maps: Sequence[np.ndarray]
    masks: Sequence[np.ndarray]
    regions: tuple[SaturatedRegion, ...]
    hidden: Sequence[np.ndarray] | np.ndarray | None


@dataclass(frozen=True)
class GroundTruth:
    """Known defects of the B test images.

    Attributes:
        masks: (B, H, W) bool of the crops, all False for images without ground truth; None without
            masks.
        regions: Defect regions of the crops; empty without saturation thresholds.
        originals: The same in each image's own pixels; empty if metrics are those of the crops.
    """

    masks: np.ndarray | None
    regions: tuple[SaturatedRegion, ...] = ()
    originals: tuple[OriginalTruth, ...] = ()

    def pixels(self, maps: np.ndarray, ignored: np.ndarray | None) -> JudgedPixels:
        """Return what is measured of anomaly maps.

        Args:
            maps: (B, H, W) float32 of the crops.
            ignored: (H, W) bool of the crop, pixels that are not judged; None to judge all.
        """
        if not self.originals:
            return JudgedPixels(maps, self.masks, self.regions, ignored)
        windows = [truth.window for truth in self.originals]
        masks = [
            np.zeros(_shape(window), bool) if truth.mask is None else truth.mask
            for truth, window in zip(self.originals, windows, strict=True)
        ]
        hidden = None
        if ignored is not None:
            hidden = [
                resize_mask_to_image(ignored, truth.size, crop_box=truth.crop_box)[window]
                for truth, window in zip(self.originals, windows, strict=True)
            ]
        regions = number_regions(truth.regions for truth in self.originals)
        enlarged = [
            resize_map_to_image(one, truth.size, crop_box=truth.crop_box)[window]
            for one, truth, window in zip(maps, self.originals, windows, strict=True)
        ]
        return JudgedPixels(enlarged, masks, regions, hidden)


def number_regions(
    images: Iterable[Iterable[tuple[np.ndarray, float]]],
) -> tuple[SaturatedRegion, ...]:
    """Return the regions of all images with the index of their image, given those of each."""
    return tuple(
        SaturatedRegion(index, mask, share)
        for index, regions in enumerate(images)
        for mask, share in regions
    )


def without_pixels(pixels: JudgedPixels) -> JudgedPixels:
    """Return maps, masks and regions of the pixels that are measured alone, without their shape."""
    if pixels.hidden is None:
        return pixels
    hidden = pixels.hidden
    seen = [~one for one in hidden] if hidden[0].ndim == 2 else [~hidden] * len(pixels.maps)
    kept = [
        [one[mask] for one, mask in zip(values, seen, strict=True)]
        for values in (pixels.maps, pixels.masks)
    ]
    regions = tuple(replace(r, mask=r.mask[seen[r.image]]) for r in pixels.regions)
    return JudgedPixels(*kept, regions, None)


def _shape(window: tuple[slice, slice]) -> tuple[int, int]:
    rows, columns = window
    return rows.stop - rows.start, columns.stop - columns.start
