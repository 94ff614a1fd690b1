"""Test images of a category, read in batches, with their ground truth."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from datasets.base import Category, Sample
from datasets.regions import read_regions
from patchcore import PatchCore
from utils.pipeline.ground_truth import GroundTruth, OriginalTruth, number_regions
from utils.pipeline.reading import Reading


class EvaluationImages:
    """Reads the test images of a category in batches, and keeps masks and images.

    Args:
        model: Crops the images.
        category: Samples of the category.
        reading: Reads the files.
        keep_images: Whether to keep the cropped images, for figures.
        at_original_size: Whether to keep masks at the size of the images, for the metrics.
    """

    def __init__(
        self,
        model: PatchCore,
        category: Category,
        reading: Reading,
        *,
        keep_images: bool,
        at_original_size: bool,
    ):
        self.category = category
        self._model = model
        self._reading = reading
        self._keep_images = keep_images
        self._at_original_size = at_original_size
        self._originals: list[OriginalTruth] = []
        self._masks: list[np.ndarray | None] = []
        self._regions: list[list[tuple[np.ndarray, float]]] = []
        self._images: list[np.ndarray] = []

    def batches(self) -> Iterator[np.ndarray]:
        """Yield the cropped images, (B, *size_crop, 3) uint8 RGB.

        Raises:
            DatasetError: a file cannot be read.
        """
        samples = self.category.test
        for batch in self._reading.batches(self._read, samples, lambda sample: sample.path):
            crops = np.stack([one.crop for one in batch])
            self._masks.extend(one.mask for one in batch)
            self._regions.extend(one.regions for one in batch)
            self._originals.extend(one.original for one in batch if one.original is not None)
            if self._keep_images:
                self._images.append(crops)
            yield crops

    def truth(self) -> GroundTruth:
        """Return the ground truth of the images that were read."""
        if not self.category.has_masks:
            return GroundTruth(None, originals=tuple(self._originals))
        size = self._model.preprocess.size_crop
        masks = [np.zeros(size, bool) if mask is None else mask for mask in self._masks]
        regions = number_regions(self._regions)
        return GroundTruth(np.stack(masks), regions, tuple(self._originals))

    def images(self) -> np.ndarray | None:
        """Return all images (B, H, W, 3) uint8; None if no figures are drawn."""
        return np.concatenate(self._images) if self._images else None

    def _read(self, sample: Sample) -> "_EvaluationImage":
        image, mask = self._reading.sample(sample)
        preprocess, saturations = self._model.preprocess, self.category.saturations
        regions = read_regions(sample, saturations, self._reading.decoding) if saturations else []
        original = None
        if self._at_original_size:
            size = image.shape[:2]
            original = OriginalTruth.of(size, preprocess.crop_box(size), mask, regions)
        return _EvaluationImage(
            self._model.crop(image),
            None if mask is None else preprocess.crop_mask(mask),
            [(preprocess.crop_mask(region), share) for region, share in regions],
            original,
        )


@dataclass(frozen=True)
class _EvaluationImage:
    """A test image, its mask and its regions, cropped, and its truth at the image's own size."""

    crop: np.ndarray
    mask: np.ndarray | None
    regions: list[tuple[np.ndarray, float]]
    original: OriginalTruth | None
