"""Distances of patches: Euclidean, or cosine by normalised embeddings."""

import torch
import torch.nn.functional as F

from patchcore.settings import COSINE


class Metric:
    """Maps embeddings to points with a Euclidean distance from which the patch distance follows.

    For ``euclidean`` (the paper), the points are the embeddings and the distance is that of the
    points. For ``cosine`` (AnomalyDINO, Damm et al. 2024, section 3.1; RAD), the points are the
    embeddings divided by their length: the cosine distance 1 - cos of two embeddings is half the
    squared Euclidean distance of their points. The coreset selection, the bank and the search work
    on points, so all of them stay exact; scores and maps are in the unit of the distance.

    Args:
        distance: A choice of the setting ``distance``.
        num_banks: Number of banks, L. An embedding has L parts of equal length, one for each bank,
            and each part is normalised by itself.
    """

    def __init__(self, distance: str = "euclidean", num_banks: int = 1):
        self.is_cosine = distance == COSINE
        self.num_banks = num_banks

    def points(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Return the points (..., D) of embeddings (..., D); the same tensor if nothing changes."""
        if not self.is_cosine:
            return embeddings
        parts = embeddings.unflatten(-1, (self.num_banks, -1))
        return F.normalize(parts, dim=-1).flatten(-2)

    def parts(self, points: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the part of points (..., D) for each bank, (..., D / L) each."""
        return points.chunk(self.num_banks, dim=-1)

    def distances(self, euclidean: torch.Tensor) -> torch.Tensor:
        """Return the patch distances for Euclidean distances of points, of any shape."""
        return euclidean.square() / 2 if self.is_cosine else euclidean
