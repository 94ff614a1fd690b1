"""Saturated per-region overlap, sPRO (Bergmann et al. 2022, Beyond Dents and Scratches, 4.1)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from utils.metrics import area_up_to


@dataclass(frozen=True)
class SaturatedRegion:
    """A defect region.

    Attributes:
        image: Index of its image.
        mask: (H, W) bool; regions may overlap.
        share: Share of its area, in (0, 1], that must be found.
    """

    image: int
    mask: np.ndarray
    share: float


def au_spro(
    maps: Sequence[np.ndarray],
    masks: Sequence[np.ndarray],
    regions: Sequence[SaturatedRegion],
    fpr_limit: float,
) -> float:
    """Return the area under the sPRO curve up to a false positive rate, divided by this rate.

    At each threshold, sPRO is the mean over the regions of ``min(found / (share * area), 1)``. With
    a share of 1 this is the per-region overlap of AUPRO.

    Args:
        maps: (B, H, W) float, or B maps of different shapes; higher means more anomalous.
        masks: Of the same shapes, bool, True where any region is.
        regions: The regions; those without a pixel do not count.
        fpr_limit: Largest false positive rate, in (0, 1]; 0.05 in the paper's tables.

    Returns:
        Area in [0, 1]; NaN without normal pixels or without regions.
    """
    normal = np.concatenate([one[~mask] for one, mask in zip(maps, masks, strict=True)])
    regions = [region for region in regions if region.mask.any()]
    if not len(normal) or not regions:
        return math.nan
    # Scores below the one at which the rate reaches the limit have no influence.
    rank = max(len(normal) - 1 - math.ceil(fpr_limit * len(normal)), 0)
    lowest = np.partition(normal, rank)[rank]
    normal_scores = normal[normal >= lowest]
    scores, gains = [normal_scores], [np.zeros(len(normal_scores))]
    for region in regions:
        found = np.sort(maps[region.image][region.mask])[::-1]
        needed = region.share * len(found)
        # The n-th pixel found adds to the overlap until as many as needed are found.
        gain = np.clip(needed - np.arange(len(found)), 0, 1) / (needed * len(regions))
        kept = found >= lowest
        scores.append(found[kept])
        gains.append(gain[kept])
    joined = np.concatenate(scores)
    order = np.argsort(-joined, kind="stable")
    is_normal = order < len(normal_scores)
    # Equal scores share one threshold, which is reached at the last one.
    ordered = joined[order]
    ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    false = np.append(0.0, np.cumsum(is_normal)[ends]) / len(normal)
    overlap = np.append(0.0, np.cumsum(np.concatenate(gains)[order])[ends])
    return area_up_to(false, overlap, fpr_limit) / fpr_limit
