"""Selection of the coreset: random projection, then the greedy k-centre loop (section 3.2)."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch

from patchcore.certificate import Coverage, coverage_of
from patchcore.distances import aligned_columns, fixed_blocks
from patchcore.greedy import (
    GROUP_SIZE,
    centre,
    check_finite,
    select_greedily,
    select_group,
)
from patchcore.shards import LocalShards, Shards, squared_norms
from patchcore.torch_state import float32_products

# Length to which the paper's reference code projects embeddings before it selects.
PROJECTION_DIM = 128


def greedy_coreset(
    embeddings: torch.Tensor,
    num_samples: int,
    *,
    seed: int = 0,
    projection_dim: int | None = PROJECTION_DIM,
    group_size: int = GROUP_SIZE,
    progress: Callable[[int], None] | None = None,
) -> torch.Tensor:
    """Select patches that cover the embeddings: the approximate greedy k-centre coreset.

    The selection is sequential: the first m of M selected patches are the coreset of size m.

    Args:
        embeddings: (N, D) float32, on the device of the computation; other types are converted.
        num_samples: M, from 1 to N.
        seed: Seed of the projection and of the starting points.
        projection_dim: Length to which embeddings are projected at random first (section 3.2,
            after Johnson and Lindenstrauss); None measures distances in full length.
        group_size: Number of patches that are compared at a time. It affects the time, and the
            result only if distances differ by less than float32 resolves.
        progress: Called with the number of patches selected so far, after each pass.

    Returns:
        (M,) int64 on the same device: different indices into N, in order of selection.

    Raises:
        PatchCoreError: ``num_samples`` is out of range, or a value is not finite.
    """
    shards = LocalShards.of(project(embeddings.detach().float(), seed, projection_dim))
    centre(shards, seed)
    found = select_greedily(
        shards, num_samples, seed=seed, group_size=group_size, progress=progress
    )
    return torch.from_numpy(found.numbers).to(embeddings.device)


def projection(embed_dim: int, projection_dim: int, seed: int) -> torch.Tensor:
    """Draw the reference code's random map, on the CPU, so that every device gets the same.

    Returns:
        (projection_dim, embed_dim) float32.
    """
    # As the reference code's `torch.nn.Linear` draws its weights.
    generator = torch.Generator().manual_seed(seed)
    weight = torch.empty(projection_dim, embed_dim)
    return torch.nn.init.kaiming_uniform_(weight, a=math.sqrt(5), generator=generator)


@float32_products()
def project(
    embeddings: torch.Tensor, seed: int, projection_dim: int | None = PROJECTION_DIM
) -> torch.Tensor:
    """Project embeddings by the seeded `projection`.

    The result has the same bits whether all embeddings are projected at once or in batches.

    Args:
        embeddings: (n, D) float32.
        seed: Seed of the projection.
        projection_dim: P; None, or D itself, leaves the embeddings as they are.

    Returns:
        (n, P) float32, always a new tensor.
    """
    if projection_dim is None or projection_dim == embeddings.shape[1]:
        return embeddings.clone()
    weight = projection(embeddings.shape[1], projection_dim, seed).to(embeddings.device)
    weight = aligned_columns(weight)
    points = torch.empty(len(embeddings), projection_dim, device=embeddings.device)
    for rows, block in fixed_blocks(embeddings):
        points[rows] = (block @ weight.T)[: rows.stop - rows.start]
    return points


class Selection(NamedTuple):
    """Selected patches of several sizes.

    Attributes:
        numbers: (M,) int64, for the largest size; prefixes are those of the smaller ones.
        coverage: How well each size covers all patches.
    """

    numbers: np.ndarray
    coverage: tuple[Coverage, ...]


def select_sizes(
    shards: Shards,
    sizes: Sequence[int],
    *,
    seed: int,
    progress: Callable[[int], None] | None = None,
) -> Selection:
    """Select the largest of several coresets, each of which is a prefix of the next.

    A coreset of all patches (``percentage_coreset`` 1, as in AnomalyDINO) needs no selection: after
    those of the next smaller size, all others follow in the order of their numbers.

    Args:
        shards: The patches, centred.
        sizes: Ascending.
        seed: Seed of the starting points.
        progress: Called with the number of patches selected so far, after each pass.

    Raises:
        PatchCoreError: The largest size is out of range, or a value is not finite.
    """
    count = len(shards)
    selected = [size for size in sizes if size != count]  # larger ones are refused
    numbers, coverage = np.empty(0, dtype=np.int64), ()
    if selected:
        found = select_greedily(shards, selected[-1], seed=seed, progress=progress)
        numbers, coverage = found.numbers, coverage_of(shards, found, selected)
    if len(selected) == len(sizes):
        return Selection(numbers, coverage)
    check_finite(shards.prepare())
    others = np.setdiff1d(np.arange(count), numbers, assume_unique=True)
    if progress is not None:
        progress(count)
    all_patches = (Coverage(0.0, 1.0),) * (len(sizes) - len(selected))
    return Selection(np.concatenate([numbers, others]), coverage + all_patches)


def alternate(selections: Sequence[Selection], candidates: torch.Tensor | None) -> np.ndarray:
    """Return the patches (M,) of each of L banks in turn, (M * L,), as `LayeredBank` has them.

    Args:
        selections: The selection of each bank, by number of the candidate.
        candidates: (N,) bool, the patches to select from; None for all.
    """
    positions = np.stack([selection.numbers for selection in selections], axis=1).ravel()
    return numbers_of(positions, candidates)


def numbers_of(positions: np.ndarray, candidates: torch.Tensor | None) -> np.ndarray:
    """Return the numbers of patches that are given by their positions among (N,) candidates."""
    if candidates is None:
        return positions
    return np.flatnonzero(candidates.cpu().numpy())[positions]


@float32_products()
def select_beyond(points: torch.Tensor, kept: torch.Tensor, radius: float) -> torch.Tensor:
    """Continue a selection among new patches, until none is beyond the covering radius.

    The first distance of a new patch is that to the patches selected before. Then the greedy
    selection continues: always the farthest one, as long as it is farther than the radius.

    Args:
        points: (N, P) float32, projections of the new patches.
        kept: (M, P) float32, projections of the patches selected before.
        radius: Their covering radius.

    Returns:
        (m,) int64: the added patches as indices into N, in order of selection; none if all new
        patches are within the radius.

    Raises:
        PatchCoreError: A value is not finite.
    """
    origin = kept.mean(0)
    kept = kept - origin
    kept_norms = squared_norms(kept)
    shards = LocalShards.of(points - origin)
    longest = check_finite(shards.prepare())
    shards.begin_beyond(kept, kept_norms)
    # By products of rounded numbers, the distance of equal patches is not 0.
    rounding = 16 * torch.finfo(torch.float32).eps * max(longest, float(kept_norms.max()))
    limit = radius**2 + rounding
    selected = [np.empty(0, dtype=np.int64)]
    while True:
        distances, numbers = shards.farthest(GROUP_SIZE + 1)
        beyond = distances > limit
        if not beyond.any():
            return torch.from_numpy(np.concatenate(selected))
        chosen = select_group(
            shards, distances[beyond], numbers[beyond], GROUP_SIZE, len(points), limit
        )
        shards.lower(chosen.points, chosen.norms, chosen.numbers)
        selected.append(chosen.numbers)
