"""How normal images score that the memory bank has not seen: thresholds without any defect.

Cross-validation: the training images are put into folds, and a fold's images are scored by a
coreset that was selected from the other folds' patches alone, as if they came anew. Leaving a
fold's patches out of the coreset there is would not do: what they covered would lie bare, although
a selection without them covers it by others (on MVTec AD's bottle, 1 %, scores are 15 % higher so
than those of new normal images).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from patchcore.coreset import centre_, project, select
from patchcore.errors import PatchCoreError
from patchcore.memory_bank import Coreset, MemoryBank
from patchcore.origins import Origins

if TYPE_CHECKING:
    from patchcore.model import PatchCore

# A fold's images are scored by a coreset of three quarters of all images, whose selection takes
# nine sixteenths of the time of the one from all. Of more folds more are needed for enough images:
# five took 1.3 to 1.5 times as long for MVTec AD's bottle (209 images, 1 % and 10 %), and moved
# thresholds by no more than another seed does, 0 to 3 %.
NUM_FOLDS = 4
# Folds are scored until so many images are: a false-positive rate of 1 % needs 99.
ENOUGH_IMAGES = 100
# Images at a time: enough for the search's preparation to pay, few enough for little memory.
BATCH_IMAGES = 16
# Pixels that are looked at in all, so that memory stays small where maps are large.
NUM_PIXELS = 1 << 24
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
    model: "PatchCore", embeddings: torch.Tensor, origins: Origins, seed: int
) -> list[HeldOutScores | None]:
    """Score training images by coresets selected without them.

    Args:
        model: The method.
        embeddings: (N, D) of all training patches, float32 or float16.
        origins: Of all embedded images.
        seed: Of the selection, and of the folds.

    Returns:
        For each percentage; None where there is one image only, or where too few patches are left
        without a fold's.
    """
    folds = _Folds(origins, seed)
    scores = _Scores(model, len(model.percentages))
    points = centre_(project(embeddings, seed), seed)  # (N, P)
    embed = model.embedded(embeddings)
    for fold in folds.needed():
        rest = folds.patches_of_others(fold, model.patches_per_image).to(embeddings.device)
        try:
            sizes = model.sizes_of_coresets(len(rest))
        except PatchCoreError:
            return [None] * len(model.percentages)
        chosen = rest[select(points[rest], sizes[-1], seed=seed)]
        others = Coreset(chosen.cpu().numpy(), sizes, MemoryBank(embeddings[chosen]), seed)
        scores.add(others, folds.embedded_images(fold), embed)
    return scores.finish()


@torch.inference_mode()
def scores_without_own_patches(
    model: "PatchCore",
    coreset: Coreset,
    origins: Origins,
    embed: Callable[[np.ndarray], torch.Tensor],
) -> list[HeldOutScores | None]:
    """Score training images by the coreset without their own patches.

    For training embeddings that were not kept, from which nothing can be selected again. The
    scores are rather too large (see above), less so the more training images there are.

    Args:
        model: The method.
        coreset: Selected from all training patches.
        origins: Of all embedded images.
        embed: Called with the numbers (b,) of a few embedded images, gives (b, h, w, D).

    Returns:
        As `held_out_scores`.
    """
    folds = _Folds(origins, coreset.seed)
    scores = _Scores(model, len(coreset.sizes))
    for fold in folds.needed():
        kept = folds.is_of_others(fold)[coreset.indices // model.patches_per_image]  # (M,)
        sizes = tuple(int(kept[:size].sum()) for size in coreset.sizes)
        if sizes[0] < model.k:
            return [None] * len(coreset.sizes)
        embeddings = coreset.bank.embeddings
        rows = torch.from_numpy(np.flatnonzero(kept)).to(embeddings.device)
        bank = MemoryBank(embeddings[rows])
        others = Coreset(coreset.indices[kept], sizes, bank, coreset.seed)
        scores.add(others, folds.embedded_images(fold), embed)
    return scores.finish()


class _Folds:
    """Which fold each training image, with its flips, is in."""

    def __init__(self, origins: Origins, seed: int):
        num_images = int(origins.images.max()) + 1
        self.count = min(NUM_FOLDS, num_images)
        fold_of_image = np.empty(num_images, dtype=np.int64)
        shuffled = np.random.RandomState(seed).permutation(num_images)
        fold_of_image[shuffled] = np.arange(num_images) % self.count
        self._fold = fold_of_image[origins.images]  # (n,) of each embedded image
        self._as_it_is = origins.flips == 0

    def needed(self) -> Iterator[int]:
        """Yield folds until enough images are scored; none where there is nothing to leave out."""
        done = 0
        for fold in range(self.count if self.count > 1 else 0):
            if done >= ENOUGH_IMAGES:
                return
            done += len(self.embedded_images(fold))
            yield fold

    def embedded_images(self, fold: int) -> np.ndarray:
        """Return which embedded images, flipped ones aside, are scored of the fold.

        A fold of thousands of images tells no more than its first `ENOUGH_IMAGES`.
        """
        return np.flatnonzero((self._fold == fold) & self._as_it_is)[:ENOUGH_IMAGES]

    def is_of_others(self, fold: int) -> np.ndarray:
        """Return (n,) bool: which embedded images are in other folds."""
        return self._fold != fold

    def patches_of_others(self, fold: int, patches_per_image: int) -> torch.Tensor:
        """Return the numbers of the patches of all other folds' images."""
        images = torch.from_numpy(np.flatnonzero(self.is_of_others(fold)))
        return (images[:, None] * patches_per_image + torch.arange(patches_per_image)).flatten()


class _Scores:
    """Collects what held-out images score, for each percentage."""

    def __init__(self, model: "PatchCore", num_percentages: int):
        self._model = model
        self._images: list[list[torch.Tensor]] = [[] for _ in range(num_percentages)]
        self._pixels: list[list[torch.Tensor]] = [[] for _ in range(num_percentages)]
        height, width = model.preprocess.size_crop
        pixels = height * width * 2 * ENOUGH_IMAGES  # the last fold begins below enough
        self._stride = max(1, int(np.ceil((pixels / NUM_PIXELS) ** 0.5)))

    def add(
        self, coreset: Coreset, images: np.ndarray, embed: Callable[[np.ndarray], torch.Tensor]
    ) -> None:
        """Score embedded images by a coreset that was selected without them."""
        step = np.s_[:, :: self._stride, :: self._stride]
        for start in range(0, len(images), BATCH_IMAGES):
            embeddings = embed(images[start : start + BATCH_IMAGES])
            for number, found in enumerate(self._model.nearest(embeddings, coreset)):
                scores = self._model.score(embeddings, found, coreset)
                self._images[number].append(scores.score)
                self._pixels[number].append(scores.anomaly_map[step].reshape(-1))

    def finish(self) -> list[HeldOutScores | None]:
        """Return the scores; None where none were added."""
        return [
            HeldOutScores(np.sort(_joined(images)), _reached(_joined(pixels))) if images else None
            for images, pixels in zip(self._images, self._pixels, strict=True)
        ]


def _joined(parts: list[torch.Tensor]) -> np.ndarray:
    return torch.cat(parts).cpu().numpy()


def _reached(values: np.ndarray) -> np.ndarray:
    """Return the values that the shares `PIXEL_RATES` of all values reach."""
    return np.quantile(values, 1 - PIXEL_RATES, method="higher").astype(np.float32)
