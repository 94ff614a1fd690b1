"""Fit to the training images of a category."""

from collections.abc import Iterator

import numpy as np

from datasets.base import Category
from datasets.images import in_batches, map_ahead, read_image
from patchcore import PatchCore
from patchcore.fit import FitRequest, FitResult, fit
from utils.options.computing import ComputingOptions
from utils.pipeline.observer import RunObserver
from utils.progress import show_progress


class TrainingFiles:
    """The training images of a category, read by threads ahead of their use.

    Attributes:
        names: The file of each image.
        batch_size: Number of images in each batch but the last.

    Args:
        model: Crops the images.
        category: Samples of the category.
        options: Batch size and threads.
    """

    def __init__(self, model: PatchCore, category: Category, options: ComputingOptions):
        self.names = tuple(str(sample.path) for sample in category.train)
        self.batch_size = options.batch_size
        self._samples = category.train
        self._crop = model.crop
        self._threads = options.threads

    def __len__(self) -> int:
        return len(self._samples)

    def batches(self) -> Iterator[np.ndarray]:
        """Yield the cropped images, (B, *size_crop, 3) uint8 RGB.

        Raises:
            DatasetError: a file cannot be read.
        """
        crops = map_ahead(
            lambda sample: self._crop(read_image(sample.path)),
            self._samples,
            num_workers=self._threads,
            ahead=2 * self.batch_size + self._threads,
        )
        yield from map(np.stack, in_batches(crops, self.batch_size))


def fit_category(
    model: PatchCore,
    category: Category,
    request: FitRequest,
    options: ComputingOptions,
    observer: RunObserver,
) -> FitResult:
    """Fit a model to the training images of a category.

    Args:
        model: The method, with its backbone.
        category: Samples of the category.
        request: Results to compute.
        options: Batch size and threads.
        observer: Measures the stages.

    Raises:
        DatasetError: a file cannot be read.
        PatchCoreError: the category is too small for the request, or too large for the memory.
    """
    images = TrainingFiles(model, category, options)
    total = len(images) * (1 + len(model.embedder.flip))
    with show_progress(total, f"{category.name}: embed", "image") as observer.bar:
        return fit(model.embedder, model.scorer, images, request, observer)
