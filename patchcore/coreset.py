"""Greedy k-centre selection -> indices of the coreset, in order of selection.

The paper's algorithm 1 (section 3.2): select, one after another, the patch that is farthest from
all selected ones. The reference code does a pass over all N patches for each selected one. Here a
pass serves hundreds of them, with the same result:

A patch's distance to the selected ones can only fall. So while the farthest of a small group of
patches is at least as far as *all patches outside the group were at the last pass*, it is the
farthest of all, and distances within the group alone tell which one follows.
"""

import math
from collections.abc import Callable

import numpy as np
import torch

from patchcore.distances import rows_at_a_time
from patchcore.errors import PatchCoreError
from patchcore.precision import float32_products

# Patches in a group. Larger: fewer passes over all patches; smaller: a cheaper group.
GROUP_SIZE = 1024
# Length to which the paper's reference code projects embeddings before it selects.
PROJECTION_DIM = 128
# Marks a selected patch: below any distance, so that it is never selected twice.
SELECTED = -1.0


@float32_products()
def greedy_coreset(
    embeddings: torch.Tensor,
    num_samples: int,
    *,
    seed: int = 0,
    num_starting_points: int = 10,
    projection_dim: int | None = PROJECTION_DIM,
    group_size: int = GROUP_SIZE,
    progress: Callable[[int], None] | None = None,
) -> torch.Tensor:
    """Select patches that cover the embeddings: the approximate greedy k-centre coreset.

    Sequential, so that the first m of M selected patches are the coreset of size m. Where two
    patches are equally far, or their distances differ by less than float32 resolves, either may
    come first.

    Args:
        embeddings: (N, D) float32 or float16, on the device that is to do the work.
        num_samples: M, from 1 to N.
        seed: Of the projection and of the starting points.
        num_starting_points: A patch's first distance is its mean distance to this many patches
            drawn at random, which are not selected by that.
        projection_dim: Length to which embeddings are projected at random before (section 3.2,
            after Johnson and Lindenstrauss); None measures distances in full length.
        group_size: Patches that are looked at together; changes the time, not the result.
        progress: Called with the number of patches selected so far, after each pass.

    Returns:
        (M,) int64 on the same device: different indices into N, in order of selection.

    Raises:
        PatchCoreError: more patches are wanted than there are, or none; or a value is not finite.
    """
    count = len(embeddings)
    if not 1 <= num_samples <= count:
        raise PatchCoreError(
            f"expected a coreset of 1 to {count} patches, which is how many there are, found "
            f"{num_samples} (percentage_coreset)"
        )
    points = project(embeddings, projection_dim, seed)  # (N, P), the only copy of this size
    norms = torch.linalg.vector_norm(points, dim=1).square_()  # (N,)
    if not bool(torch.isfinite(norms).all()):
        raise PatchCoreError("expected finite embeddings, found infinite or undefined values")
    starting_points = _draw_starting_points(count, num_starting_points, seed)
    # From here on squared: the order is the same, and a square root for each pair is saved.
    distances = _mean_distances(points, points[starting_points]).square_()  # (N,)
    selected = torch.empty(num_samples, dtype=torch.int64, device=points.device)
    done = 0
    while done < num_samples:
        chosen = _select_group(points, distances, min(group_size, count), num_samples - done)
        _lower_distances(distances, points, norms, chosen)
        distances[chosen] = SELECTED
        selected[done : done + len(chosen)] = chosen
        done += len(chosen)
        if progress is not None:
            progress(done)
    return selected


def projection(embed_dim: int, projection_dim: int, seed: int) -> torch.Tensor:
    """Draw the random map of the reference code, on the CPU, so that every device gets the same.

    Returns:
        (projection_dim, embed_dim) float32.
    """
    # As the reference code's `torch.nn.Linear` draws its weights.
    generator = torch.Generator().manual_seed(seed)
    weight = torch.empty(projection_dim, embed_dim)
    return torch.nn.init.kaiming_uniform_(weight, a=math.sqrt(5), generator=generator)


