"""Fit to the training images of a category."""

from collections.abc import Iterator

import numpy as np

from datasets.base import Category
from patchcore import PatchCore
from patchcore.fit import FitRequest, FitResult, fit
from utils.pipeline.observer import RunObserver
from utils.pipeline.reading import Reading
from utils.progress import show_progress


class TrainingFiles:
    """The training images of a category, read by threads ahead of their use.

    Attributes:
        names: The file of each image.
        batch_size: Number of images in each batch but the last.

    Args:
        model: Crops the images.
        category: Samples of the category.
        reading: Reads the files.
    """

    def __init__(self, model: PatchCore, category: Category, reading: Reading):
        self.names = tuple(str(sample.path) for sample in category.train)
        self.batch_size = reading.batch_size
        self._samples = category.train
        self._crop = model.crop
        self._reading = reading

    def __len__(self) -> int:
        return len(self._samples)

    def batches(self) -> Iterator[np.ndarray]:
        """Yield the cropped images, (B, *size_crop, 3) uint8 RGB.

        Raises:
            DatasetError: a file cannot be read.
        """
        batches = self._reading.batches(
            lambda sample: self._crop(self._reading.image(sample.path)),
            self._samples,
            lambda sample: sample.path,
        )
        yield from map(np.stack, batches)


def fit_category(
    model: PatchCore,
    category: Category,
    request: FitRequest,
    reading: Reading,
    observer: RunObserver,
) -> FitResult:
    """Fit a model to the training images of a category.

    Args:
        model: The method, with its backbone.
        category: Samples of the category.
        request: Results to compute.
        reading: Reads the files.
        observer: Measures the stages.

    Raises:
        DatasetError: a file cannot be read.
        PatchCoreError: the category is too small for the request, or too large for the memory.
    """
    images = TrainingFiles(model, category, reading)
    total = len(images) * len(model.embedder.versions)
    with show_progress(total, f"{category.name}: embed", "image") as observer.bar:
        return fit(model.embedder, model.scorer, images, request, observer)
