"""The fit: training images -> coresets with their origins, and scores of held-out images.

The library, the commands and the benchmarks all call `fit`. Embeddings that do not fit into memory
are computed twice: the selections need only their projections (128 numbers a patch), and the second
pass keeps only the rows of selected patches. Both ways give the same results to the last bit.
"""

import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from patchcore.coreset import PROJECTION_DIM, centre_, project, select
from patchcore.device_memory import free_memory
from patchcore.embedder import Embedder
from patchcore.ensemble import NUM_SAMPLES, NormalScores, draw_sample, normal_scores
from patchcore.errors import PatchCoreError
from patchcore.explain import cut_patches, cut_size
from patchcore.held_out import Folds, HeldOutCollector, HeldOutScores
from patchcore.memory_bank import Coreset, MemoryBank
from patchcore.memory_plan import MemoryPlan, Needs, plan_memory
from patchcore.observer import NO_OBSERVER, Observer
from patchcore.origins import EmbeddingOrder, Origins
from patchcore.scoring import Scorer

# Share of the free memory that a fit may use; the rest is for the backbone, figures and others.
SHARE_OF_FREE_MEMORY = 0.7

log = logging.getLogger(__name__)


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


@dataclass(frozen=True)
class FitResult:
    """Result of a fit.

    Attributes:
        percentages: Shares of the training patches, ascending.
        coresets: Coreset of each seed, for all percentages. Only the first keeps patches' crops.
        held_out: For each percentage, scores of training images by coresets selected without them,
            with the first seed; None if there are too few images or they were not requested.
        normal: By seed, for each percentage, the scores of training patches; empty if not
            requested.
        plan: How the embeddings were kept.
    """

    percentages: tuple[float, ...]
    coresets: dict[int, Coreset]
    held_out: tuple[HeldOutScores | None, ...]
    normal: dict[int, list[NormalScores]]
    plan: MemoryPlan

    @property
    def first(self) -> Coreset:
        """The coreset of the first seed."""
        return next(iter(self.coresets.values()))


@dataclass(frozen=True)
class FitRequest:
    """Results to compute in a fit.

    Attributes:
        percentages: Shares of the training patches to select, ascending, in (0, 1].
        seeds: Seeds of the selections, without duplicates.
        held_out: Whether to score held-out images, for thresholds.
        patches: Whether to keep the crops of the coreset's patches.
        normal: Whether to measure the scores of training patches, for ensembles.
        memory_budget: Gigabytes for embeddings, selections and coresets; 0 for
            `SHARE_OF_FREE_MEMORY`.
    """

    percentages: tuple[float, ...]
    seeds: tuple[int, ...] = (0,)
    held_out: bool = True
    patches: bool = True
    normal: bool = False
    memory_budget: float = 0.0


def coreset_sizes(num_patches: int, percentages: Sequence[float], k: int) -> tuple[int, ...]:
    """Return the coreset size of each percentage: int(N * percentage), as in the paper's code.

    Raises:
        PatchCoreError: a size is smaller than k.
    """
    sizes = tuple(int(num_patches * percentage) for percentage in percentages)
    if sizes[0] < max(k, 1):
        raise PatchCoreError(
            f"expected at least k = {k} patches in the coreset, found {sizes[0]}: "
            f"{percentages[0]:g} of {num_patches} training patches (percentage_coreset, k)"
        )
    return sizes