@float32_products()
def project(embeddings: torch.Tensor, projection_dim: int | None, seed: int) -> torch.Tensor:
    """Project (N, D) to (N, projection_dim) by the seeded `projection`.

    The result is centred, which changes no distance and keeps the digits that large common values
    would cost.
    """
    if projection_dim is not None and projection_dim != embeddings.shape[1]:
        weight = projection(embeddings.shape[1], projection_dim, seed).to(embeddings.device)
        points = torch.empty(len(embeddings), projection_dim, device=embeddings.device)
        # In blocks, so that float16 is never there as float32 as a whole.
        step = rows_at_a_time(embeddings.device, embeddings.shape[1])
        for start in range(0, len(embeddings), step):
            rows = slice(start, start + step)
            points[rows] = embeddings[rows].float() @ weight.T  # (rows, P)
        return points.sub_(points.mean(0))
    return embeddings.float() - embeddings.float().mean(0)


def _draw_starting_points(count: int, num_starting_points: int, seed: int) -> torch.Tensor:
    # The legacy generator on purpose: the reference code's draw for the same seed.
    generator = np.random.RandomState(seed)
    chosen = generator.choice(count, min(num_starting_points, count), replace=False)
    return torch.from_numpy(chosen)


def _mean_distances(points: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Return (N,) mean Euclidean distances to the others, by rows: `cdist` copies what it gets."""
    step = rows_at_a_time(points.device, points.shape[1])
    return torch.cat([torch.cdist(rows, others).mean(1) for rows in points.split(step)])


def _select_group(
    points: torch.Tensor, distances: torch.Tensor, group_size: int, most: int
) -> torch.Tensor:
    """Select the next patches, as many as the farthest ``group_size`` patches can prove.

    Args:
        points: (N, P).
        distances: (N,) squared distance of each patch to the selected ones.
        group_size: At most N.
        most: Return no more than this.

    Returns:
        (m,) indices in order of selection, 1 <= m <= most.
    """
    farthest = torch.topk(distances, min(group_size + 1, len(distances)))
    candidates = farthest.indices[:group_size]
    group = points[candidates]
    # The few group members' own distances, and the bookkeeping of the steps, on the CPU: a
    # step is a microsecond there, and would be a wait for the device here.
    among, values = _to_host(torch.cdist(group, group).square_(), farthest.values)
    # Farther than everything outside the group; with all patches inside, whatever is unselected.
    outside = float(values[group_size]) if len(values) > group_size else 0.0
    outside = max(outside, 0.0)  # patches selected before do not count
    remaining = values[:group_size].copy()
    order = []
    while len(order) < most:
        next_one = int(remaining.argmax())
        if order and remaining[next_one] < outside:
            break
        order.append(next_one)
        np.minimum(remaining, among[next_one], out=remaining)
        remaining[next_one] = SELECTED
    return candidates[torch.tensor(order, device=candidates.device)]


def _to_host(*tensors: torch.Tensor) -> list[np.ndarray]:
    """Return tensors as arrays: from a GPU with one wait for all, into reused memory."""
    if not tensors[0].is_cuda:
        return [tensor.numpy() for tensor in tensors]
    arrays = [torch.empty(t.shape, dtype=t.dtype, pin_memory=True) for t in tensors]
    for array, tensor in zip(arrays, tensors, strict=True):
        array.copy_(tensor, non_blocking=True)
    torch.cuda.current_stream(tensors[0].device).synchronize()
    return [array.numpy() for array in arrays]


def _lower_distances(
    distances: torch.Tensor, points: torch.Tensor, norms: torch.Tensor, chosen: torch.Tensor
) -> None:
    """Lower each patch's squared distance to that to the nearest of the chosen ones, in place."""
    centres, centre_norms = points[chosen], norms[chosen]
    step = rows_at_a_time(points.device, len(chosen))
    for start in range(0, len(points), step):
        rows = slice(start, start + step)
        # |x - c|^2 = |x|^2 + (|c|^2 - 2 x c); the least over c needs |x|^2 only once.
        partial = torch.addmm(centre_norms, points[rows], centres.T, alpha=-2).amin(1)
        nearest = partial.add_(norms[rows]).clamp_(min=0)
        torch.minimum(distances[rows], nearest, out=distances[rows])
