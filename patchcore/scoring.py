"""Patch distances -> anomaly map (B, H, W), anomaly score (B,)."""

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter1d
from torch import nn


def patch_scores(distances: torch.Tensor) -> torch.Tensor:
    """Score each patch: its mean Euclidean distance to its k nearest coreset patches.

    Args:
        distances: (..., k).

    Returns:
        (...), in units of the embedding's distance.
    """
    return distances.mean(-1)


def image_scores(scores: torch.Tensor) -> torch.Tensor:
    """Score each image by its most anomalous patch (section 3.3 of the paper, equation 6).

    Args:
        scores: (B, h, w) patch scores.

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
