"""Reading of image files in batches, for fits, evaluations and inference."""

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from datasets.base import Category, DatasetError, Sample, UnusableFilesError
from datasets.depth import Decoding, ValueRange
from datasets.images import bytes_to_read, find_value_range, read_image, read_sample
from datasets.notes import Notes
from datasets.reading_ahead import read_batches
from patchcore.errors import PatchCoreError
from patchcore.trained import Trained
from utils.options.fit import FitOptions
from utils.options.infer import InferOptions

Item = TypeVar("Item")
Result = TypeVar("Result")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reading:
    """How the files of one category or one inference are read.

    Attributes:
        decoding: Largest size, and range of values above 8 bits.
        batch_size: Number of images of a batch.
        threads: Number of threads that read.
        notes: Remarks about the files.
        reads_on: Whether to read the other images after one that cannot be used, to name all such
            images at once.
    """

    decoding: Decoding
    batch_size: int
    threads: int
    notes: Notes = field(default_factory=Notes)
    reads_on: bool = False

    @classmethod
    def of_model(cls, trained: Trained, options: FitOptions | InferOptions) -> "Reading":
        """Return the reading of images that a trained model judges."""
        decoding = decoding_of_model(trained, options.max_megapixels)
        return cls(decoding, options.batch_size, options.threads)

    def image(self, path: Path) -> np.ndarray:
        """Return an image, (H, W, 3) uint8 RGB.

        Raises:
            DatasetError: The file cannot be read.
        """
        return read_image(path, self.decoding, self.notes)

    def sample(self, sample: Sample) -> tuple[np.ndarray, np.ndarray | None]:
        """Return an image and its mask, as `read_sample` does.

        Raises:
            DatasetError: A file cannot be read.
        """
        return read_sample(sample, self.decoding, self.notes)

    def batches(
        self,
        function: Callable[[Item], Result],
        items: Iterable[Item],
        path_of: Callable[[Item], Path | None],
    ) -> Iterator[list[Result]]:
        """Yield what is read of items in batches, while the next ones are read.

        Args:
            function: Reads an item; called in threads.
            items: Consumed lazily.
            path_of: Returns the image file that an item is decoded from; None for no file.

        Raises:
            UnusableFilesError: The function raised a DatasetError or PatchCoreError.
        """
        reasons: dict[str, str] = {}

        def size_of(item: Item) -> int:
            path = path_of(item)
            return 0 if path is None else bytes_to_read(path)

        def read(item: Item) -> Result | None:
            try:
                return function(item)
            except (DatasetError, PatchCoreError) as error:
                path = str(path_of(item))
                reason = str(error) if isinstance(error, DatasetError) else f"{error}: {path}"
                if not self.reads_on:
                    raise UnusableFilesError({path: reason}) from error
                reasons[path] = reason
                return None

        batches = read_batches(
            read, items, batch_size=self.batch_size, threads=self.threads, size_of=size_of
        )
        for batch in batches:
            if not reasons:
                yield batch
        if reasons:
            raise UnusableFilesError(dict(sorted(reasons.items())))


def find_reading(category: Category, options: FitOptions) -> Reading:
    """Return how the files of a category are read, by its training images, and log their depth.

    Args:
        category: Samples of the category.
        options: Batch size, threads, largest size, and depth of values.

    Raises:
        DatasetError: Images of different kinds are mixed.
    """
    limits = Decoding(options.max_megapixels)
    value_range = find_value_range([sample.path for sample in category.train], limits)
    source = "found in the training images"
    if options.bit_depth and not (value_range is not None and value_range.is_float):
        value_range = ValueRange.of_bits(options.bit_depth)
        source = "given by --bit_depth"
    elif value_range is not None and not value_range.is_float:
        source += "; --bit_depth sets another depth"
    if value_range is not None:
        log.info("%s: values of %s (%s)", category.name, value_range, source)
    decoding = replace(limits, value_range=value_range)
    return Reading(decoding, options.batch_size, options.threads, reads_on=options.skips)


def decoding_of_model(trained: Trained, max_megapixels: float) -> Decoding:
    """Return how images are decoded for a trained model: as its training images were."""
    return Decoding(max_megapixels, ValueRange.from_json(trained.value_range))


def log_notes(notes: Notes, name: str = "") -> dict[str, dict[str, object]]:
    """Log remarks about the files that were read.

    Args:
        notes: Remarks about the files.
        name: Name of the category; empty for an inference.

    Returns:
        The records, for ``run.json``.
    """
    for note in notes.all():
        log.warning("%s%s", f"{name}: " if name else "", note)
    return notes.as_json()
