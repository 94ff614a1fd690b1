"""Where patches come from: the order of embedding, and the training image of each coreset patch."""

from dataclasses import dataclass

import numpy as np


def locate(numbers: np.ndarray, grid: tuple[int, int]) -> tuple[np.ndarray, ...]:
    """Return image, row and column of patches by their numbers, counted over the images' grids."""
    image, position = np.divmod(numbers, grid[0] * grid[1])
    return image, *np.divmod(position, grid[1])


def numbered_names(count: int, first: int = 0) -> tuple[str, ...]:
    """Return names for ``count`` unnamed images, numbered from ``first``."""
    return tuple(f"image {number}" for number in range(first, first + count))


@dataclass(frozen=True)
class EmbeddingOrder:
    """Training image and version of each embedded image.

    Each batch is embedded as it is, then in each other version (`patchcore.augment`). With several
    versions, the n-th embedded image is therefore not the n-th training image.

    Attributes:
        images: (n,) int64, the number of the training image.
        versions: (n,) int64, the number of the version; 0 for the image itself.
    """

    images: np.ndarray
    versions: np.ndarray

    @classmethod
    def of(cls, num_images: int, num_versions: int, batch_size: int) -> "EmbeddingOrder":
        """Return the order for a number of training images.

        Args:
            num_images: Number of training images.
            num_versions: Number of versions of each image, with the image itself.
            batch_size: Number of training images in a batch.
        """
        numbers = np.arange(num_images, dtype=np.int64)
        numbers_of_versions = range(num_versions)
        batches = np.split(numbers, range(batch_size, num_images, batch_size))
        images = [batch for batch in batches for _ in numbers_of_versions]
        versions = [
            np.full(len(batch), version) for batch in batches for version in numbers_of_versions
        ]
        return cls(np.concatenate(images), np.concatenate(versions))

    def __len__(self) -> int:
        return len(self.images)

    @property
    def num_images(self) -> int:
        """Number of training images."""
        return int(self.images.max()) + 1

    def patches_of(self, images: np.ndarray, patches_per_image: int) -> np.ndarray:
        """Return the numbers (n, h * w) of the patches of training images (n,), as they are."""
        unchanged = np.flatnonzero(self.versions == 0)  # (num_images,)
        return unchanged[images][:, None] * patches_per_image + np.arange(patches_per_image)

    def groups_of_copies(self, digests: np.ndarray) -> np.ndarray:
        """Number the groups of training images that share an embedded image.

        With flips among the versions, a mirrored copy is a copy too: an embedded image is the same.

        Args:
            digests: (n, 2) uint64, the digest of each embedded image.

        Returns:
            (N,) int64, the group of each training image, in the order of their first images; image
            n has group n if there are no copies.
        """
        _, version = np.unique(digests, axis=0, return_inverse=True)
        version = version.reshape(-1)
        first = np.arange(self.num_images)  # the first image of each image's group so far
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
        versions: The name of each version of an image; empty for the image itself.
        image: (M,) int64, positions in `names`.
        version: (M,) int64, positions in `versions`.
        row: (M,) int64, row of the patch in the grid.
        column: (M,) int64, column of the patch in the grid.
    """

    names: tuple[str, ...]
    versions: tuple[str, ...]
    image: np.ndarray
    version: np.ndarray
    row: np.ndarray
    column: np.ndarray

    @classmethod
    def locate(
        cls,
        indices: np.ndarray,
        grid: tuple[int, int],
        order: EmbeddingOrder,
        names: tuple[str, ...],
        versions: tuple[str, ...],
    ) -> "Origins":
        """Locate training patches.

        Args:
            indices: (M,) int64, numbers of the patches in the order of embedding.
            grid: (h, w).
            order: The order of embedding.
            names: The name of each training image; empty to number them.
            versions: The name of each version of an image.
        """
        embedded, row, column = locate(indices, grid)
        names = names or numbered_names(order.num_images)
        images, numbers = order.images[embedded], order.versions[embedded]
        return cls(names, versions, images, numbers, row, column)

    def first(self, size: int) -> "Origins":
        """Return the origins of the first ``size`` coreset patches."""
        arrays = (self.image[:size], self.version[:size], self.row[:size], self.column[:size])
        return Origins(self.names, self.versions, *arrays)
