"""Greedy k-centre selection of the coreset.

The paper's algorithm 1 (section 3.2) selects, one after another, the patch that is farthest from
all selected ones. The reference code passes over all N patches for each selected one. Here one
pass serves hundreds of selected patches, with the same result:

A patch's distance to the selected ones can only fall. Take the farthest patch of a small group. As
long as it is at least as far as *all patches outside the group were at the last pass*, it is the
farthest of all, and distances within the group determine the next one.

The result does not depend on how the patches are divided into batches, blocks or shards: nothing
is summed over all patches, products are computed in blocks of a fixed number of rows
(`fixed_blocks`), and of equal distances the lowest patch number comes first.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch

from patchcore.distances import aligned_columns, fixed_blocks
from patchcore.errors import PatchCoreError
from patchcore.precision import float32_products

# Patches in a group. Larger groups need fewer passes over all patches, smaller ones less work each.
GROUP_SIZE = 1024
# Length to which the paper's reference code projects embeddings before it selects.
PROJECTION_DIM = 128
# Number of patches that define the first distances, as in the reference code.
NUM_STARTING_POINTS = 10
# Distance of a selected patch: below any real distance, so that it is never selected again.
SELECTED = -1.0


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
        embeddings: (N, D) float32, on the device of the computation.
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
    points = centre_(project(embeddings, seed, projection_dim), seed)
    return select(points, num_samples, seed=seed, group_size=group_size, progress=progress)


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


def starting_points(num_patches: int, seed: int) -> torch.Tensor:
    """Draw the patches that define the first distances.

    Returns:
        (s,) int64 on the CPU: different indices below ``num_patches``.
    """
    # The legacy generator draws what the reference code draws for the same seed.
    generator = np.random.RandomState(seed)
    count = min(NUM_STARTING_POINTS, num_patches)
    return torch.from_numpy(generator.choice(num_patches, count, replace=False))


def centre_(
    points: torch.Tensor, seed: int, candidates: torch.Tensor | None = None
) -> torch.Tensor:
    """Subtract the mean of the starting points, in place.

    This changes no distance, and avoids the loss of digits by large common values. The mean of all
    points would depend on how they are divided, because sums over parts round differently.

    Args:
        points: (N, P) float32.
        seed: Seed of the starting points.
        candidates: (N,) bool, the points to select from; None for all.

    Returns:
        The same tensor.
    """
    taken = None if candidates is None else candidates.nonzero()[:, 0].to(points.device)
    starting = starting_points(len(points if taken is None else taken), seed)
    return points.sub_(_rows(points, taken, starting.to(points.device)).mean(0))


@float32_products()
def select(
    points: torch.Tensor,
    num_samples: int,
    *,
    seed: int,
    candidates: torch.Tensor | None = None,
    group_size: int = GROUP_SIZE,
    progress: Callable[[int], None] | None = None,
    reached: np.ndarray | None = None,
) -> torch.Tensor:
    """Select patches from their centred projections.

    The first distance of a patch is its mean distance to the starting points, which are not
    selected by this. With a mask, the result is that of ``points[candidates]`` to the last bit, as
    indices into ``points``, and without a copy of them.

    Args:
        points: (N, P) float32, as `project` and `centre_` return them.
        num_samples: M, from 1 to the number of candidates.
        seed: Seed of the starting points.
        candidates: (N,) bool, the patches that can be selected; None for all.
        group_size: As in `greedy_coreset`.
        progress: As in `greedy_coreset`.
        reached: (M + 1,) float64 to fill: the distance at which each patch was selected, and the
            distance at which the next one would be. The m-th is the covering radius of the first m:
            no candidate is farther from them. This takes one more pass over all patches.

    Returns:
        (M,) int64 on the same device: different indices into N, in order of selection.

    Raises:
        PatchCoreError: ``num_samples`` is out of range, or a value is not finite.
    """
    taken = None if candidates is None else candidates.nonzero()[:, 0].to(points.device)
    count = len(points if taken is None else taken)
    if not 1 <= num_samples <= count:
        raise PatchCoreError(
            f"expected a coreset of 1 to {count} patches, the number of training patches, found "
            f"{num_samples} (percentage_coreset)"
        )
    norms = squared_norms(points, taken)  # (n,), here and below by number of the candidate
    _check_finite(norms)
    starting = starting_points(count, seed).to(points.device)
    distances = first_distances(points, _rows(points, taken, starting), taken)  # (n,)
    selected = torch.empty(num_samples, dtype=torch.int64, device=points.device)
    done = 0
    while done < num_samples:
        group, bound = _farthest_group(distances, min(group_size, count - done))
        members = _rows(points, taken, group)  # (B, P)
        order, farthest = _select_group(
            members, norms[group], distances[group], group, bound, num_samples - done
        )
        chosen = group[order]
        selected[done : done + len(chosen)] = chosen
        if reached is not None:
            reached[done : done + len(chosen)] = np.sqrt(farthest)
        done += len(chosen)
        if done < num_samples or reached is not None:
            lower_distances_(distances, points, norms, members[order], norms[chosen], taken)
            distances[chosen] = SELECTED
        if progress is not None:
            progress(done)
    if reached is not None:
        reached[num_samples] = max(float(distances.max()), 0.0) ** 0.5
    return selected if taken is None else taken[selected]


def select_sizes(
    points: torch.Tensor,
    sizes: Sequence[int],
    *,
    seed: int,
    candidates: torch.Tensor | None = None,
    progress: Callable[[int], None] | None = None,
    measures_radii: bool = False,
) -> "Selection":
    """Select the largest of several coresets, each of which is a prefix of the next.

    A coreset of all candidates (``percentage_coreset`` 1, as in AnomalyDINO) needs no selection:
    after those of the next smaller size, all others follow in the order of their numbers.

    Args:
        points: (N, P) float32, as in `select`.
        sizes: Ascending.
        seed: As in `select`.
        candidates: As in `select`.
        progress: As in `select`.
        measures_radii: Whether to measure the covering radius of each size, which takes one more
            pass over all patches.

    Raises:
        PatchCoreError: As in `select`.
    """
    count = len(points) if candidates is None else int(candidates.sum())
    smaller = [size for size in sizes if size < count]
    chosen, reached = torch.empty(0, dtype=torch.int64, device=points.device), np.zeros(1)
    if smaller:
        reached = np.zeros(smaller[-1] + 1) if measures_radii else None
        chosen = select(
            points,
            smaller[-1],
            seed=seed,
            candidates=candidates,
            progress=progress,
            reached=reached,
        )
    radii = None
    if measures_radii:
        radii = tuple(float(reached[size]) if size < count else 0.0 for size in sizes)
    if sizes[-1] < count:
        return Selection(chosen, radii)
    if sizes[-1] > count:  # refused there
        select(points, sizes[-1], seed=seed, candidates=candidates)
    others = torch.ones(len(points), dtype=torch.bool, device=points.device)
    if candidates is not None:
        others &= candidates.to(points.device)
    _check_finite(squared_norms(points, others.nonzero()[:, 0]))
    others[chosen] = False
    if progress is not None:
        progress(count)
    return Selection(torch.cat([chosen, others.nonzero()[:, 0]]), radii)


class Selection(NamedTuple):
    """Selected patches of several sizes.

    Attributes:
        indices: (M,) int64 on the device of the points, for the largest size; prefixes are those of
            the smaller ones.
        radii: The covering radius of each size, in the unit of the projections: the largest
            distance of a candidate to the selected patches. None if not measured.
    """

    indices: torch.Tensor
    radii: tuple[float, ...] | None


@float32_products()
def select_beyond(points: torch.Tensor, kept: torch.Tensor, radius: float) -> torch.Tensor:
    """Go on with a selection among new patches, until none is beyond the covering radius.

    The first distance of a new patch is that to the patches selected before. Then the greedy
    selection goes on: always the farthest one, as long as it is farther than the radius.

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
    centre = kept.mean(0)
    points, kept = points - centre, kept - centre
    norms, kept_norms = squared_norms(points), squared_norms(kept)
    _check_finite(norms)
    distances = torch.full_like(norms, torch.inf)
    for start in range(0, len(kept), GROUP_SIZE):
        rows = slice(start, start + GROUP_SIZE)
        lower_distances_(distances, points, norms, kept[rows], kept_norms[rows])
    # By products of rounded numbers, the distance of equal patches is not 0.
    rounding = 16 * torch.finfo(torch.float32).eps * float(max(norms.max(), kept_norms.max()))
    limit = radius**2 + rounding
    selected: list[torch.Tensor] = []
    while float(distances.max()) > limit:
        count = int((distances > limit).sum())
        group, (outside, first_outside) = _farthest_group(distances, min(GROUP_SIZE, count))
        bound = (outside, first_outside) if outside > limit else (limit, -1)
        order, _ = _select_group(
            points[group], norms[group], distances[group], group, bound, len(group)
        )
        chosen = group[order]
        lower_distances_(distances, points, norms, points[chosen], norms[chosen])
        distances[chosen] = SELECTED
        selected.append(chosen)
    return torch.cat(selected) if selected else torch.empty(0, dtype=torch.int64)


