"""Nearest neighbours by lower bounds of the distances.

On a CPU most distances are never computed. A few coordinates, along the directions in which the
bank varies most, hold most of a vector. Let the head of a centred vector be these coordinates and
its tail the rest. Then, for any data and any directions,

    |q - c|^2 >= |q_head - c_head|^2 + (|q_tail| - |c_tail|)^2.

This lower bound is the squared distance of vectors of 65 instead of 1024 numbers. The true
distances to the rows with the smallest bounds limit the distance of the nearest row. Only rows with
a bound within this limit are then compared in full, since no other row can be nearer.
"""

from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F

from patchcore.distances import faiss_nearest, pair_distances, true_distances

# Number of coordinates of the head. More coordinates make bounds slower, fewer leave more rows to
# compare: on embeddings of ResNet50 and WideResNet50 (D = 1024), 48 to 96 take about the same time.
HEAD = 64
# Floats kept for each row of a bank: the head and the tail's length, times -2, and the square.
FLOATS_PER_ROW = HEAD + 2
# Smaller searches compute all distances: the bounds would take as long.
BOUND_MIN_ROWS, BOUND_MIN_DIM, BOUND_MIN_QUERIES = 1024, 4 * HEAD, 256
# Floats of a block of bounds: 64 MB. Few large operations, since each waits for all threads.
BOUND_FLOATS = 1 << 24
# Rows of the bank in a group. The smallest bound of each group is compared first.
GROUP = 32
# A query with more possible groups than this share of the bank's rows is searched in full: a single
# distance takes 30 times as long as one within a matrix product.
MAX_GROUP_SHARE = 1 / 64
# Rows of the bank from which its principal axes are estimated.
SAMPLE_ROWS = 2048
# Rows that are converted to float64 at a time.
BLOCK_ROWS = 512


class LowerBounds:
    """Searches ranges of a bank's rows. The first search prepares them for the next ones.

    Args:
        embeddings: (M, D) float32, the bank. Do not change it afterwards.
    """

    def __init__(self, embeddings: torch.Tensor):
        self._embeddings = embeddings
        self._axes: Axes | None = None
        self._parts: dict[tuple[int, int], BoundedPart] = {}

    def shorten(self, queries: torch.Tensor) -> "ShortVectors | None":
        """Shorten queries (Q, D) for the bounds; return None if bounds are not worthwhile."""
        rows, dim = self._embeddings.shape
        big = rows >= BOUND_MIN_ROWS and dim >= BOUND_MIN_DIM and len(queries) >= BOUND_MIN_QUERIES
        useless = self._parts and not any(part.is_worthwhile for part in self._parts.values())
        if queries.is_cuda or not big or useless:
            return None
        self._axes = self._axes or _principal_axes(self._embeddings)
        return _shorten(queries, self._axes)

    def nearest(
        self, queries: torch.Tensor, short: "ShortVectors | None", start: int, stop: int, k: int
    ) -> torch.Tensor | None:
        """Find the nearest among the bank's rows from ``start`` to before ``stop``.

        Args:
            queries: (Q, D) float32.
            short: The queries as `shorten` returns them.
            start: First row.
            stop: Row after the last.
            k: Number of neighbours.

        Returns:
            (Q, k) int64 indices relative to ``start``, nearest first; None if bounds are not
            worthwhile.
        """
        if short is None or stop - start < max(BOUND_MIN_ROWS, k * GROUP):
            return None
        if (start, stop) not in self._parts:
            part = self._embeddings[start:stop]
            self._parts[start, stop] = BoundedPart(part, _shorten(part, self._axes))
        return self._parts[start, stop].nearest(queries, short, k)


class Axes(NamedTuple):
    """Centre of the bank, and the orthonormal directions in which it varies most."""

    centre: torch.Tensor  # (D,) float64
    directions: torch.Tensor  # (D, HEAD) float64


class ShortVectors(NamedTuple):
    """Vectors reduced to the numbers that the bounds need."""

    coordinates: torch.Tensor  # (n, HEAD + 1) float32: the head and the tail's length
    squares: torch.Tensor  # (n,) float32: squared lengths of the centred vectors


