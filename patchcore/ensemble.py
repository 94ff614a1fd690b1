"""Predictions of several members -> one (section 4.2 of the paper: ensembles of backbones).

Each backbone measures distances in units of its own. The scores of training patches make them
comparable; test data play no part.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from patchcore.errors import PatchCoreError
from patchcore.memory_bank import Coreset
from patchcore.prediction import Prediction

# Number of training patches that are scored: the mean and the standard deviation are then known to
# 1 %.
NUM_SAMPLES = 10_000


@dataclass(frozen=True)
class NormalScores:
    """How a member scores patches of training images.

    Attributes:
        mean: Mean of their scores.
        std: Standard deviation of their scores, > 0.
    """

    mean: float
    std: float


def draw_sample(num_patches: int, seed: int) -> np.ndarray:
    """Return (Q,) int64, the training patches that `normal_scores` scores."""
    count = min(NUM_SAMPLES, num_patches)
    return np.random.RandomState(seed).choice(num_patches, count, replace=False)


@torch.inference_mode()
def normal_scores(
    queries: torch.Tensor, sample: np.ndarray, coreset: Coreset, k: int
) -> list[NormalScores]:
    """Measure how training patches score, for each percentage.

    A selected training patch is its own nearest neighbour, so each patch is scored by its nearest
    coreset patches other than itself.

    Args:
        queries: (Q, D) float32, embeddings of a sample of the training patches.
        sample: (Q,) int64, the numbers of these training patches.
        coreset: Selected from all training patches.
        k: Number of nearest coreset patches that score a patch; fewer if the coreset is smaller.

    Raises:
        PatchCoreError: no patch has another one to be compared with.
    """
    members = torch.from_numpy(coreset.indices)  # (M,) numbers of training patches
    numbers = torch.from_numpy(sample)[:, None]  # (Q, 1)
    num_neighbours = min(k + 1, coreset.sizes[0])
    results = []
    for distance, index in coreset.bank.search_prefixes(queries, num_neighbours, coreset.sizes):
        is_itself = members[index.cpu()] == numbers  # (Q, k + 1)
        others = torch.where(is_itself, torch.inf, distance.cpu()).sort(dim=1).values
        nearest = others[:, : max(num_neighbours - 1, 1)]  # (Q, k)
        scores = nearest[nearest.isfinite().all(1)].mean(1)
        if not len(scores):
            raise PatchCoreError("expected more than one training patch to normalise scores by")
        mean, std = float(scores.mean()), float(scores.std(correction=0))
        # If all training patches are equal, any number above 0 serves to divide by.
        results.append(NormalScores(mean, max(std, 1e-6 * mean, 1e-12)))
    return results


def combine(predictions: Sequence[Prediction], normal: Sequence[NormalScores]) -> Prediction:
    """Combine members' predictions of the same images: the mean of their normalised scores.

    Args:
        predictions: One of each member.
        normal: How each member scores training patches.

    Returns:
        Scores and maps in standard deviations of normal patches, 0 for the average one; the
        distances and neighbours of the first member.
    """
    members = list(zip(predictions, normal, strict=True))
    return Prediction(
        score=np.mean([(p.score - n.mean) / n.std for p, n in members], axis=0),
        anomaly_map=np.mean([(p.anomaly_map - n.mean) / n.std for p, n in members], axis=0),
        distance=predictions[0].distance,
        nearest=predictions[0].nearest,
    )
