"""How well a coreset covers all patches, and how far it can be from the best one.

Of k + 1 patches that are pairwise at least d apart, two share a centre of any k centres, and are
therefore at most twice the covering radius apart: no coreset of k patches has a radius below d / 2
(Gonzalez 1985, Theoretical Computer Science 38). The greedy selection provides such patches: the k
selected ones, and the patch that is farthest from them. Distances are between projections; the
bound accounts for their rounding errors.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from patchcore.greedy import Greedy
from patchcore.shards import Shards, squared_norms
from patchcore.torch_state import float32_products


class Coverage(NamedTuple):
    """How well a coreset covers all patches, in the projected space.

    Attributes:
        radius: The covering radius: the largest distance of a patch to the nearest selected one.
        factor: At most this many times the smallest radius of any coreset of the same size, 2 but
            for rounding and very small coresets; None if the radius is too small for a proof
            in float32.
    """

    radius: float
    factor: float | None

    def describe(self) -> str:
        """Return the coverage in words, for the log."""
        radius = f"covering radius {self.radius:.4g} among projected patches"
        if self.factor is None:
            return f"{radius}, too small to compare with the best coreset in float32"
        factor = math.ceil(1000 * self.factor) / 1000  # a bound is never rounded down
        return f"{radius}, at most {factor:.3f} times that of the best coreset of this size"


@float32_products()
def coverage_of(shards: Shards, found: Greedy, sizes: Sequence[int]) -> tuple[Coverage, ...]:
    """Return how well the first patches of a selection cover all patches.

    Args:
        shards: The patches, as the selection leaves them.
        found: The selection.
        sizes: Numbers of selected patches, from 1 to M.
    """
    coverage, points = [], None
    for size in sizes:
        squared = found.reached[size]
        if found.nearest_start <= squared:
            # The loop's distances may be those to the starting points, which are not selected.
            points = shards.rows(found.numbers) if points is None else points
            squared = _radius(shards, found, points[:size])
        # The selected patches and the farthest one. A single one has no distance to others.
        apart = squared if size == 1 else min(squared, found.reached[size - 1])
        coverage.append(
            _coverage(squared, apart, _rounding(found.longest, found.starting.shape[1]))
        )
    return tuple(coverage)


def _radius(shards: Shards, found: Greedy, points: torch.Tensor) -> float:
    """Return the squared covering radius of patches (m, P), at whatever size."""
    near = torch.cdist(found.starting, points).argmin(1).unique().cpu().numpy()
    return shards.radius(near, points, squared_norms(points), found.reached[len(points)])


def _rounding(longest: float, dim: int) -> float:
    """Return by how much a squared distance |x|^2 + |c|^2 - 2 x c may be wrong in float32.

    The rounding of a sum of n products is at most n u / (1 - n u) of the sum of their sizes, for
    u = 2^-24 (Higham 2002, section 3.1); each of the three terms is at most the largest |x|^2, the
    last one twice.
    """
    return 4 * (dim + 8) * 2.0**-24 * longest


def _coverage(squared: float, apart: float, rounding: float) -> Coverage:
    """Return the coverage from squared distances and their largest error."""
    apart -= rounding
    factor = 2 * float(np.sqrt((squared + rounding) / apart)) if apart > 0 else None
    return Coverage(float(np.sqrt(squared)), factor)
