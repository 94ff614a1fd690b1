"""Where patches come from: the order of embedding, and the training image of each coreset patch."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class EmbeddingOrder:
    """Training image and flip of each embedded image.

    Each batch is embedded without a flip, then with each flip. With flips, the n-th embedded image
    is therefore not the n-th training image.

    Attributes:
        images: (n,) int64, the number of the training image.
        flips: (n,) int64, 0 for no flip, f for the f-th flip.
    """

    images: np.ndarray
    flips: np.ndarray

    @classmethod
    def of(cls, num_images: int, num_flips: int, batch_size: int) -> "EmbeddingOrder":
        """Return the order for a number of training images.

        Args:
            num_images: Number of training images.
            num_flips: Number of flips of each image.
            batch_size: Number of training images in a batch.
        """
        numbers = np.arange(num_images, dtype=np.int64)
        versions = range(num_flips + 1)
        batches = np.split(numbers, range(batch_size, num_images, batch_size))
        images = [batch for batch in batches for _ in versions]
        flips = [np.full(len(batch), flip) for batch in batches for flip in versions]
        return cls(np.concatenate(images), np.concatenate(flips))

    def __len__(self) -> int:
        return len(self.images)

    def groups_of_copies(self, digests: np.ndarray) -> np.ndarray:
        """Number the groups of training images that share an embedded image.

        With flips, a mirrored copy is a copy too: the embedded images are the same.

        Args:
            digests: (n, 2) uint64, the digest of each embedded image.

        Returns:
            (N,) int64, the group of each training image, in the order of their first images; image
            n has group n if there are no copies.
        """
        _, version = np.unique(digests, axis=0, return_inverse=True)
        version = version.reshape(-1)
        first = np.arange(self.images.max() + 1)  # the first image of each image's group so far
        while True:
            smallest = np.full(version.max() + 1, len(first))
            np.minimum.at(smallest, version, first[self.images])
            joined = first.copy()
            np.minimum.at(joined, self.images, smallest[version])
            if np.array_equal(joined, first):
                return np.unique(first, return_inverse=True)[1].reshape(-1)
            first = joined


@dataclass(frozen=True)
class Origins:
    """Where each coreset patch comes from.

    Attributes:
        names: The name of each training image, for example its file.
        flips: The name of each version of an image: empty for no flip, then the model's flips.
        image: (M,) int64, positions in `names`.
        flip: (M,) int64, positions in `flips`.
        row: (M,) int64, row of the patch in the grid.
        column: (M,) int64, column of the patch in the grid.
    """

    names: tuple[str, ...]
    flips: tuple[str, ...]
    image: np.ndarray
    flip: np.ndarray
    row: np.ndarray
    column: np.ndarray

    @classmethod
    def locate(
        cls,
        indices: np.ndarray,
        grid: tuple[int, int],
        order: EmbeddingOrder,
        names: tuple[str, ...],
        flips: tuple[str, ...],
    ) -> "Origins":
        """Locate training patches.

        Args:
            indices: (M,) int64, numbers of the patches in the order of embedding.
            grid: (h, w).
            order: The order of embedding.
            names: The name of each training image; empty to number them.
            flips: The model's flips.
        """
        embedded, position = np.divmod(indices, grid[0] * grid[1])
        row, column = np.divmod(position, grid[1])
        names = names or tuple(f"image {number}" for number in range(order.images.max() + 1))
        return cls(names, ("", *flips), order.images[embedded], order.flips[embedded], row, column)

    def first(self, size: int) -> "Origins":
        """Return the origins of the first ``size`` coreset patches."""
        arrays = (self.image[:size], self.flip[:size], self.row[:size], self.column[:size])
        return Origins(self.names, self.flips, *arrays)