class BoundedPart:
    """Consecutive rows of the bank, (m, D), searched by lower bounds of the distances.

    Attributes:
        is_worthwhile: Whether the bounds save work on these data. If not, they are not used.
    """

    def __init__(self, embeddings: torch.Tensor, short: ShortVectors):
        self.is_worthwhile = True
        self._embeddings = embeddings
        self._largest = float(short.squares.max())
        count, groups = len(embeddings), -(-len(embeddings) // GROUP)
        # |a - b|^2 - |a|^2 = |b|^2 - 2 a b is one product of (a, 1) and (-2 b, |b|^2). The last
        # groups are filled up with rows that are infinitely far.
        factors = torch.zeros(groups * GROUP, short.coordinates.shape[1] + 1)
        torch.mul(short.coordinates, -2, out=factors[:count, :-1])
        factors[:count, -1] = short.squares
        factors[count:, -1] = torch.inf
        # Row (group, member) goes to place (member, group): the smallest bound of each group is
        # then a minimum over whole rows of a matrix, the fastest kind.
        factors = factors.view(groups, GROUP, -1).transpose(0, 1).flatten(0, 1)
        self._factors = factors.T  # (HEAD + 2, GROUP * groups)

    def nearest(self, queries: torch.Tensor, short: ShortVectors, k: int) -> torch.Tensor | None:
        """Return (Q, k) indices, nearest first; None if the bounds are not worthwhile."""
        if not self.is_worthwhile:
            return None
        width = self._factors.shape[1]
        block_rows = max(BOUND_MIN_QUERIES, BOUND_FLOATS // width)
        buffer = torch.empty(min(len(queries), block_rows), width)
        # The first block is small: it shows whether the bounds are worthwhile.
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
                self.is_worthwhile = False
                return None
        query, row = (torch.cat(parts) for parts in zip(*found, strict=True))
        return self._choose(queries, query, row, k)

    def _possible(
        self, queries: torch.Tensor, squares: torch.Tensor, bounds: torch.Tensor, k: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the pairs of a query and a row, (P,) each, that may be among the k nearest.

        Pairs are ascending. Queries with too many such rows are left out.
        """
        smallest = bounds.amin(1)  # (Q, groups)
        groups = smallest.topk(k, dim=1, largest=False).indices  # (Q, k)
        members = bounds.gather(2, groups[:, None].expand(-1, GROUP, -1)).argmin(1)
        # k different rows: the k nearest are no farther than the farthest of these.
        first = true_distances(queries, self._embeddings, groups * GROUP + members)
        # Largest rounding error: n eps / 2 times the magnitude for a sum of n products, which is
        # at most |q|^2 + |c|^2 for a bound; HEAD + 32 also covers the rounded factors.
        eps = torch.finfo(torch.float32).eps
        limit = first.amax(1).square_().mul_(1 + eps * (queries.shape[1] + 8))
        limit += eps * (HEAD + 32) * (squares + self._largest) - squares
        query, group = (smallest <= limit[:, None]).nonzero(as_tuple=True)
        max_groups = MAX_GROUP_SHARE * len(self._embeddings)
        kept = (torch.bincount(query, minlength=len(queries)) <= max_groups)[query]
        query, group = query[kept], group[kept]
        pair, member = (bounds[query, :, group] <= limit[query, None]).nonzero(as_tuple=True)
        return query[pair], group[pair] * GROUP + member

    def _choose(
        self, queries: torch.Tensor, query: torch.Tensor, row: torch.Tensor, k: int
    ) -> torch.Tensor:
        """Return (Q, k) nearest rows among the possible ones; search in full where none is left."""
        distances = pair_distances(queries, query, self._embeddings, row)
        # By query, then distance, then row: floats >= 0 are ordered as their bits are.
        order = ((query << 32) | distances.view(torch.int32)).sort(stable=True).indices
        counts = torch.bincount(query, minlength=len(queries))
        starts = counts.cumsum(0) - counts
        places = (starts[:, None] + torch.arange(k)).clamp_(max=len(order) - 1)
        indices = row[order[places]]
        unproven = (counts < k).nonzero()[:, 0]
        if len(unproven):
            indices[unproven] = faiss_nearest(queries[unproven], self._embeddings, k)
        return indices


def _principal_axes(embeddings: torch.Tensor) -> Axes:
    """Estimate the leading principal axes by subspace iteration (Halko et al. 2011, 4.4).

    Any directions give valid bounds; principal axes give tight ones. An eigendecomposition of the
    full covariance would take longer than the search of a small bank.
    """
    sample = embeddings[:: max(1, len(embeddings) // SAMPLE_ROWS)]
    centre = sample.mean(0)
    sample = sample - centre
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(sample.shape[1], HEAD, generator=generator)
    for _ in range(2):
        directions = torch.linalg.qr(sample.T @ (sample @ directions)).Q  # (D, HEAD)
    return Axes(centre.double(), torch.linalg.qr(directions.double()).Q)


def _shorten(vectors: torch.Tensor, axes: Axes) -> ShortVectors:
    """Shorten (n, D) vectors, in float64: its rounding errors do not matter in float32."""
    coordinates, squares = torch.empty(len(vectors), HEAD + 1), torch.empty(len(vectors))
    for start in range(0, len(vectors), BLOCK_ROWS):
        rows = slice(start, start + BLOCK_ROWS)
        centred = vectors[rows].double().sub_(axes.centre)
        head = centred @ axes.directions  # (rows, HEAD)
        whole = torch.linalg.vector_norm(centred, dim=1).square_()
        coordinates[rows, :-1], squares[rows] = head, whole
        coordinates[rows, -1] = (whole - head.square().sum(1)).clamp_(min=0).sqrt_()
    return ShortVectors(coordinates, squares)
