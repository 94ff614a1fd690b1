"""The test images that get large figures (--pictures)."""

import math
from collections.abc import Sequence

import numpy as np

from datasets.base import Sample

# Images that `worst` chooses from a category without a limit.
WORST_LIMIT = 10


def choose_images(
    samples: Sequence[Sample], scores: np.ndarray, threshold: float, which: str, limit: int
) -> list[int]:
    """Choose the test images with large figures.

    Args:
        samples: The B test images of a category.
        scores: (B,) float32.
        threshold: The score from which an image counts as defective; NaN if there is none.
        which: The value of ``--pictures``.
        limit: The largest number of images; 0 for no limit (10 for ``worst``).

    Returns:
        The indices of the images. With ``worst``, images farthest on the wrong side of the
        threshold come first. Otherwise, a limit keeps the same number of images of each defect
        type, if possible.
    """
    if which == "none":
        return []
    if which == "worst":
        hardest = np.argsort(-misclassification_margin(samples, scores, threshold), kind="stable")
        return [int(index) for index in hardest[: limit or WORST_LIMIT]]
    indices = [n for n, sample in enumerate(samples) if which == "all" or sample.is_defective]
    if not limit:
        return indices
    seen: dict[str, int] = {}
    turns = []
    for index in indices:
        defect_type = samples[index].defect_type
        turns.append(seen.get(defect_type, 0))
        seen[defect_type] = turns[-1] + 1
    by_turn = sorted(zip(turns, indices, strict=True))  # the first of each type, then the second
    return sorted(index for _, index in by_turn[:limit])


def misclassification_margin(
    samples: Sequence[Sample], scores: np.ndarray, threshold: float
) -> np.ndarray:
    """Return (B,) float64, the distance of each score to the threshold; positive if misjudged."""
    signs = np.where([sample.is_defective for sample in samples], -1.0, 1.0)
    return signs * (scores.astype(np.float64) - (0.0 if math.isnan(threshold) else threshold))
