"""Exact nearest neighbours of patches in the coreset.

On a CPU most distances are never computed. Along the directions in which the bank varies most, few
coordinates hold most of a vector: with the centred q split into a head (those coordinates) and a
tail (the rest),

    |q - c|^2 >= |q_head - c_head|^2 + (|q_tail| - |c_tail|)^2

for any data and any directions. This lower bound is the squared distance of vectors of 65 instead
of 1024 numbers. The rows with the least bounds give some true distances; every row whose bound is
no larger than those is then looked at in full, and no other row can be nearer.
"""

import importlib
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import faiss
import torch
import torch.nn.functional as F

from patchcore.errors import PatchCoreError

# Floats of a block of the distance matrix, where torch searches: 256 MB.
BLOCK_FLOATS = 1 << 26
# Query rows at a time where the true distances of the found neighbours are computed.
BLOCK_ROWS = 2048

# Coordinates of the head. More make bounds dearer, fewer leave more rows to look at: on embeddings
# of ResNet50 and WideResNet50 (D = 1024) 48 to 96 take about the same time.
HEAD = 64
# What is smaller is searched plainly: the bounds would take as long as the distances themselves.
BOUND_MIN_ROWS, BOUND_MIN_DIM, BOUND_MIN_QUERIES = 1024, 4 * HEAD, 256
# Floats of a block of bounds: 64 MB. Few large operations, since each waits for all threads.
BOUND_FLOATS = 1 << 24
# Rows of the bank whose least bound is compared first.
GROUP = 32
# A query that would look into more groups than this share of the bank's rows is searched plainly:
# a distance by itself takes 30 times what it takes within a matrix product.
MOST_GROUPS = 1 / 64
# Rows of the bank from which its principal axes are estimated.
SAMPLE_ROWS = 2048


