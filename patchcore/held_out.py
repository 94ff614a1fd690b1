"""How normal images score that the memory bank has not seen: thresholds without any defect.

The training images are put into folds. A fold's images are scored by the coreset's patches of all
other folds' images, as if they came anew. Nothing is selected again: what lies in the coreset is
part of a coreset of the other images, only a little less dense, so that scores are rather too
large than too small.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from patchcore.memory_bank import Coreset, MemoryBank
from patchcore.origins import Origins

if TYPE_CHECKING:
    from patchcore.model import PatchCore

# Images that are scored at most: a false-positive rate of 1 % needs 99.
NUM_IMAGES = 200
NUM_FOLDS = 10
# Pixels that are looked at in all, so that memory stays small where maps are large.
NUM_PIXELS = 1 << 23
# False-positive rates whose pixel thresholds are kept.
PIXEL_RATES = np.concatenate([[0.0], np.logspace(-5, 0, 101)])


@dataclass(frozen=True)
class HeldOutScores:
    """Scores of normal images that the bank has not seen.

    Attributes:
        image_scores: (n,) float32, their anomaly scores, ascending.
        pixel_scores: (102,) float32: the value of their maps that a share `PIXEL_RATES` of all
            pixels reaches.
    """

    image_scores: np.ndarray
    pixel_scores: np.ndarray

    def image_threshold(self, rate: float) -> tuple[float, float]:
        """Return the least threshold that a new normal image reaches with at most this probability.

        Of n + 1 images that are alike, each is equally likely to be the r-th largest: a new image
        is above the r-th largest of n with a probability of at most r / (n + 1) (split conformal
        prediction; Vovk et al. 2005). With few images no threshold keeps a small rate; then it is
        just above the largest score.

        Args:
            rate: In (0, 1].

        Returns:
            The threshold, and the rate that it keeps: 1 / (n + 1) at least.
        """
        count = len(self.image_scores)
        rank = min(max(int(rate * (count + 1) * (1 + 1e-9)), 1), count)
        # Scores from the threshold on are anomalous: the next float after the score itself.
        score = np.nextafter(self.image_scores[count - rank], np.float32(np.inf))
        return float(score), rank / (count + 1)

    def pixel_threshold(self, rate: float) -> float:
        """Return the map's value that a share ``rate`` of normal pixels reaches."""
        return float(np.interp(rate, PIXEL_RATES, self.pixel_scores))


@torch.inference_mode()
def held_out_scores(
    model: "PatchCore",
    coreset: Coreset,
    origins: Origins,
    embed: Callable[[np.ndarray], torch.Tensor],
) -> list[HeldOutScores | None]:
    """Score training images as if the bank had not seen them.

    Args:
        model: The method.
        coreset: Selected from all training patches.
        origins: Of all embedded images.
        embed: Called with the numbers (b,) of a few embedded images, gives (b, h, w, D).

    Returns:
        For each percentage; None where there is one image only, or where too few patches are left
        without a fold's.
    """
    num_images = int(origins.images.max()) + 1
    num_folds = min(NUM_FOLDS, num_images)
    if num_folds < 2:
        return [None] * len(coreset.sizes)
    shuffled = np.random.RandomState(coreset.seed).permutation(num_images)
    folds = np.empty(num_images, dtype=np.int64)
    folds[shuffled] = np.arange(num_images) % num_folds
    as_it_is = origins.flips == 0
    wanted = as_it_is & np.isin(origins.images, shuffled[:NUM_IMAGES])
    stride = _stride(int(wanted.sum()), model.preprocess.size_crop)
    fold_of = folds[origins.images]
    scores: list[list[np.ndarray]] = [[] for _ in coreset.sizes]
    pixels: list[list[np.ndarray]] = [[] for _ in coreset.sizes]
    for fold in range(num_folds):
        others = _without_fold(coreset, fold_of, fold, model.patches_per_image)
        if others.sizes[0] < max(model.k, 1):
            return [None] * len(coreset.sizes)
        numbers = np.flatnonzero(wanted & (fold_of == fold))
        for embeddings in _batches(numbers, embed):
            for number, found in enumerate(model.nearest(embeddings, others)):
                prediction = model.score(embeddings, found, others)
                scores[number].append(prediction.score)
                pixels[number].append(prediction.anomaly_map[:, ::stride, ::stride].reshape(-1))
    return [
        HeldOutScores(np.sort(np.concatenate(of_images)), _reached(np.concatenate(of_pixels)))
        for of_images, of_pixels in zip(scores, pixels, strict=True)
    ]


# Images at a time: enough for the search's preparation to pay, few enough for little memory.
BATCH_IMAGES = 16


def _batches(
    numbers: np.ndarray, embed: Callable[[np.ndarray], torch.Tensor]
) -> Iterator[torch.Tensor]:
    for start in range(0, len(numbers), BATCH_IMAGES):
        yield embed(numbers[start : start + BATCH_IMAGES])


def _without_fold(
    coreset: Coreset, fold_of: np.ndarray, fold: int, patches_per_image: int
) -> Coreset:
    """Return the coreset without the patches of one fold's images; it may be empty."""
    kept = fold_of[coreset.indices // patches_per_image] != fold  # (M,)
    sizes = tuple(int(kept[:size].sum()) for size in coreset.sizes)
    embeddings = coreset.bank.embeddings
    rows = torch.from_numpy(np.flatnonzero(kept)).to(embeddings.device)
    bank = MemoryBank(embeddings[rows]) if len(rows) else coreset.bank
    return Coreset(coreset.indices[kept], sizes, bank, coreset.seed)


def _stride(num_images: int, size: tuple[int, int]) -> int:
    """Return the distance of the pixels that are looked at, along both axes."""
    pixels = num_images * size[0] * size[1]
    return max(1, int(np.ceil((pixels / NUM_PIXELS) ** 0.5)))


def _reached(values: np.ndarray) -> np.ndarray:
    """Return the values that the shares `PIXEL_RATES` of all values reach."""
    return np.quantile(values, 1 - PIXEL_RATES, method="higher").astype(np.float32)
