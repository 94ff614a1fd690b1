"""The folds of training images: each is scored by a coreset of the other folds."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from patchcore.coreset import alternate, select_sizes
from patchcore.errors import PatchCoreError
from patchcore.held_out import ENOUGH_IMAGES, HeldOutCollector, HeldOutScores
from patchcore.passes import EmbeddingRows, Patches
from patchcore.training_patches import TrainingPatches, coreset_sizes

# The images of a fold are scored by a coreset of three quarters of all images. Its selection takes
# nine sixteenths of the time of the full one. With more folds, more selections are needed to score
# enough images: five took 1.3 to 1.5 times as long for MVTec AD's bottle (209 images, 1 % and
# 10 %), and changed thresholds by 0 to 3 %, no more than another seed does.
NUM_FOLDS = 4


class Folds:
    """The division of training images into folds; copies of an image are in one fold.

    Only the first of several copies is scored: the rate of a threshold follows from the number of
    different images.

    Args:
        group_of_image: (N,) int64, the group of each training image: copies of one image are a
            group. The groups are numbered in the order of their first images.
        seed: Seed of the division.
    """

    def __init__(self, group_of_image: np.ndarray, seed: int):
        groups, self._first_images = np.unique(group_of_image, return_index=True)
        self._count = min(NUM_FOLDS, len(groups))
        fold_of_group = np.empty(len(groups), dtype=np.int64)
        shuffled = np.random.RandomState(seed).permutation(len(groups))
        fold_of_group[shuffled] = np.arange(len(groups)) % self._count
        self.fold_of_image = fold_of_group[group_of_image]

    def needed(self) -> Iterator[int]:
        """Yield folds until enough images are scored; none if all images are copies of one."""
        done = 0
        for fold in range(self._count if self._count > 1 else 0):
            if done >= ENOUGH_IMAGES:
                return
            done += len(self.scored_images(fold))
            yield fold

    def scored_images(self, fold: int) -> np.ndarray:
        """Return the training images of a fold to score: at most `ENOUGH_IMAGES`, no copies."""
        first = self._first_images
        return first[self.fold_of_image[first] == fold][:ENOUGH_IMAGES]


@dataclass(frozen=True)
class Fold:
    """Fold of images that are scored by a coreset of the other folds.

    Attributes:
        images: (n,) int64, training images to score.
        patches: (n, h * w) int64, the numbers of their patches.
        candidates: (N,) bool, the judged patches of the other folds.
        sizes: Coreset sizes of the percentages, ascending, of each bank.
    """

    images: np.ndarray
    patches: np.ndarray
    candidates: torch.Tensor
    sizes: tuple[int, ...]

    def select(self, patches: Patches, seed: int) -> np.ndarray:
        """Select the largest coreset (M * L,) of the other folds."""
        banks = patches.shards(seed, self.candidates)
        found = [select_sizes(shards, self.sizes, seed=seed) for shards in banks]
        return alternate(found, self.candidates)


def make_folds(training: TrainingPatches, groups: np.ndarray | None) -> list[Fold]:
    """Return the folds to score; none if the other folds have too few patches.

    Args:
        training: The training patches.
        groups: (N,) int64, the group of copies of each training image; None if no held-out scores
            are requested.
    """
    request, order = training.request, training.order
    if not request.held_out:
        return []
    per_image = training.embedder.patches_per_image
    folds = Folds(groups, request.seeds[0])
    made = []
    for number in folds.needed():
        others = folds.fold_of_image[order.images] != number
        candidates = torch.from_numpy(np.repeat(others, per_image)).to(training.embedder.device)
        if training.judged is not None:
            candidates &= training.judged
        try:
            count = int(candidates.sum())
            sizes = coreset_sizes(count, request.percentages, training.scorer)
        except PatchCoreError:
            return []
        images = folds.scored_images(number)
        made.append(Fold(images, order.patches_of(images, per_image), candidates, sizes))
    return made


def score_folds(
    training: TrainingPatches,
    folds: Sequence[Fold],
    selections: Sequence[np.ndarray],
    rows: EmbeddingRows,
    features: torch.Tensor | None,
) -> tuple[HeldOutScores | None, ...]:
    """Score the images of each fold by the coreset of the other folds.

    Args:
        training: The training patches.
        folds: The folds.
        selections: `Fold.select` of each fold.
        rows: The embeddings of the selected patches, and of those to score.
        features: As in `Patches`.
    """
    scorer, size = training.scorer, training.embedder.preprocess.size_crop
    collector = HeldOutCollector(scorer, size, len(training.sizes))
    for fold, indices in zip(folds, selections, strict=True):
        bank = scorer.make_bank(rows.take(indices), indices, features)
        sizes = [scorer.metric.num_banks * count for count in fold.sizes]
        collector.add(bank, sizes, fold.images, fold.patches, rows)
    return collector.finish()
