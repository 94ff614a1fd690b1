"""Passes over the training images: embed, project, and keep what a fit needs."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import torch

from patchcore.coreset import PROJECTION_DIM, project
from patchcore.embedder import Embedder
from patchcore.errors import ChangedImagesError, PatchCoreError
from patchcore.explain import crop_patches, crop_size
from patchcore.observer import Observer
from patchcore.origins import locate, numbered_names
from patchcore.scoring import Scorer
from patchcore.shards import LocalShards, Shards


class Notes(Protocol):
    """What was noticed while images were read; another process can send it."""

    def merge(self, other: "Notes") -> None:
        """Add the notes of other images."""


class TrainingImages(Protocol):
    """Cropped training images, in batches that can be read again.

    Attributes:
        names: The name of each image, for explanations; may be empty.
        batch_size: Number of images in each batch but the last.
        notes: What was noticed while the images were read; None, or an object with a method
            ``merge`` that takes the notes of a part.
    """

    names: tuple[str, ...]
    batch_size: int
    notes: Notes | None

    def __len__(self) -> int:
        """Return the number of images."""

    def batches(self) -> Iterator[np.ndarray]:
        """Yield the images, (B, *size_crop, 3) uint8 RGB, in the same batches at each call."""

    def part(self, start: int, stop: int) -> "TrainingImages":
        """Return the images from ``start`` to ``stop``; only several machines need parts."""


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
    notes: ClassVar[None] = None  # nothing is read

    def __len__(self) -> int:
        return len(self.crops)

    def batches(self) -> Iterator[np.ndarray]:
        """Yield the images in batches."""
        for first in range(0, len(self.crops), self.batch_size):
            yield np.stack(self.crops[first : first + self.batch_size])

    def part(self, start: int, stop: int) -> "CroppedImages":
        """Return the images from ``start`` to ``stop``."""
        return CroppedImages(self.crops[start:stop], self.names[start:stop], self.batch_size)


class ImageReader:
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
            names = self._images.names or numbered_names(self.num_images)
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


class PatchCropper:
    """Crops the coreset patches from the training images, batch by batch.

    Args:
        indices: (M,) int64, numbers of the patches.
        embedder: Provides the grid and the size of the images.

    Attributes:
        indices: (M,) int64, numbers of the patches.
        patches: (M, ph, pw, 3) uint8, the crops.
    """

    def __init__(self, indices: np.ndarray, embedder: Embedder):
        self.indices = indices
        grid, size = embedder.grid, embedder.preprocess.size_crop
        self._grid = grid
        self._image, self._row, self._column = locate(indices, grid)
        self.patches = np.empty((len(indices), *crop_size(grid, size), 3), dtype=np.uint8)

    def add(self, start: int, version: np.ndarray) -> None:
        """Crop the patches of a batch (B, H, W, 3); ``start`` images came before it."""
        here = np.flatnonzero((self._image >= start) & (self._image < start + len(version)))
        self.patches[here] = crop_patches(
            version, self._image[here] - start, self._row[here], self._column[here], self._grid
        )


class Patches(Protocol):
    """The training patches of a fit, embedded on this machine or spread over several.

    Attributes:
        digests: (n, 2) uint64, the digest of each embedded image; empty if not noted.
        features: (n, D) `Scorer.image_features` of each embedded image; None if images are not
            compared by them.
    """

    digests: np.ndarray
    features: torch.Tensor | None

    def shards(self, seed: int, candidates: torch.Tensor | None) -> list[Shards]:
        """Return the projections of a seed, for each bank.

        Args:
            seed: One of the seeds of the fit.
            candidates: (N,) bool, the patches to select from; None for all.
        """

    def free_projections(self) -> None:
        """Give back the memory of the projections."""

    def rows(self, numbers: np.ndarray, cropper: "PatchCropper | None") -> "EmbeddingRows":
        """Return the embeddings of at least the patches (m,), and crop patches."""

    def close(self) -> None:
        """Give back all memory; also called after an error."""


class LocalPatches:
    """The training patches on this machine, as `Patches`.

    Args:
        reader: Reads and embeds the images.
        seeds: Seeds of the projections.
        scorer: Defines the points that are projected.
        judged: (N,) bool, the patches that are not ignored; None for all.
        keep_embeddings: Whether to keep the embeddings of all patches; if not, `rows` embeds again.
        keep_images: Whether to keep the images, in all versions, for their crops. Without
            embeddings they are never kept.
    """

    def __init__(
        self,
        reader: ImageReader,
        seeds: Sequence[int],
        scorer: Scorer,
        judged: torch.Tensor | None,
        *,
        keep_embeddings: bool,
        keep_images: bool,
    ):
        embedder, num_patches = reader.embedder, reader.embedder.num_patches(reader.num_images)
        num_banks = scorer.metric.num_banks
        self._reader, self._scorer = reader, scorer
        # For each seed, the projections (N, P) of all training patches for each bank.
        self._points = {
            seed: [
                torch.empty(num_patches, PROJECTION_DIM, device=embedder.device)
                for _ in range(num_banks)
            ]
            for seed in seeds
        }
        self._rows = None
        if keep_embeddings:
            self._rows = torch.empty(num_patches, embedder.embed_dim, device=embedder.device)
        self._images: list[tuple[int, np.ndarray]] = []
        features = []
        for start, version, embeddings in reader.read():
            first = start * embedder.patches_per_image
            here = slice(first, first + len(embeddings))
            judged_here = None if judged is None else judged[here]
            features += self._keep(here, embeddings, judged_here)
            if keep_embeddings and keep_images:
                self._images.append((start, version))
        self.digests = reader.digests
        self.features = torch.cat(features) if features else None

    def _keep(
        self, here: slice, embeddings: torch.Tensor, judged: torch.Tensor | None
    ) -> list[torch.Tensor]:
        """Keep what is needed of the patches of a batch; return the features of its images."""
        points = self._scorer.metric.points(embeddings)
        parts = self._scorer.metric.parts(points)
        for seed, of_banks in self._points.items():
            for projected, part in zip(of_banks, parts, strict=True):
                projected[here] = project(part, seed)
        if self._rows is not None:
            self._rows[here] = embeddings
        if not self._scorer.retrieves_images:
            return []
        shape = -1, self._reader.embedder.patches_per_image
        judged = None if judged is None else judged.view(shape)
        return [self._scorer.image_features(points.unflatten(0, shape), judged)]

    def shards(self, seed: int, candidates: torch.Tensor | None) -> list[Shards]:
        """Return one shard for each bank, as `Patches.shards`."""
        return [LocalShards.of(projected, candidates) for projected in self._points[seed]]

    def free_projections(self) -> None:
        """Give back the memory of the projections."""
        self._points.clear()

    def close(self) -> None:
        """Give back all memory."""
        self._points.clear()
        self._images.clear()
        self._rows = None

    def rows(self, numbers: np.ndarray, cropper: "PatchCropper | None") -> "EmbeddingRows":
        """Return embeddings, as `Patches.rows`; embed again if they were not kept."""
        if self._rows is None:
            return second_pass(self._reader, np.unique(numbers), cropper)
        if cropper is not None:
            for start, version in self._images:
                cropper.add(start, version)
        return EmbeddingRows(self._rows)


def second_pass(
    reader: ImageReader, numbers: np.ndarray, cropper: PatchCropper | None
) -> EmbeddingRows:
    """Embed again and keep the rows of patches (n,), ascending; crop the coreset's patches."""
    embedder = reader.embedder
    kept = torch.empty(len(numbers), embedder.embed_dim, device=embedder.device)
    for start, version, embeddings in reader.read():
        first = start * embedder.patches_per_image
        begin, end = np.searchsorted(numbers, (first, first + len(embeddings)))
        wanted = torch.from_numpy(numbers[begin:end] - first).to(embedder.device)
        kept[begin:end] = embeddings[wanted]
        if cropper is not None:
            cropper.add(start, version)
    return EmbeddingRows(kept, numbers)