@torch.inference_mode()
def fit(
    embedder: Embedder,
    scorer: Scorer,
    images: TrainingImages,
    request: FitRequest,
    observer: Observer = NO_OBSERVER,
) -> FitResult:
    """Learn what is normal.

    Args:
        embedder: Embeds the training images.
        scorer: Scores held-out images.
        images: The training images.
        request: Results to compute.
        observer: Observes the stages.

    Raises:
        PatchCoreError: there is no image; a percentage of the patches is fewer than k; the
            memory is too small; or an image has changed between the two passes.
    """
    if not len(images):
        raise PatchCoreError("expected at least one training image, found none")
    order = EmbeddingOrder.of(len(images), len(embedder.flip), images.batch_size)
    num_patches = embedder.num_patches(len(images))
    sizes = coreset_sizes(num_patches, request.percentages, scorer.k)
    folds = _make_folds(embedder, scorer, order, request)
    budget = request.memory_budget or SHARE_OF_FREE_MEMORY * free_memory(embedder.device)
    plan = plan_memory(_needs(embedder, request, len(order), sizes, folds), budget)
    if plan.passes > 1:
        log.info("memory is short: %s", plan.describe())

    first_seed = request.seeds[0]
    samples = {s: draw_sample(num_patches, s) for s in request.seeds} if request.normal else {}
    reader = _Reader(embedder, images, plan.passes > 1, observer)
    points, rows, crops = _first_pass(reader, request, num_patches, plan)
    selected = {}
    for seed in request.seeds:
        with observer.selection(seed, sizes) as progress:
            indices = select(centre_(points[seed], seed), sizes[-1], seed=seed, progress=progress)
        selected[seed] = indices.cpu().numpy()
    fold_selections = [
        select(points[first_seed], fold.sizes[-1], seed=first_seed, candidates=fold.candidates)
        for fold in folds
    ]
    fold_selections = [indices.cpu().numpy() for indices in fold_selections]
    points.clear()

    cutter = _PatchCutter(selected[first_seed], embedder) if request.patches else None
    if rows is None:
        scored = [fold.patches for fold in folds]
        needed = [*selected.values(), *fold_selections, *scored, *samples.values()]
        rows = _second_pass(reader, np.unique(np.concatenate(needed)), cutter)
    elif cutter is not None:
        for start, version in crops:
            cutter.add(start, version)
    coresets = {
        seed: Coreset(
            indices,
            sizes,
            MemoryBank(rows.take(indices)),
            seed,
            Origins.locate(indices, embedder.grid, order, tuple(images.names), embedder.flip),
            cutter.patches if cutter is not None and seed == first_seed else None,
        )
        for seed, indices in selected.items()
    }
    held_out = _score_held_out(embedder, scorer, rows, folds, fold_selections, len(sizes))
    normal = {}
    for seed, sample in samples.items():
        with observer.stage("normalise", seed):
            normal[seed] = normal_scores(rows.take(sample), sample, coresets[seed], scorer.k)
    return FitResult(request.percentages, coresets, held_out, normal, plan)


class _Reader:
    """Embeds the training images in batches, and checks that both readings are equal.

    Args:
        embedder: Embeds the images.
        images: The training images.
        checked: Whether the images will be read twice.
        observer: Observes the stages.
    """

    def __init__(
        self, embedder: Embedder, images: TrainingImages, checked: bool, observer: Observer
    ):
        self.embedder = embedder
        self.num_images = len(images)
        self.observer = observer
        self._images = images
        self._checked = checked
        self._digests: list[bytes] = []

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
            for number, batch in enumerate(self.observer.read(self._images.batches())):
                self._check(number, count, batch)
                count += len(batch)
                for version in self.embedder.versions(batch):
                    yield done, version, self.embedder.embed(version).flatten(0, 2)
                    done += len(version)
                    self.observer.advance(len(version))
        if count != self.num_images:
            raise PatchCoreError(f"expected {self.num_images} training images, found {count}")

    def _check(self, number: int, count: int, batch: np.ndarray) -> None:
        if not self._checked:
            return
        digest = hashlib.blake2b(batch.tobytes()).digest()
        if number == len(self._digests):
            self._digests.append(digest)
        elif digest != self._digests[number]:
            names = self._images.names[count : count + len(batch)]
            raise PatchCoreError(
                "expected the same training images in both passes, found a change among "
                f"{', '.join(names) or f'images {count} to {count + len(batch) - 1}'}"
            )


class _Rows:
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


class _PatchCutter:
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
class _Fold:
    """Fold of images that are scored by a coreset of the other folds.

    Attributes:
        images: (n,) int64, training images to score.
        patches: (n * h * w,) int64, the numbers of their patches.
        candidates: (N,) bool, the patches of the other folds.
        sizes: Coreset sizes of the percentages, ascending.
    """

    images: np.ndarray
    patches: np.ndarray
    candidates: torch.Tensor
    sizes: tuple[int, ...]