class MemoryBank:
    """The coreset's embeddings, searched exactly: by faiss where it serves the device.

    Attributes:
        embeddings: (M, D) float32, in order of selection. Not to be changed after the first
            search, which prepares what speeds up the next ones.

    Args:
        embeddings: (M, D) float32 on the device that is to search.

    Raises:
        PatchCoreError: the bank is empty or not a matrix.
    """

    def __init__(self, embeddings: torch.Tensor):
        if embeddings.ndim != 2 or not len(embeddings):
            raise PatchCoreError(
                f"expected coreset embeddings (M, D), found shape {tuple(embeddings.shape)}"
            )
        self.embeddings = embeddings.float().contiguous()
        self._axes: _Axes | None = None
        self._parts: dict[tuple[int, int], _BoundedPart] = {}
        self._gpu = None
        if embeddings.is_cuda and _faiss_has_gpu():
            # Lets faiss take and return tensors on the GPU, on torch's stream.
            importlib.import_module("faiss.contrib.torch_utils")
            self._gpu = faiss.StandardGpuResources()

    def __len__(self) -> int:
        return len(self.embeddings)

    def search(self, queries: torch.Tensor, k: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
        """Find each query's nearest neighbours.

        Args:
            queries: (Q, D) float32 on the bank's device.
            k: How many, from 1 to M.

        Returns:
            (Q, k) float32 Euclidean distances, ascending; (Q, k) int64 indices into the bank.

        Raises:
            PatchCoreError: k is larger than the bank.
        """
        return next(self.search_prefixes(queries, k, [len(self)]))

    def search_prefixes(
        self, queries: torch.Tensor, k: int, sizes: Sequence[int]
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Find each query's nearest neighbours among the first m of the bank, for several m.

        The first m selected patches are the coreset of size m. Each part of the bank is searched
        once, so all sizes together cost what the largest does.

        Args:
            queries: (Q, D) float32 on the bank's device.
            k: How many neighbours, from 1 to the smallest size.
            sizes: Ascending, from k to M.

        Yields:
            What `search` would return from a bank of each size, each as soon as it is known.

        Raises:
            PatchCoreError: k is larger than the smallest size.
        """
        if not 1 <= k <= sizes[0]:
            raise PatchCoreError(
                f"expected k from 1 to the coreset's size {sizes[0]}, found {k} (k, "
                "percentage_coreset)"
            )
        queries = queries.contiguous()
        short = self._shorten(queries)
        best = None
        for start, stop in pairwise([0, *sizes]):
            part = self.embeddings[start:stop]
            indices = None
            if short is not None and stop - start >= max(BOUND_MIN_ROWS, k * GROUP):
                indices = self._bounded_part(start, stop).nearest(queries, short, k)
            if indices is None:
                indices = self._nearest(queries, part, min(k, stop - start))
            found = _true_distances(queries, part, indices), indices + start
            best = found if best is None else _merge(best, found, k)
            yield best

    def _nearest(self, queries: torch.Tensor, part: torch.Tensor, k: int) -> torch.Tensor:
        """Return (Q, k) indices of the nearest rows of ``part``, nearest first."""
        if self._gpu is not None:
            return faiss.knn_gpu(self._gpu, queries, part, k)[1]
        if queries.is_cuda:
            return torch_nearest(queries, part, k)
        return _faiss_nearest(queries, part, k)

    def _shorten(self, queries: torch.Tensor) -> "_Short | None":
        """Shorten queries for the bounds; None where those would not pay."""
        rows, dim = self.embeddings.shape
        big = rows >= BOUND_MIN_ROWS and dim >= BOUND_MIN_DIM and len(queries) >= BOUND_MIN_QUERIES
        useless = self._parts and not any(part.pays for part in self._parts.values())
        if queries.is_cuda or not big or useless:
            return None
        self._axes = self._axes or _principal_axes(self.embeddings)
        return _shorten(queries, self._axes)

    def _bounded_part(self, start: int, stop: int) -> "_BoundedPart":
        if (start, stop) not in self._parts:
            part = self.embeddings[start:stop]
            self._parts[start, stop] = _BoundedPart(part, _shorten(part, self._axes))
        return self._parts[start, stop]


class _Axes(NamedTuple):
    """Where the bank lies, and orthonormal directions in which it varies most."""

    centre: torch.Tensor  # (D,) float64
    directions: torch.Tensor  # (D, HEAD) float64


class _Short(NamedTuple):
    """Vectors reduced to what the bounds need."""

    coordinates: torch.Tensor  # (n, HEAD + 1) float32: the head and the tail's length
    squares: torch.Tensor  # (n,) float32: squared lengths of the centred vectors


class _BoundedPart:
    """A run of the bank's rows, (m, D), searched by lower bounds of the distances.

    Attributes:
        pays: Whether the bounds spare work on these data. Where they do not they are left out.
    """

    def __init__(self, embeddings: torch.Tensor, short: _Short):
        self.pays = True
        self._embeddings = embeddings
        self._largest = float(short.squares.max())
        count, groups = len(embeddings), -(-len(embeddings) // GROUP)
        # |a - b|^2 - |a|^2 = |b|^2 - 2 a b is one product of (a, 1) and (-2 b, |b|^2). The last
        # groups are filled up with rows that are infinitely far.
        factors = torch.zeros(groups * GROUP, HEAD + 2)
        torch.mul(short.coordinates, -2, out=factors[:count, :-1])
        factors[:count, -1] = short.squares
        factors[count:, -1] = torch.inf
        # Row (group, member) goes to place (member, group): the least of each group is then a
        # minimum over whole rows of a matrix, the fastest kind.
        factors = factors.view(groups, GROUP, -1).transpose(0, 1).flatten(0, 1)
        self._factors = factors.T  # (HEAD + 2, GROUP * groups)

    def nearest(self, queries: torch.Tensor, short: _Short, k: int) -> torch.Tensor | None:
        """Return (Q, k) indices of the nearest rows, nearest first; None if it does not pay."""
        if not self.pays:
            return None
        width = self._factors.shape[1]
        block_rows = max(BOUND_MIN_QUERIES, BOUND_FLOATS // width)
        buffer = torch.empty(min(len(queries), block_rows), width)
        # The first block is small: it shows whether the bounds pay.
        borders = [0, *range(BOUND_MIN_QUERIES, len(queries), block_rows), len(queries)]
        found = []
        for start, stop in pairwise(borders):
            rows = slice(start, stop)
            block = queries[rows]
            left = F.pad(short.coordinates[rows], (0, 1), value=1.0)  # (rows, HEAD + 2)
            bounds = torch.mm(left, self._factors, out=buffer[: len(block)])
            bounds = bounds.view(len(block), GROUP, -1)  # each less the query's own square
            query, row = self._possible(block, short.squares[rows], bounds, k)
            found.append((query + start, row))
            if start == 0 and len(query.unique()) < len(block) / 2:
                self.pays = False
                return None
        query, row = (torch.cat(parts) for parts in zip(*found, strict=True))
        return self._choose(queries, query, row, k)

    def _possible(
        self, queries: torch.Tensor, squares: torch.Tensor, bounds: torch.Tensor, k: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ascending pairs of a query and a row, (P,) each: all that can be of the nearest.

        Queries for which these would be too many are left out.
        """
        least = bounds.amin(1)  # (Q, groups)
        groups = least.topk(k, dim=1, largest=False).indices  # (Q, k)
        members = bounds.gather(2, groups[:, None].expand(-1, GROUP, -1)).argmin(1)
        # k different rows: the k nearest are no farther than the farthest of these.
        first = _true_distances(queries, self._embeddings, groups * GROUP + members)
        # Rounding, at worst: a sum of n products errs by n eps / 2 of their sizes, which are at
        # most |q|^2 + |c|^2 for a bound; HEAD + 32 also covers the rounded factors.
        eps = torch.finfo(torch.float32).eps
        limit = first.amax(1).square_().mul_(1 + eps * (queries.shape[1] + 8))
        limit += eps * (HEAD + 32) * (squares + self._largest) - squares
        query, group = (least <= limit[:, None]).nonzero(as_tuple=True)
        most = MOST_GROUPS * len(self._embeddings)
        kept = (torch.bincount(query, minlength=len(queries)) <= most)[query]
        query, group = query[kept], group[kept]
        pair, member = (bounds[query, :, group] <= limit[query, None]).nonzero(as_tuple=True)
        return query[pair], group[pair] * GROUP + member

    def _choose(
        self, queries: torch.Tensor, query: torch.Tensor, row: torch.Tensor, k: int
    ) -> torch.Tensor:
        """Return (Q, k) nearest rows out of the possible ones; in full where there are none."""
        distances = _pair_distances(queries, query, self._embeddings, row)
        # By query, then by distance, then by row: bits of floats >= 0 are in the floats' order.
        order = ((query << 32) | distances.view(torch.int32)).sort(stable=True).indices
        counts = torch.bincount(query, minlength=len(queries))
        starts = counts.cumsum(0) - counts
        places = (starts[:, None] + torch.arange(k)).clamp_(max=len(order) - 1)
        indices = row[order[places]]
        unproven = (counts < k).nonzero()[:, 0]
        if len(unproven):
            indices[unproven] = _faiss_nearest(queries[unproven], self._embeddings, k)
        return indices


def _principal_axes(embeddings: torch.Tensor) -> _Axes:
    """Estimate the leading principal axes by subspace iteration (Halko et al. 2011, 4.4).

    Any directions give valid bounds, these give tight ones. An eigendecomposition of the whole
    covariance would take longer than the search of a small bank.
    """
    sample = embeddings[:: max(1, len(embeddings) // SAMPLE_ROWS)]
    centre = sample.mean(0)
    sample = sample - centre
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(sample.shape[1], HEAD, generator=generator)
    for _ in range(2):
        directions = torch.linalg.qr(sample.T @ (sample @ directions)).Q  # (D, HEAD)
    return _Axes(centre.double(), torch.linalg.qr(directions.double()).Q)


def _shorten(vectors: torch.Tensor, axes: _Axes, block_rows: int = 512) -> _Short:
    """Shorten (n, D) vectors. In float64: what it rounds is nothing in float32."""
    coordinates, squares = torch.empty(len(vectors), HEAD + 1), torch.empty(len(vectors))
    for start in range(0, len(vectors), block_rows):
        rows = slice(start, start + block_rows)
        centred = vectors[rows].double().sub_(axes.centre)
        head = centred @ axes.directions  # (rows, HEAD)
        whole = torch.linalg.vector_norm(centred, dim=1).square_()
        coordinates[rows, :-1], squares[rows] = head, whole
        coordinates[rows, -1] = (whole - head.square().sum(1)).clamp_(min=0).sqrt_()
    return _Short(coordinates, squares)


def torch_nearest(queries: torch.Tensor, part: torch.Tensor, k: int) -> torch.Tensor:
    """Return (Q, k) indices of the nearest rows of ``part`` (M, D), on any device."""
    norms = part.square().sum(1)
    rows = max(1, BLOCK_FLOATS // len(part))
    found = []
    for block in queries.split(rows):
        # Without the query's own norm: the same for all candidates.
        partial = torch.addmm(norms, block, part.T, alpha=-2)
        found.append(partial.topk(k, dim=1, largest=False).indices)
    return torch.cat(found)


def _faiss_nearest(queries: torch.Tensor, part: torch.Tensor, k: int) -> torch.Tensor:
    return torch.from_numpy(faiss.knn(queries.numpy(), part.numpy(), k)[1])


def _pair_distances(
    queries: torch.Tensor, query: torch.Tensor, part: torch.Tensor, row: torch.Tensor
) -> torch.Tensor:
    """Return (P,) squared distances of pairs, on the CPU, without copying the vectors."""
    distances = torch.full((len(query),), torch.nan)
    arrays = (queries, query.contiguous(), part, row.contiguous(), distances)
    pointers = [faiss.swig_ptr(array.numpy()) for array in arrays]
    faiss.pairwise_indexed_L2sqr(queries.shape[1], len(query), *pointers)
    return distances


def _true_distances(
    queries: torch.Tensor, part: torch.Tensor, indices: torch.Tensor
) -> torch.Tensor:
    """Return (Q, k) Euclidean distances to given rows, from the differences.

    A search by |x|^2 - 2 x c + |c|^2 finds the neighbour, but loses up to half of the digits of a
    small distance: equal vectors would not be at distance 0.
    """
    if not queries.is_cuda:
        query = torch.arange(len(queries)).repeat_interleave(indices.shape[1])
        return _pair_distances(queries, query, part, indices.flatten()).sqrt_().view_as(indices)
    distances = torch.empty(indices.shape, device=queries.device)
    for start in range(0, len(queries), BLOCK_ROWS):
        rows = slice(start, start + BLOCK_ROWS)
        for column in range(indices.shape[1]):
            difference = part[indices[rows, column]].sub_(queries[rows])
            distances[rows, column] = torch.linalg.vector_norm(difference, dim=1)
    return distances


def _merge(
    nearer: tuple[torch.Tensor, torch.Tensor], found: tuple[torch.Tensor, torch.Tensor], k: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the k nearest of two lists of neighbours per query, nearest first."""
    distances = torch.cat([nearer[0], found[0]], dim=1)
    indices = torch.cat([nearer[1], found[1]], dim=1)
    # Stable: of equally far ones the one that was selected first stays first.
    distances, order = distances.sort(dim=1, stable=True)
    return distances[:, :k], indices.gather(1, order[:, :k])


def search_method(device: torch.device) -> str:
    """Return in words what searches on a device, for the log."""
    if device.type != "cuda":
        return "faiss on the CPU"
    if _faiss_has_gpu():
        return "faiss on the GPU"
    return "torch on the GPU (this faiss has no GPU part)"


def _faiss_has_gpu() -> bool:
    return hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0
