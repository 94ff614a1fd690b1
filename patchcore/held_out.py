"""Cross-validated scores of training images, for thresholds without any defective image.

The training images are divided into folds, and the images of a fold are scored by a coreset
selected from the patches of the other folds alone, as if they were new. It is not enough to remove
the fold's patches from the existing coreset: a selection without them would have covered the gaps
that they leave by other patches (on MVTec AD's bottle, 1 %, such scores are 15 % higher than those
of new normal images).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from patchcore.memory_bank import Bank
from patchcore.passes import EmbeddingRows
from patchcore.scoring import Scorer

# Folds are scored until this many images are: a false-positive rate of 1 % needs 99.
ENOUGH_IMAGES = 100
# Images to score at a time: few, for memory, but enough that preparing a search is worthwhile.
BATCH_IMAGES = 16
# Number of pixels that are kept of all maps, to limit the memory if maps are large.
NUM_PIXELS = 1 << 24
# False-positive rates for which pixel thresholds are stored.
PIXEL_RATES = np.concatenate([[0.0], np.logspace(-5, 0, 101)])


@dataclass(frozen=True)
class HeldOutScores:
    """Scores of normal images that the bank has not seen.

    Attributes:
        image_scores: (n,) float32, their anomaly scores, ascending.
        pixel_scores: (102,) float32, for each of `PIXEL_RATES` the map value that this share of
            all pixels reaches.
        images: (n,) int64, the training image of each score, a position in `Origins.names`.
    """

    image_scores: np.ndarray
    pixel_scores: np.ndarray
    images: np.ndarray

    def image_threshold(self, rate: float) -> tuple[float, float]:
        """Return the lowest threshold with this false-positive rate for a new normal image.

        Among n + 1 exchangeable images, each is equally likely to be the r-th largest. A new image
        is therefore above the r-th largest of n with a probability of at most r / (n + 1) (split
        conformal prediction; Vovk et al. 2005). With few images, small rates are not possible; the
        threshold is then just above the largest score.

        Args:
            rate: Largest probability that a new normal image reaches it, in (0, 1].

        Returns:
            The threshold and its rate, at least 1 / (n + 1).
        """
        count = len(self.image_scores)
        rank = min(max(int(rate * (count + 1) * (1 + 1e-9)), 1), count)
        # Scores from the threshold on are anomalous: the next float after the score itself.
        score = np.nextafter(self.image_scores[count - rank], np.float32(np.inf))
        return float(score), rank / (count + 1)

    def p_value(self, score: float) -> float:
        """Return the conformal p-value of an image, so that scores of models can be compared.

        It is the share of normal images with a score at least as large, the image itself counted
        among them: (1 + #{held-out scores >= score}) / (n + 1). A new normal image has a p-value
        of at most p with a probability of at most p (Vovk et al. 2005).

        Args:
            score: Anomaly score of the image.

        Returns:
            In [1 / (n + 1), 1]; it never rises with the score, and is smallest for an undefined
            one.
        """
        count = len(self.image_scores)
        num_lower = int(np.searchsorted(self.image_scores, np.float32(score), side="left"))
        return (1 + count - num_lower) / (count + 1)

    def largest(self, count: int) -> list[tuple[int, float]]:
        """Return training image and score of the ``count`` largest scores, the largest first."""
        numbers, scores = (
            values[::-1][:count].tolist() for values in (self.images, self.image_scores)
        )
        return list(zip(numbers, scores, strict=True))

    def pixel_threshold(self, rate: float) -> float:
        """Return the map value that a share ``rate`` of normal pixels reaches."""
        return float(np.interp(rate, PIXEL_RATES, self.pixel_scores))


class HeldOutCollector:
    """Scores held-out images and collects their scores, for each percentage.

    Args:
        scorer: Scores the images.
        size: (H, W) of the anomaly maps.
        num_percentages: Number of coreset percentages.
    """

    def __init__(self, scorer: Scorer, size: tuple[int, int], num_percentages: int):
        self._scorer = scorer
        self._numbers: list[np.ndarray] = []
        self._images: list[list[torch.Tensor]] = [[] for _ in range(num_percentages)]
        self._pixels: list[list[torch.Tensor]] = [[] for _ in range(num_percentages)]
        pixels = size[0] * size[1] * 2 * ENOUGH_IMAGES  # the last fold begins below enough
        self._stride = max(1, int(np.ceil((pixels / NUM_PIXELS) ** 0.5)))

    @torch.inference_mode()
    def add(
        self,
        bank: Bank,
        sizes: Sequence[int],
        images: np.ndarray,
        patches: np.ndarray,
        rows: EmbeddingRows,
    ) -> None:
        """Score the images of a fold by a coreset selected without them.

        Args:
            bank: The coreset's embeddings.
            sizes: Coreset sizes of the percentages, ascending, of all banks together.
            images: (n,) int64, the images of the fold to score.
            patches: (n, h * w) int64, the numbers of their patches.
            rows: The embeddings of these patches.
        """
        self._numbers.append(images)
        for start in range(0, len(images), BATCH_IMAGES):
            taken = rows.take(patches[start : start + BATCH_IMAGES].ravel())
            embeddings = taken.view(-1, *self._scorer.grid, taken.shape[1])
            predictions = self._scorer.predict(embeddings, bank, sizes)
            for part, prediction in enumerate(predictions):
                self._images[part].append(prediction.score)
                self._pixels[part].append(self._judged(prediction.anomaly_map))

    def _judged(self, maps: torch.Tensor) -> torch.Tensor:
        """Return the pixels to keep of maps (B, H, W): every n-th along both axes, flat."""
        maps = maps[:, :: self._stride, :: self._stride]
        if self._scorer.ignored is None:
            return maps.reshape(-1)
        judged = torch.from_numpy(~self._scorer.ignored.pixels[:: self._stride, :: self._stride])
        return maps[:, judged.to(maps.device)].reshape(-1)

    def finish(self) -> tuple[HeldOutScores | None, ...]:
        """Return the scores of each percentage; None if no image was added."""
        if not self._numbers:
            return (None,) * len(self._images)
        numbers = np.concatenate(self._numbers)
        return tuple(
            _held_out_scores(_joined(images), numbers, _joined(pixels))
            for images, pixels in zip(self._images, self._pixels, strict=True)
        )


def _held_out_scores(scores: np.ndarray, images: np.ndarray, pixels: np.ndarray) -> HeldOutScores:
    """Sort the scores (n,) of training images (n,)."""
    order = np.argsort(scores, kind="stable")
    return HeldOutScores(scores[order], _reached(pixels), images[order])


def _joined(parts: list[torch.Tensor]) -> np.ndarray:
    return torch.cat(parts).cpu().numpy()


def _reached(values: np.ndarray) -> np.ndarray:
    """Return the value that each share in `PIXEL_RATES` of all values reaches."""
    return np.quantile(values, 1 - PIXEL_RATES, method="higher").astype(np.float32)
