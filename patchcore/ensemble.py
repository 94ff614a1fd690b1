"""Predictions of several members -> one (section 4.2 of the paper: ensembles of backbones).

Each backbone has its own unit of distance. Scores are normalised by those of training patches, so
that they can be compared; test data are not used.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from patchcore.errors import PatchCoreError
from patchcore.memory_bank import Coreset
from patchcore.nearby import Places
from patchcore.prediction import Prediction
from patchcore.scoring import Scorer, patch_scores

# Number of training patches to score: it determines mean and standard deviation to 1 %.
NUM_SAMPLES = 10_000


@dataclass(frozen=True)
class NormalScores:
    """Scores that a member gives to patches of training images.

    Attributes:
        mean: Mean of the scores.
        std: Standard deviation of the scores, > 0.
    """

    mean: float
    std: float


def draw_sample(num_patches: int, seed: int) -> np.ndarray:
    """Draw the training patches for `normal_scores`: (Q,) int64."""
    count = min(NUM_SAMPLES, num_patches)
    return np.random.RandomState(seed).choice(num_patches, count, replace=False)


@torch.inference_mode()
def normal_scores(
    embeddings: torch.Tensor, sample: np.ndarray, coreset: Coreset, scorer: Scorer
) -> list[NormalScores]:
    """Measure the scores of training patches, for each percentage.

    A selected training patch is its own nearest neighbour, so each patch is scored by its nearest
    coreset patches other than itself.

    Args:
        embeddings: (Q, D) float32, of a sample of the training patches.
        sample: (Q,) int64, the numbers of these training patches.
        coreset: Selected from all training patches.
        scorer: Scores patches. Where a coreset is smaller than its k + 1, fewer patches score each.

    Raises:
        PatchCoreError: there is only one training patch.
    """
    members = torch.from_numpy(coreset.indices)  # (M,) numbers of training patches
    numbers = torch.from_numpy(sample)[:, None]  # (Q, 1)
    num_banks = scorer.metric.num_banks
    points, area = scorer.metric.points(embeddings), coreset.bank.area
    where = None
    if area is not None:
        where = Places.of_patches(sample, scorer.grid, points.device, area.places.features)
    search, num_neighbours = None, 0
    results = []
    for size in coreset.sizes:
        if num_neighbours < (count := min(scorer.k + 1, size // num_banks)):
            search, num_neighbours = coreset.bank.begin(points, count, where), count
        euclidean, index = search.extend_to(size)
        distance = scorer.metric.distances(euclidean)
        is_itself = members[index.cpu()] == numbers  # (Q, L * (k + 1))
        others = torch.where(is_itself, torch.inf, distance.cpu()).unflatten(1, (num_banks, -1))
        others = others.sort(dim=2).values
        nearest = others[..., : max(num_neighbours - 1, 1)].flatten(1)  # (Q, L * k)
        scores = patch_scores(nearest[nearest.isfinite().all(1)])
        if not len(scores):
            raise PatchCoreError("expected more than one training patch to normalise scores by")
        mean, std = float(scores.mean()), float(scores.std(correction=0))
        # If all training patches are equal, any divisor above 0 will do.
        results.append(NormalScores(mean, max(std, 1e-6 * mean, 1e-12)))
    return results


def combine(predictions: Sequence[Prediction], normal: Sequence[NormalScores]) -> Prediction:
    """Combine members' predictions of the same images: the mean of their normalised scores.

    Args:
        predictions: Prediction of each member.
        normal: Scores that each member gives to training patches.

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
