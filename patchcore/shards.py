"""The patches of a greedy selection, divided into shards, and their distances to what is selected.

A selection (`patchcore.greedy`) asks all shards together: for their farthest patches, for the
vectors of a few, and to lower all distances by those that were selected. Between two questions only
a few hundred vectors travel. On one machine there is one shard; over several machines
(`patchcore.distributed`) each worker holds one.

The distances do not depend on the division: products are computed in blocks of a fixed number of
rows (`fixed_blocks`), and nothing is summed over patches.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch

from patchcore.distances import aligned_columns, fixed_blocks
from patchcore.torch_state import float32_products

# Squared distance of a selected patch: below any real one, so that it is never selected again.
SELECTED = -1.0
# Number of patches that are compared with all selected ones at a time, for a covering radius.
CHECKED_AT_A_TIME = 1024


class Shard:
    """Consecutive patches on one device.

    Distances are squared, which keeps their order and avoids a square root for each pair.

    Args:
        points: (N, P) float32, projections. They must be centred before `begin`.
        taken: (n,) int64 on the same device, the positions in ``points`` of the patches that can be
            selected, ascending; None for all. Below, patches are numbered as positions in it.
    """

    def __init__(self, points: torch.Tensor, taken: torch.Tensor | None = None):
        self._points, self._taken = points, taken
        self._norms = self._distances = self._starting = None
        self._num_left = len(self)

    def __len__(self) -> int:
        return len(self._points if self._taken is None else self._taken)

    def rows(self, numbers: np.ndarray) -> torch.Tensor:
        """Return the projections (b, P) of patches (b,)."""
        return self._points[self._positions(numbers)]

    def subtract(self, origin: torch.Tensor) -> None:
        """Subtract a vector (P,) from all projections, in place."""
        self._points.sub_(origin)

    def prepare(self) -> float:
        """Compute the squared lengths; return the largest, not finite if any value is not."""
        self._norms = squared_norms(self._points, self._taken)
        return float(self._norms.max()) if len(self) else 0.0

    def begin(self, starting: torch.Tensor) -> float:
        """Begin with the mean distances to the starting points (s, P); return the smallest."""
        self._starting = starting
        self._distances = first_distances(self._points, starting, self._taken)
        return float(self._distances.min()) if len(self) else np.inf

    def begin_beyond(self, kept: torch.Tensor, kept_norms: torch.Tensor) -> None:
        """Begin with the distances to patches (m, P) that were selected before."""
        self._distances = torch.full_like(self._norms, torch.inf)
        for start in range(0, len(kept), CHECKED_AT_A_TIME):
            rows = slice(start, start + CHECKED_AT_A_TIME)
            self._lower(kept[rows], kept_norms[rows])

    def farthest(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Find the farthest patches; of equal distances, those with the lowest numbers.

        Returns:
            (b,) float32 squared distances and (b,) int64 numbers of the patches, by ascending
            number; fewer than ``size`` if fewer are not selected.
        """
        size = min(size, self._num_left)
        largest = torch.topk(self._distances, min(size + 1, len(self)))
        group = largest.indices[:size]
        if 0 < size < len(largest.values):
            border, outside = largest.values[size - 1 :].tolist()
            if border == outside:  # which of equal values `topk` returns is undefined
                farther = group[largest.values[:size] > border]
                ties = (self._distances == border).nonzero()[:, 0]  # ascending
                group = torch.cat([farther, ties[: size - len(farther)]])
        group = group.sort().values
        return tuple(to_host(self._distances[group], group))

    def lower(self, centres: torch.Tensor, norms: torch.Tensor, selected: np.ndarray) -> None:
        """Lower the distances by newly selected patches.

        Args:
            centres: (m, P), the newly selected patches of all shards, in order of selection.
            norms: (m,) their squared lengths.
            selected: (j,) int64, the numbers of those that are of this shard.
        """
        self._lower(centres, norms)
        self._distances[self._on_device(selected)] = SELECTED
        self._num_left -= len(selected)

    def radius(
        self, near: np.ndarray, centres: torch.Tensor, norms: torch.Tensor, reached: float
    ) -> float:
        """Return the largest squared distance of a patch to the nearest of some centres.

        The loop's distances are those to the nearest selected patch, or to the starting points
        where these are nearer. Only patches with a starting distance of at most ``reached`` can
        therefore be farther from the centres than that. These are compared with all centres,
        the most promising first.

        Args:
            near: (s,) int64, a few of the centres, near the starting points.
            centres: (m, P), the selected patches.
            norms: (m,) their squared lengths.
            reached: The largest of the loop's squared distances after these were selected.
        """
        distances = first_distances(self._points, self._starting, self._taken)
        doubtful = (distances <= reached).nonzero()[:, 0]
        taken = doubtful if self._taken is None else self._taken[doubtful]
        at_most, own_norms = torch.full_like(distances[doubtful], torch.inf), self._norms[doubtful]
        lower_distances_(at_most, self._points, own_norms, centres[near], norms[near], taken)
        largest = reached
        while len(at_most) and float(at_most.max()) > largest:
            some = at_most.topk(min(CHECKED_AT_A_TIME, len(at_most))).indices
            exact = torch.full_like(own_norms[some], torch.inf)
            for start in range(0, len(centres), CHECKED_AT_A_TIME):
                rows = slice(start, start + CHECKED_AT_A_TIME)
                lower_distances_(
                    exact, self._points, own_norms[some], centres[rows], norms[rows], taken[some]
                )
            largest = max(largest, float(exact.max()))
            at_most[some] = SELECTED
        return largest

    def _lower(self, centres: torch.Tensor, norms: torch.Tensor) -> None:
        lower_distances_(self._distances, self._points, self._norms, centres, norms, self._taken)

    def _on_device(self, numbers: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(numbers).to(self._points.device)

    def _positions(self, numbers: np.ndarray) -> torch.Tensor:
        numbers = self._on_device(numbers)
        return numbers if self._taken is None else self._taken[numbers]


class Shards(ABC):
    """Shards that are called together; their patches are numbered throughout.

    Args:
        counts: Number of patches of each shard, in order.
    """

    def __init__(self, counts: Sequence[int]):
        self._firsts = np.cumsum([0, *counts])[:-1]
        self._count = sum(counts)

    def __len__(self) -> int:
        return self._count

    @abstractmethod
    def call(self, method: str, arguments: Sequence[tuple]) -> list:
        """Call a method of each shard with its arguments; return the results in order."""

    def send(self, method: str, arguments: Sequence[tuple]) -> None:
        """Call a method that changes the shards and returns nothing of use."""
        self.call(method, arguments)

    def rows(self, numbers: np.ndarray) -> torch.Tensor:
        """Return the projections (b, P) of patches (b,)."""
        shard_of, own = self._divide(numbers)
        found = self.call("rows", [(part,) for part in own])
        if len(found) == 1:
            return found[0]
        found = torch.cat(found)
        place = np.argsort(np.argsort(shard_of, kind="stable"), kind="stable")
        return found[torch.from_numpy(place).to(found.device)]

    def subtract(self, origin: torch.Tensor) -> None:
        """Subtract a vector (P,) from all projections."""
        self.send("subtract", self._to_all(origin))

    def prepare(self) -> float:
        """Compute the squared lengths; return the largest, not finite if any value is not."""
        return float(np.max(self.call("prepare", self._to_all())))

    def begin(self, starting: torch.Tensor) -> float:
        """Begin with the mean distances to the starting points; return the smallest, squared."""
        return min(self.call("begin", self._to_all(starting)))

    def begin_beyond(self, kept: torch.Tensor, kept_norms: torch.Tensor) -> None:
        """Begin with the distances to patches (m, P) that were selected before."""
        self.send("begin_beyond", self._to_all(kept, kept_norms))

    def farthest(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Find the farthest of each shard, as `Shard.farthest`; no more are those of all."""
        found = self.call("farthest", self._to_all(size))
        pairs = zip(found, self._firsts, strict=True)
        distances, numbers = zip(*[(d, n + first) for (d, n), first in pairs], strict=True)
        return np.concatenate(distances), np.concatenate(numbers)

    def lower(self, centres: torch.Tensor, norms: torch.Tensor, selected: np.ndarray) -> None:
        """Lower the distances by newly selected patches (m,), with their projections (m, P)."""
        _, own = self._divide(selected)
        self.send("lower", [(centres, norms, part) for part in own])

    def radius(
        self, near: np.ndarray, centres: torch.Tensor, norms: torch.Tensor, reached: float
    ) -> float:
        """Return the largest squared distance to the nearest centre, as `Shard.radius`."""
        return max(self.call("radius", self._to_all(near, centres, norms, reached)))

    def _to_all(self, *arguments: object) -> list[tuple]:
        return [arguments] * len(self._firsts)

    def _divide(self, numbers: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        """Return the shard (b,) of each patch, and by shard the numbers within it."""
        shard_of = np.searchsorted(self._firsts, numbers, side="right") - 1
        own = [numbers[shard_of == shard] - first for shard, first in enumerate(self._firsts)]
        return shard_of, own


class LocalShards(Shards):
    """Shards in this process.

    Args:
        shards: The shards, in order.
    """

    def __init__(self, shards: Sequence[Shard]):
        super().__init__([len(shard) for shard in shards])
        self._shards = shards

    @classmethod
    def of(cls, points: torch.Tensor, candidates: torch.Tensor | None = None) -> "LocalShards":
        """Return one shard of all points (N, P), or of the candidates (N,) bool among them."""
        taken = None if candidates is None else candidates.nonzero()[:, 0].to(points.device)
        return cls([Shard(points, taken)])

    def call(self, method: str, arguments: Sequence[tuple]) -> list:
        """Call a method of each shard with its arguments; return the results in order."""
        pairs = zip(self._shards, arguments, strict=True)
        return [getattr(shard, method)(*own) for shard, own in pairs]


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


def to_host(*tensors: torch.Tensor) -> list[np.ndarray]:
    """Return tensors as arrays: from a GPU with one wait for all, into pinned memory."""
    if not tensors[0].is_cuda:
        return [tensor.numpy() for tensor in tensors]
    arrays = [torch.empty(t.shape, dtype=t.dtype, pin_memory=True) for t in tensors]
    for array, tensor in zip(arrays, tensors, strict=True):
        array.copy_(tensor, non_blocking=True)
    torch.cuda.current_stream(tensors[0].device).synchronize()
    return [array.numpy() for array in arrays]
