"""The greedy k-centre loop, in batches, over any number of shards.

The paper's algorithm 1 (section 3.2) selects, one after another, the patch that is farthest from
all selected ones. The reference code passes over all N patches for each selected one. Here one
pass serves hundreds of selected patches, with the same result:

A patch's distance to the selected ones can only fall. Take the farthest patch of a small group. As
long as it is at least as far as *all patches outside the group were at the last pass*, it is the
farthest of all, and distances within the group determine the next one.

The result does not depend on how the patches are divided into batches, blocks or shards: nothing
is summed over all patches, products are computed in blocks of a fixed number of rows, and of equal
distances the lowest patch number comes first. The group of all patches is found among the farthest
of each shard.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from patchcore.distances import aligned_columns, fixed_blocks
from patchcore.errors import PatchCoreError
from patchcore.shards import SELECTED, Shards, squared_norms, to_host
from patchcore.torch_state import float32_products

# Patches in a group. Larger groups need fewer passes over all patches, smaller ones less work each.
GROUP_SIZE = 1024
# Number of patches that define the first distances, as in the reference code.
NUM_STARTING_POINTS = 10
# Largest number of patches from which they are drawn as in the reference code, which shuffles the
# numbers of all patches: 8 bytes each.
MOST_SHUFFLED = 1 << 30


@dataclass(frozen=True)
class Greedy:
    """Result of the loop. Distances are squared.

    Attributes:
        numbers: (M,) int64, the selected patches in order of selection.
        reached: (M + 1,) float64, the distance at which each was selected, and the one at which the
            next would be; 0 if no other is left.
        starting: (s, P) float32, the starting points.
        nearest_start: The smallest mean distance of a patch to the starting points.
        longest: The largest squared length of a projection.
    """

    numbers: np.ndarray
    reached: np.ndarray
    starting: torch.Tensor
    nearest_start: float
    longest: float


def starting_points(num_patches: int, seed: int) -> np.ndarray:
    """Draw the patches that define the first distances.

    Returns:
        (s,) int64: different indices below ``num_patches``.
    """
    count = min(NUM_STARTING_POINTS, num_patches)
    if num_patches > MOST_SHUFFLED:
        return np.random.default_rng(seed).choice(num_patches, count, replace=False)
    # The legacy generator draws what the reference code draws for the same seed.
    return np.random.RandomState(seed).choice(num_patches, count, replace=False)


def centre(shards: Shards, seed: int) -> None:
    """Subtract the mean of the starting points from all projections, in place.

    This changes no distance, and avoids the loss of digits by large common values. The mean of all
    points would depend on how they are divided, because sums over parts round differently.
    """
    shards.subtract(shards.rows(starting_points(len(shards), seed)).mean(0))


@float32_products()
def select_greedily(
    shards: Shards,
    num_samples: int,
    *,
    seed: int,
    group_size: int = GROUP_SIZE,
    progress: Callable[[int], None] | None = None,
) -> Greedy:
    """Select patches from their centred projections.

    The first distance of a patch is its mean distance to the starting points, which are not
    selected by this.

    Args:
        shards: The patches, N in total, as `centre` leaves them.
        num_samples: M, from 1 to N.
        seed: Seed of the starting points.
        group_size: Number of patches that are compared at a time.
        progress: Called with the number of patches selected so far, after each pass.

    Raises:
        PatchCoreError: ``num_samples`` is out of range, or a value is not finite.
    """
    count = len(shards)
    if not 1 <= num_samples <= count:
        raise PatchCoreError(
            f"expected a coreset of 1 to {count} patches, the number of training patches, found "
            f"{num_samples} (percentage_coreset)"
        )
    longest = check_finite(shards.prepare())
    starting = shards.rows(starting_points(count, seed))
    nearest_start = shards.begin(starting)
    wanted = min(num_samples + 1, count)  # of the next one, the distance
    selected, reached, done = np.empty(wanted, dtype=np.int64), np.zeros(num_samples + 1), 0
    while True:
        farthest = shards.farthest(min(group_size, count - done) + 1)
        chosen = select_group(shards, *farthest, group_size, wanted - done)
        here = slice(done, done + len(chosen.numbers))
        selected[here], reached[here] = chosen.numbers, chosen.reached
        done = here.stop
        if progress is not None:
            progress(min(done, num_samples))
        if done == wanted:
            break
        shards.lower(chosen.points, chosen.norms, chosen.numbers)
    return Greedy(selected[:num_samples], reached, starting, nearest_start, longest)


def check_finite(longest: float) -> float:
    """Check the largest squared length of the projections, and return it."""
    if not np.isfinite(longest):
        raise PatchCoreError(
            "expected finite embeddings, found infinite or undefined values (backbone, weights, "
            "precision)"
        )
    return longest


@dataclass(frozen=True)
class Chosen:
    """Patches selected from a group, m in order of selection.

    Attributes:
        numbers: (m,) int64, the patches.
        points: (m, P) float32, their projections.
        norms: (m,) float32, their squared lengths.
        reached: (m,) the squared distance at which each was selected.
    """

    numbers: np.ndarray
    points: torch.Tensor
    norms: torch.Tensor
    reached: list[float]


def select_group(
    shards: Shards,
    distances: np.ndarray,
    numbers: np.ndarray,
    group_size: int,
    max_patches: int,
    limit: float = SELECTED,
) -> Chosen:
    """Select the next patches from the farthest ones, as long as these alone determine them.

    Args:
        shards: Provide the projections of the group.
        distances: (n,) squared distances of at least the ``group_size`` + 1 farthest patches that
            are left, or of all.
        numbers: (n,) int64, their numbers, ascending.
        group_size: B.
        max_patches: Largest number of patches to select.
        limit: Only patches beyond this squared distance are selected; the farthest one is.
    """
    order = np.argsort(-distances, kind="stable")  # of equal distances, the lowest number first
    group, outside = np.sort(order[:group_size]), order[group_size : group_size + 1]
    bound = (limit, -1)
    if len(outside) and distances[outside[0]] > limit:
        bound = (distances[outside[0]], numbers[outside[0]])
    distances, numbers = distances[group], numbers[group]
    points = shards.rows(numbers)  # (B, P)
    norms = squared_norms(points)
    # The steps run on the CPU, where each takes a microsecond. On a GPU, each would wait for the
    # device.
    (among,) = to_host(_distances_among(points, norms))
    steps, reached = _replay(among, distances, numbers, bound, max_patches)
    on_device = torch.tensor(steps, dtype=torch.int64, device=points.device)
    return Chosen(numbers[steps], points[on_device], norms[on_device], reached)


def _replay(
    among: np.ndarray,
    remaining: np.ndarray,
    numbers: np.ndarray,
    bound: tuple[float, int],
    max_patches: int,
) -> tuple[list[int], list[float]]:
    """Replay the greedy steps within a group.

    Args:
        among: (B, B) squared distances among the group.
        remaining: (B,) squared distance of each to the selected patches; changed.
        numbers: (B,) patch numbers, ascending.
        bound: Largest distance outside the group, and the lowest number of a patch at it.
        max_patches: Largest number of steps.

    Returns:
        The selected members of the group in order; the squared distance at which each was selected.
    """
    outside, first_outside = bound
    order, reached = [], []
    while len(order) < max_patches:
        next_one = int(remaining.argmax())  # of equal ones the first, with the lowest number
        farthest = remaining[next_one]
        # The first one is always the farthest of all: the bound is exact at that point.
        if farthest < outside or (farthest == outside and numbers[next_one] > first_outside):
            break
        order.append(next_one)
        reached.append(float(farthest))
        np.minimum(remaining, among[next_one], out=remaining)
        remaining[next_one] = SELECTED
    return order, reached


def _distances_among(group: torch.Tensor, norms: torch.Tensor) -> torch.Tensor:
    """Return (B, B) squared distances of each member of a group (B, P) to all members.

    As in `lower_distances_`, points are rows and centres are columns of the product, so that equal
    points have equal distances to a centre.
    """
    among = torch.empty(len(group), len(group), device=group.device)
    centres = aligned_columns(group)
    for rows, block in fixed_blocks(group):
        partial = torch.addmm(norms, block, centres.T, alpha=-2)[: rows.stop - rows.start]
        among[:, rows] = partial.add_(norms[rows, None]).clamp_(min=0).T
    return among
