"""The anomaly map: patch scores, resized to the image and smoothed; ignored pixels left out."""

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter1d
from torch import nn

from patchcore.errors import PatchCoreError
from patchcore.ignored import Ignored, IgnoreMask

# Least weight of judged patches at a judged pixel, where some are ignored.
MIN_WEIGHT = 1e-6


class AnomalyMap(nn.Module):
    """Patch scores resized bilinearly to the image and smoothed (section 3.3).

    Resizing and Gaussian smoothing are linear and act on rows and columns apart, so both together
    are one matrix for each axis: map = R S C^T, on any device.

    Ignored patches take no part in the map: each pixel is a weighted mean of patch scores, and the
    weights of judged patches are scaled to a sum of 1. Ignored pixels are 0, as are pixels that
    only ignored patches could determine, which count as ignored.

    Attributes:
        ignored: The positions that are not judged; None if all are.

    Args:
        grid: (h, w) of the patch scores.
        size: (H, W) in pixels of the map.
        sigma: Standard deviation of the Gaussian in pixels of the map, which is cut off at 4 sigma
            and mirrored at the border; 0 for no smoothing.
        mask: Pixels to ignore; None to judge all.

    Raises:
        PatchCoreError: the mask leaves no patch or no pixel to judge.
    """

    def __init__(
        self,
        grid: tuple[int, int],
        size: tuple[int, int],
        sigma: float = 4.0,
        mask: IgnoreMask | None = None,
    ):
        super().__init__()
        rows, columns = (_axis(g, s, sigma) for g, s in zip(grid, size, strict=True))
        self.register_buffer("rows", rows, persistent=False)  # (H, h)
        self.register_buffer("columns", columns, persistent=False)  # (W, w)
        self.ignored: Ignored | None = None
        if mask is not None:
            self._ignore(mask, grid)

    def forward(self, scores: torch.Tensor) -> torch.Tensor:
        """Return the maps.

        Args:
            scores: (B, h, w) float32.

        Returns:
            (B, H, W) float32, in units of the scores.
        """
        if self.ignored is None:
            return self.rows @ scores @ self.columns.T
        scores = scores.masked_fill(self.ignored_patches, 0)
        return (self.rows @ scores @ self.columns.T) * self.scale

    def judged_scores(self, scores: torch.Tensor) -> torch.Tensor:
        """Return patch scores (B, h, w) with -inf for ignored patches."""
        if self.ignored is None:
            return scores
        return scores.masked_fill(self.ignored_patches, -torch.inf)

    def top_counts(self, share: float) -> tuple[int, int]:
        """Return the numbers of judged patches and pixels that are a share of them, at least 1."""
        if self.ignored is None:
            counts = (
                self.rows.shape[1] * self.columns.shape[1],
                self.rows.shape[0] * self.columns.shape[0],
            )
        else:
            counts = tuple(
                int((~ignored).sum()) for ignored in (self.ignored.patches, self.ignored.pixels)
            )
        patches, pixels = (max(1, int(count * share)) for count in counts)
        return patches, pixels

    def _ignore(self, mask: IgnoreMask, grid: tuple[int, int]) -> None:
        patches = mask.patches(grid)
        judged = torch.from_numpy(~patches).float()
        weight = self.rows @ judged @ self.columns.T  # (H, W) in [0, 1], of judged patches
        pixels = torch.from_numpy(mask.pixels) | (weight <= MIN_WEIGHT)
        if bool(pixels.all()):
            raise PatchCoreError(
                "expected a mask that leaves a pixel to judge, found none that is neither ignored "
                "nor far from all judged patches (ignore_mask)"
            )
        scale = torch.where(pixels, 0, 1 / weight.clamp(min=MIN_WEIGHT))
        self.register_buffer("scale", scale, persistent=False)  # (H, W)
        self.register_buffer("ignored_patches", ~judged.bool(), persistent=False)  # (h, w)
        self.ignored = Ignored(pixels.numpy(), patches)


def _axis(length_in: int, length_out: int, sigma: float) -> torch.Tensor:
    """Return (length_out, length_in): the weight of each patch at each position of the map."""
    identity = torch.eye(length_in, dtype=torch.float64)[None]  # one channel for each patch
    resized = F.interpolate(identity, length_out, mode="linear", align_corners=False)[0].T.numpy()
    if sigma >= 0.125:  # a narrower Gaussian is cut off beside its centre: no smoothing
        resized = gaussian_filter1d(resized, sigma, axis=0, mode="reflect", truncate=4.0)
    return torch.from_numpy(np.ascontiguousarray(resized, dtype=np.float32))
