"""Where the training patches come from."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Origins:
    """Which training image each embedded image is.

    Flipped images are embedded between the others, batch by batch: the n-th image that was
    embedded is not the n-th training image then.

    Attributes:
        images: (n,) int64, the number of the training image.
        flips: (n,) int64, 0 for the image as it is, f for the f-th of the model's flips.
    """

    images: np.ndarray
    flips: np.ndarray

    def __len__(self) -> int:
        return len(self.images)


class OriginsOfBatches:
    """Collects the origins while batches are embedded."""

    def __init__(self) -> None:
        self._images: list[np.ndarray] = []
        self._flips: list[np.ndarray] = []

    def add(self, first: int, count: int, flip: int) -> None:
        """Add a batch: ``count`` training images from number ``first`` on, in one flip."""
        self._images.append(np.arange(first, first + count, dtype=np.int64))
        self._flips.append(np.full(count, flip, dtype=np.int64))

    def finish(self) -> Origins:
        """Return the origins of all that was added, in its order."""
        return Origins(np.concatenate(self._images), np.concatenate(self._flips))
