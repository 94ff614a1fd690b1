"""Fit to the training images of a category."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from datasets.base import Category, Sample
from datasets.notes import Notes
from patchcore import PatchCore
from patchcore.engine import Engine
from patchcore.fit import FitRequest, FitResult, fit
from patchcore.ignored import Cropper
from utils.pipeline.observer import RunObserver
from utils.pipeline.reading import Reading
from utils.progress import show_progress
from utils.ray_cluster import enter


class TrainingFiles:
    """The training images of a category, read by threads ahead of their use.

    Attributes:
        names: The file of each image.
        batch_size: Number of images in each batch but the last.
        notes: Remarks about the files.

    Args:
        cropper: Crops the images.
        samples: The samples.
        reading: Reads the files.
        folder: The folder that relative paths start from, in a process with another one.
    """

    def __init__(
        self, cropper: Cropper, samples: Sequence[Sample], reading: Reading, folder: str = ""
    ):
        self.names = tuple(str(sample.path) for sample in samples)
        self.batch_size = reading.batch_size
        self.notes = reading.notes
        self._samples = samples
        self._cropper = cropper
        self._reading = reading
        self._folder = folder

    def __len__(self) -> int:
        return len(self._samples)

    def batches(self) -> Iterator[np.ndarray]:
        """Yield the cropped images, (B, *size_crop, 3) uint8 RGB.

        Raises:
            DatasetError: a file cannot be read.
        """
        reading = self._reading
        if self._folder:  # a worker, which may have fewer cores
            enter(self._folder)
            reading = replace(reading, threads=min(reading.threads, torch.get_num_threads()))
        batches = reading.batches(
            lambda sample: self._cropper(reading.image(sample.path)),
            self._samples,
            lambda sample: sample.path,
        )
        yield from map(np.stack, batches)

    def part(self, start: int, stop: int) -> "TrainingFiles":
        """Return the images from ``start`` to ``stop``, for another process."""
        reading = replace(self._reading, notes=Notes())
        return TrainingFiles(self._cropper, self._samples[start:stop], reading, str(Path.cwd()))


def fit_category(
    model: PatchCore,
    category: Category,
    request: FitRequest,
    reading: Reading,
    observer: RunObserver,
    engine: Engine | None = None,
) -> FitResult:
    """Fit a model to the training images of a category.

    Args:
        model: The method, with its backbone.
        category: Samples of the category.
        request: Results to compute.
        reading: Reads the files.
        observer: Measures the stages.
        engine: Where the patches are embedded and selected; None for this process.

    Raises:
        DatasetError: a file cannot be read.
        PatchCoreError: the category is too small for the request, or too large for the memory.
    """
    images = TrainingFiles(model.cropper, category.train, reading)
    passes = 1 if model.context is None else 2
    total = passes * len(images) * len(model.embedder.versions)
    with show_progress(total, f"{category.name}: embed", "image") as observer.bar:
        return fit(model.embedder, model.scorer, images, request, observer, engine, model.context)
