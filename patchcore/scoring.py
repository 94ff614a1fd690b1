"""Patch distances -> anomaly map (B, H, W), anomaly score (B,)."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter1d
from torch import nn

from patchcore.memory_bank import torch_nearest

IMAGE_SCORES = ("max_patch", "max_map", "reweighted")


def patch_scores(distances: torch.Tensor) -> torch.Tensor:
    """Score each patch: its mean Euclidean distance to its k nearest coreset patches.

    Args:
        distances: (..., k).

    Returns:
        (...), in units of the embedding's distance.
    """
    return distances.mean(-1)


def reweighted_scores(
    scores: torch.Tensor,
    embeddings: torch.Tensor,
    nearest: torch.Tensor,
    bank: torch.Tensor,
    num_reweight: int,
) -> torch.Tensor:
    """Score each image by its most anomalous patch, weighted by how rare its neighbour is.

    Section 3.3 of the paper, equation 7, with its symbols: s* is the largest patch score, m_test
    that patch, m* its nearest coreset patch, and N_b(m*) the b coreset patches nearest to m*
    (itself among them); s = (1 - exp|m_test - m*| / sum over m in N_b(m*) of exp|m_test - m|) s*.

    Args:
        scores: (B, h, w) patch scores.
        embeddings: (B, h, w, D) of the same patches.
        nearest: (B, h, w) the nearest coreset patch of each.
        bank: (M, D) the coreset's embeddings.
        num_reweight: b; all of the coreset where it is smaller.

    Returns:
        (B,) in the scores' units.
    """

    def neighbours(rows: torch.Tensor) -> torch.Tensor:
        return torch_nearest(bank[rows], bank, min(num_reweight, len(bank)))

    return equation_7(scores, embeddings, nearest, bank, neighbours)


def equation_7(
    scores: torch.Tensor,
    embeddings: torch.Tensor,
    nearest: torch.Tensor,
    bank: torch.Tensor,
    neighbours: Callable[[torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """Compute what `reweighted_scores` is about, with a search of the caller's.

    Args:
        scores: As there.
        embeddings: As there.
        nearest: As there.
        bank: As there.
        neighbours: Gives N_b(m*) of coreset patches (B,), (B, b) int64.

    Returns:
        (B,) in the scores' units.
    """
    s_star, position = scores.flatten(1).max(1)  # (B,)
    images = torch.arange(scores.shape[0], device=scores.device)
    m_test = embeddings.flatten(1, 2)[images, position]  # (B, D)
    m_star = nearest.flatten(1)[images, position]  # (B,)
    distances = (m_test[:, None] - bank[neighbours(m_star)]).norm(dim=2)  # (B, b)
    d_star = (m_test - bank[m_star]).norm(dim=1)  # (B,)
    # exp of a distance overflows soon: the quotient as the exponential of a difference.
    weight = 1 - torch.exp(d_star - distances.logsumexp(1))
    return weight * s_star


def max_scores(scores: torch.Tensor) -> torch.Tensor:
    """Score each image by its most anomalous patch (section 3.3 of the paper, equation 6).

    Args:
        scores: (B, h, w) patch scores; or (B, H, W) maps, where the smoothed map is to decide.

    Returns:
        (B,) in the same units.
    """
    return scores.flatten(1).amax(1)


class AnomalyMap(nn.Module):
    """Patch scores resized bilinearly to the image and smoothed (section 3.3).

    Resizing and Gaussian smoothing are linear and act on rows and columns apart, so both together
    are one matrix for each axis: map = R S C^T, on any device.

    Args:
        grid: (h, w) of the patch scores.
        size: (H, W) in pixels of the map.
        sigma: Of the Gaussian, in pixels of the map; 0 does not smooth. Cut off at 4 sigma,
            mirrored at the border.
    """

    def __init__(self, grid: tuple[int, int], size: tuple[int, int], sigma: float = 4.0):
        super().__init__()
        rows, columns = (_axis(g, s, sigma) for g, s in zip(grid, size, strict=True))
        self.register_buffer("rows", rows, persistent=False)  # (H, h)
        self.register_buffer("columns", columns, persistent=False)  # (W, w)

    def forward(self, scores: torch.Tensor) -> torch.Tensor:
        """Draw the maps.

        Args:
            scores: (B, h, w) float32.

        Returns:
            (B, H, W) float32, in the scores' units.
        """
        return self.rows @ scores @ self.columns.T


def _axis(length_in: int, length_out: int, sigma: float) -> torch.Tensor:
    """Return (length_out, length_in): what each position of the map takes from each patch."""
    identity = torch.eye(length_in, dtype=torch.float64)[None]  # one channel for each patch
    resized = F.interpolate(identity, length_out, mode="linear", align_corners=False)[0].T.numpy()
    if sigma > 0:
        resized = gaussian_filter1d(resized, sigma, axis=0, mode="reflect", truncate=4.0)
    return torch.from_numpy(np.ascontiguousarray(resized, dtype=np.float32))
