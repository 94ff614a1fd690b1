"""Passes over the training images: embed, project, and keep what a fit needs of them."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from patchcore.coreset import PROJECTION_DIM, project
from patchcore.embedder import Embedder
from patchcore.errors import ChangedImagesError, PatchCoreError
from patchcore.explain import cut_patches, cut_size
from patchcore.observer import Observer
from patchcore.scoring import Scorer

# For each seed, the projections (N, P) of all training patches for each bank.
Projections = dict[int, list[torch.Tensor]]


class TrainingImages(Protocol):
    """Cropped training images, in batches that can be read again.

    Attributes:
        names: The name of each image, for explanations; may be empty.
        batch_size: Number of images in each batch but the last.
    """

    names: tuple[str, ...]
    batch_size: int

    def __len__(self) -> int:
        """Return the number of images."""

    def batches(self) -> Iterator[np.ndarray]:
        """Yield the images, (B, *size_crop, 3) uint8 RGB, in the same batches at each call."""


@dataclass(frozen=True)
class CroppedImages:
    """Training images in memory.

    Attributes:
        crops: Each (*size_crop, 3) uint8 RGB.
        names: The name of each image; may be empty.
        batch_size: Number of images in each batch but the last.
    """

    crops: Sequence[np.ndarray]
    names: tuple[str, ...]
    batch_size: int

    def __len__(self) -> int:
        return len(self.crops)

    def batches(self) -> Iterator[np.ndarray]:
        """Yield the images in batches."""
        for first in range(0, len(self.crops), self.batch_size):
            yield np.stack(self.crops[first : first + self.batch_size])


class Reader:
    """Embeds the training images in batches, and checks that both readings are equal.

    Attributes:
        embedder: Embeds the images.
        num_images: Number of training images.
        observer: Observes the stages.

    Args:
        embedder: Embeds the images.
        images: The training images.
        with_digests: Whether to note the digest of each image, to compare a second reading and to
            find copies.
        observer: Observes the stages.
    """

    def __init__(
        self, embedder: Embedder, images: TrainingImages, with_digests: bool, observer: Observer
    ):
        self.embedder = embedder
        self.num_images = len(images)
        self.observer = observer
        self._images = images
        self._with_digests = with_digests
        # Of each embedded image, in the order of embedding.
        self._digests: list[bytes] = []

    @property
    def digests(self) -> np.ndarray:
        """(n, 2) uint64, the digest of each embedded image; known after the first reading."""
        return np.frombuffer(b"".join(self._digests), dtype=np.uint64).reshape(-1, 2)

    def read(self) -> Iterator[tuple[int, np.ndarray, torch.Tensor]]:
        """Yield the images in the order of embedding, batch by batch.

        Yields:
            The number of embedded images before this batch; the images (B, H, W, 3) uint8; their
            embeddings (B * h * w, D) float32.

        Raises:
            PatchCoreError: the number of images has changed, or an image at the second reading.
        """
        count = done = 0
        with self.observer.stage("embed"):
            for batch in self.observer.read(self._images.batches()):
                first, count = count, count + len(batch)
                for version in self.embedder.each_version(batch):
                    self._check(done, first, version)
                    yield done, version, self.embedder.embed(version).flatten(0, 2)
                    done += len(version)
                    self.observer.advance(len(version))
        if count != self.num_images:
            raise PatchCoreError(f"expected {self.num_images} training images, found {count}")

    def _check(self, start: int, first: int, version: np.ndarray) -> None:
        """Note the digests of images at the first reading; compare them at the second.

        Args:
            start: Number of images that were embedded before.
            first: Number of the first training image.
            version: (B, H, W, 3) uint8, the images.
        """
        if not self._with_digests:
            return
        digests = [hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in version]
        known = self._digests[start : start + len(version)]
        if not known:
            self._digests += digests
            return
        changed = [
            first + at for at, digest in enumerate(digests) if known[at : at + 1] != [digest]
        ]
        if changed:
            names = self._images.names or [f"image {number}" for number in range(self.num_images)]
            raise ChangedImagesError([names[number] for number in changed])


class EmbeddingRows:
    """Embeddings of some training patches, found by the number of the patch.

    Args:
        embeddings: (n, D) float32.
        numbers: (n,) int64, ascending, the number of each patch; None for all patches.
    """

    def __init__(self, embeddings: torch.Tensor, numbers: np.ndarray | None = None):
        self._embeddings = embeddings
        self._numbers = numbers

    def take(self, numbers: np.ndarray) -> torch.Tensor:
        """Return the embeddings (m, D) of patches (m,)."""
        if self._numbers is not None:
            numbers = np.searchsorted(self._numbers, numbers)
        return self._embeddings[torch.from_numpy(numbers).to(self._embeddings.device)]


class PatchCutter:
    """Crops the coreset patches from the training images, batch by batch.

    Args:
        indices: (M,) int64, numbers of the patches.
        embedder: Provides the grid and the size of the images.

    Attributes:
        patches: (M, ph, pw, 3) uint8, the crops.
    """

    def __init__(self, indices: np.ndarray, embedder: Embedder):
        grid, size = embedder.grid, embedder.preprocess.size_crop
        self._grid = grid
        self._image, position = np.divmod(indices, grid[0] * grid[1])
        self._row, self._column = np.divmod(position, grid[1])
        self.patches = np.empty((len(indices), *cut_size(grid, size), 3), dtype=np.uint8)

    def add(self, start: int, version: np.ndarray) -> None:
        """Crop the patches of a batch (B, H, W, 3); ``start`` images came before it."""
        here = np.flatnonzero((self._image >= start) & (self._image < start + len(version)))
        self.patches[here] = cut_patches(
            version, self._image[here] - start, self._row[here], self._column[here], self._grid
        )


@dataclass(frozen=True)
class FirstPass:
    """What the first pass over the training images keeps.

    Attributes:
        points: The projections of each seed and bank.
        rows: The embeddings of all patches; None if not kept.
        crops: The batches of images, each with the number of images before it; empty if not kept.
        features: (n, D) `Scorer.image_features` of each embedded image; None if images are not
            compared by them.
    """

    points: Projections
    rows: EmbeddingRows | None
    crops: list[tuple[int, np.ndarray]]
    features: torch.Tensor | None


def first_pass(
    reader: Reader,
    seeds: Sequence[int],
    scorer: Scorer,
    judged: torch.Tensor | None,
    *,
    keep_embeddings: bool,
    keep_images: bool,
) -> FirstPass:
    """Project all patches, and keep their embeddings and images on request.

    Args:
        reader: Reads and embeds the images.
        seeds: Seeds of the projections.
        scorer: Defines the points that are projected.
        judged: (N,) bool, the patches that are not ignored; None for all.
        keep_embeddings: Whether to keep the embeddings of all patches.
        keep_images: Whether to keep the images, in all versions.
    """
    embedder, metric = reader.embedder, scorer.metric
    num_patches, device = embedder.num_patches(reader.num_images), embedder.device
    points = {
        seed: [
            torch.empty(num_patches, PROJECTION_DIM, device=device) for _ in range(metric.num_banks)
        ]
        for seed in seeds
    }
    rows = torch.empty(num_patches, embedder.embed_dim, device=device) if keep_embeddings else None
    crops, features = [], []
    for start, version, embeddings in reader.read():
        first = start * embedder.patches_per_image
        here = slice(first, first + len(embeddings))
        batch_points = metric.points(embeddings)
        if scorer.retrieves_images:
            shape = -1, embedder.patches_per_image
            judged_here = None if judged is None else judged[here].view(shape)
            features.append(scorer.image_features(batch_points.unflatten(0, shape), judged_here))
        parts = metric.parts(batch_points)
        for seed, of_banks in points.items():
            for projected, part in zip(of_banks, parts, strict=True):
                projected[here] = project(part, seed)
        if rows is not None:
            rows[here] = embeddings
        if keep_images:
            crops.append((start, version))
    kept = None if rows is None else EmbeddingRows(rows)
    return FirstPass(points, kept, crops, torch.cat(features) if features else None)


def second_pass(reader: Reader, numbers: np.ndarray, cutter: PatchCutter | None) -> EmbeddingRows:
    """Embed again and keep the rows of patches (n,), ascending; crop the coreset's patches."""
    embedder = reader.embedder
    kept = torch.empty(len(numbers), embedder.embed_dim, device=embedder.device)
    for start, version, embeddings in reader.read():
        first = start * embedder.patches_per_image
        begin, end = np.searchsorted(numbers, (first, first + len(embeddings)))
        wanted = torch.from_numpy(numbers[begin:end] - first).to(embedder.device)
        kept[begin:end] = embeddings[wanted]
        if cutter is not None:
            cutter.add(start, version)
    return EmbeddingRows(kept, numbers)