def _make_folds(
    embedder: Embedder, scorer: Scorer, order: EmbeddingOrder, request: FitRequest
) -> list[_Fold]:
    """Return the folds to score; none if the other folds have too few patches."""
    if not request.held_out:
        return []
    per_image = embedder.patches_per_image
    folds = Folds(int(order.images.max()) + 1, request.seeds[0])
    unflipped = np.flatnonzero(order.flips == 0)  # (num_images,) in the order of embedding
    made = []
    for number in folds.needed():
        others = folds.fold_of_image[order.images] != number
        try:
            sizes = coreset_sizes(int(others.sum()) * per_image, request.percentages, scorer.k)
        except PatchCoreError:
            return []
        images = folds.scored_images(number)
        patches = unflipped[images][:, None] * per_image + np.arange(per_image)
        candidates = torch.from_numpy(np.repeat(others, per_image)).to(embedder.device)
        made.append(_Fold(images, patches.ravel(), candidates, sizes))
    return made


def _needs(
    embedder: Embedder,
    request: FitRequest,
    num_embedded: int,
    sizes: Sequence[int],
    folds: Sequence[_Fold],
) -> Needs:
    """Return what the fit keeps in memory."""
    size = embedder.preprocess.size_crop
    piece = cut_size(embedder.grid, size)
    # Images and their crops stay in the host's memory; for a GPU, the plan covers its own memory.
    keeps_images = request.patches and embedder.device.type == "cpu"
    sampled = NUM_SAMPLES * len(request.seeds) if request.normal else 0
    return Needs(
        num_images=num_embedded,
        patches_per_image=embedder.patches_per_image,
        embed_dim=embedder.embed_dim,
        coreset_sizes=(sizes[-1],) * len(request.seeds),
        fold_sizes=tuple(fold.sizes[-1] for fold in folds),
        scored_patches=sum(len(fold.patches) for fold in folds) + sampled,
        image_bytes=3 * size[0] * size[1] if keeps_images else 0,
        patch_bytes=3 * piece[0] * piece[1] if keeps_images else 0,
    )


def _first_pass(
    reader: _Reader, request: FitRequest, num_patches: int, plan: MemoryPlan
) -> tuple[dict[int, torch.Tensor], _Rows | None, list[tuple[int, np.ndarray]]]:
    """Project all patches, and keep their embeddings and images if they fit.

    Returns:
        The projections (N, P) of each seed; the embeddings, None if they do not fit; the batches of
        images, each with the number of images before it, empty if they are not needed.
    """
    device, dim = reader.embedder.device, reader.embedder.embed_dim
    points = {
        seed: torch.empty(num_patches, PROJECTION_DIM, device=device) for seed in request.seeds
    }
    one_pass = plan.passes == 1
    rows = torch.empty(num_patches, dim, device=device) if one_pass else None
    crops = []
    per_image = reader.embedder.patches_per_image
    for start, version, embeddings in reader.read():
        first = start * per_image
        here = slice(first, first + len(embeddings))
        for seed, projected in points.items():
            projected[here] = project(embeddings, seed)
        if one_pass:
            rows[here] = embeddings
            if request.patches:
                crops.append((start, version))
    return points, _Rows(rows) if one_pass else None, crops


def _second_pass(reader: _Reader, numbers: np.ndarray, cutter: _PatchCutter | None) -> _Rows:
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
    return _Rows(kept, numbers)


def _score_held_out(
    embedder: Embedder,
    scorer: Scorer,
    rows: _Rows,
    folds: Sequence[_Fold],
    selections: Sequence[np.ndarray],
    num_percentages: int,
) -> tuple[HeldOutScores | None, ...]:
    """Score the images of each fold by the coreset of the other folds."""
    collector = HeldOutCollector(scorer, embedder.preprocess.size_crop, num_percentages)
    for fold, indices in zip(folds, selections, strict=True):
        patches_of = fold.patches.reshape(len(fold.images), -1)

        def embeddings_of(batch: slice, patches_of: np.ndarray = patches_of) -> torch.Tensor:
            taken = rows.take(patches_of[batch].ravel())
            return taken.view(-1, *embedder.grid, taken.shape[1])

        collector.add(MemoryBank(rows.take(indices)), fold.sizes, len(fold.images), embeddings_of)
    return collector.finish()