def _check_finite(norms: torch.Tensor) -> None:
    """Check squared lengths of projections."""
    if not bool(torch.isfinite(norms).all()):
        raise PatchCoreError(
            "expected finite embeddings, found infinite or undefined values (backbone, weights, "
            "precision)"
        )


def _rows(points: torch.Tensor, taken: torch.Tensor | None, numbers: torch.Tensor) -> torch.Tensor:
    return points[numbers if taken is None else taken[numbers]]


def squared_norms(points: torch.Tensor, taken: torch.Tensor | None = None) -> torch.Tensor:
    """Return (n,) squared lengths of points (N, P); only of ``taken``, (n,) int64, if given."""
    norms = torch.empty(len(points if taken is None else taken), device=points.device)
    for rows, block in fixed_blocks(points, taken):
        norms[rows] = _norms(block)[: rows.stop - rows.start]
    return norms


def _norms(block: torch.Tensor) -> torch.Tensor:
    return torch.linalg.vector_norm(block, dim=1).square_()


@float32_products()
def first_distances(
    points: torch.Tensor, starting: torch.Tensor, taken: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the squares of the mean distances to the starting points.

    Squares have the order of the distances, and avoid a square root for each pair later.

    Args:
        points: (N, P), all patches or a part.
        starting: (s, P), the starting points.
        taken: (n,) int64, the points to use; None for all.

    Returns:
        (n,) float32.
    """
    distances = torch.empty(len(points if taken is None else taken), device=points.device)
    starting_norms, starting = squared_norms(starting), aligned_columns(starting)
    for rows, block in fixed_blocks(points, taken):
        partial = torch.addmm(starting_norms, block, starting.T, alpha=-2)  # (R, s)
        means = partial.add_(_norms(block)[:, None]).clamp_(min=0).sqrt_().mean(1)
        distances[rows] = means.square_()[: rows.stop - rows.start]
    return distances


@float32_products()
def lower_distances_(
    distances: torch.Tensor,
    points: torch.Tensor,
    norms: torch.Tensor,
    centres: torch.Tensor,
    centre_norms: torch.Tensor,
    taken: torch.Tensor | None = None,
) -> None:
    """Lower squared distances to those to the nearest of some centres, in place.

    Distances can be computed again with the same bits: by `first_distances`, then by this function
    with the same groups of centres in the same order.

    Args:
        distances: (n,) to lower.
        points: (N, P), all patches or a part.
        norms: (n,) squared lengths of the points.
        centres: (m, P).
        centre_norms: (m,) squared lengths of the centres.
        taken: (n,) int64, the points to use; None for all.
    """
    centres = aligned_columns(centres)
    for rows, block in fixed_blocks(points, taken):
        # |x - c|^2 = |x|^2 + (|c|^2 - 2 x c); the minimum over c needs |x|^2 only once.
        partial = torch.addmm(centre_norms, block, centres.T, alpha=-2).amin(1)
        nearest = partial[: rows.stop - rows.start].add_(norms[rows]).clamp_(min=0)
        torch.minimum(distances[rows], nearest, out=distances[rows])


def _farthest_group(
    distances: torch.Tensor, group_size: int
) -> tuple[torch.Tensor, tuple[float, int]]:
    """Find the farthest patches; of equal distances, those with the lowest numbers.

    Args:
        distances: (N,), below 0 for selected patches.
        group_size: At most the number of patches that are not selected.

    Returns:
        (B,) int64 patch numbers, ascending; and the largest distance outside the group with the
        lowest number of a patch at that distance, both -1 if all other patches are selected.
    """
    largest = torch.topk(distances, min(group_size + 1, len(distances)))
    group = largest.indices[:group_size]
    outside = SELECTED if len(largest.values) == group_size else float(largest.values[-1])
    if outside < 0:
        return group.sort().values, (SELECTED, -1)
    # Which of equal values `topk` returns is undefined, so those at the border are looked up.
    farther = group[largest.values[:group_size] > outside]
    ties = (distances == outside).nonzero()[:, 0]  # ascending
    room = group_size - len(farther)
    group = torch.cat([farther, ties[:room]]).sort().values
    return group, (outside, int(ties[room]))


def _select_group(
    points: torch.Tensor,
    norms: torch.Tensor,
    distances: torch.Tensor,
    numbers: torch.Tensor,
    bound: tuple[float, int],
    max_patches: int,
) -> tuple[torch.Tensor, list[float]]:
    """Select the next patches from a group, as long as the group alone determines them.

    Args:
        points: (B, P), the group.
        norms: (B,) squared lengths of the points.
        distances: (B,) squared distance of each to the selected patches.
        numbers: (B,) patch numbers, ascending, as `_farthest_group` returns them.
        bound: Largest distance outside the group, and the lowest number of a patch at it.
        max_patches: Largest number of patches to return.

    Returns:
        (m,) int64 indices into the group in order of selection, 1 <= m <= max_patches; the squared
        distance at which each was selected.
    """
    # The steps run on the CPU, where each takes a microsecond. On a GPU, each would wait for the
    # device.
    among, remaining, numbers = _to_host(_distances_among(points, norms), distances, numbers)
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
    return torch.tensor(order, dtype=torch.int64, device=points.device), reached


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


def _to_host(*tensors: torch.Tensor) -> list[np.ndarray]:
    """Return tensors as arrays: from a GPU with one wait for all, into pinned memory."""
    if not tensors[0].is_cuda:
        return [tensor.numpy() for tensor in tensors]
    arrays = [torch.empty(t.shape, dtype=t.dtype, pin_memory=True) for t in tensors]
    for array, tensor in zip(arrays, tensors, strict=True):
        array.copy_(tensor, non_blocking=True)
    torch.cuda.current_stream(tensors[0].device).synchronize()
    return [array.numpy() for array in arrays]
