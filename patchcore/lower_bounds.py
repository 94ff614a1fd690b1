"""Nearest neighbours by lower bounds of the distances.

On a CPU most distances are not computed. Along the directions in which the bank varies most, few
coordinates hold most of a vector: with the centred q split into a head (those coordinates) and a
tail (the rest),

    |q - c|^2 >= |q_head - c_head|^2 + (|q_tail| - |c_tail|)^2

for any data and any directions. This lower bound is the squared distance of vectors of 65 instead
of 1024 numbers. The true distances to the rows with the smallest bounds are computed first. Then
every row with a bound that is not larger is compared in full; no other row can be nearer.
"""

from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F

from patchcore.distances import faiss_nearest, near_origin, pair_distances, true_distances

# Coordinates of the head. More make the bounds slower, fewer leave more rows to compare: on
# embeddings of ResNet50 and WideResNet50 (D = 1024) 48 to 96 take about the same time.
HEAD = 64
# Kept for each row of a bank: head, length of the tail, square, all times -2 or 1.
FLOATS_PER_ROW = HEAD + 2
# Smaller searches are plain: the bounds would take as long as the distances themselves.
BOUND_MIN_ROWS, BOUND_MIN_DIM, BOUND_MIN_QUERIES = 1024, 4 * HEAD, 256
# Floats of a block of bounds: 64 MB. Few large operations, since each waits for all threads.
BOUND_FLOATS = 1 << 24
# Rows of the bank in a group; the smallest bound of each group is compared first.
GROUP = 32
# A query with more possible groups than this share of the bank's rows is searched plainly: a
# distance computed alone takes 30 times as long as one within a matrix product.
MAX_GROUP_SHARE = 1 / 64
# Number of vectors that are shortened at a time.
SHORTENED_ROWS = 512
# Rows of the bank from which its principal axes are estimated.
SAMPLE_ROWS = 2048


class LowerBounds:
    """Searches ranges of a bank's rows.

    The first search of a range prepares what the next ones use. A search decides by its own
    queries alone whether bounds are worthwhile, so earlier searches do not change its result, and
    several threads may search at the same time: those that come first prepare the same values.

    Args:
        embeddings: (M, D) float32, the bank; not to be changed afterwards.
    """

    def __init__(self, embeddings: torch.Tensor):
        self._embeddings = embeddings
        self._axes: Axes | None = None
        self._parts: dict[tuple[int, int], BoundedPart] = {}

    def shorten(self, queries: torch.Tensor) -> "Short | None":
        """Shorten queries (Q, D) for the bounds; None if the search is too small for bounds."""
        rows, dim = self._embeddings.shape
        big = rows >= BOUND_MIN_ROWS and dim >= BOUND_MIN_DIM and len(queries) >= BOUND_MIN_QUERIES
        if queries.is_cuda or not big:
            return None
        if self._axes is None:
            self._axes = _principal_axes(self._embeddings)
        return _shorten(queries, self._axes)

    def nearest(
        self, queries: torch.Tensor, short: "Short | None", start: int, stop: int, k: int
    ) -> torch.Tensor | None:
        """Find the nearest among the bank's rows from ``start`` to before ``stop``.

        Args:
            queries: (Q, D) float32.
            short: The same queries, as `shorten` returns them.
            start: First row.
            stop: Row after the last.
            k: Number of neighbours.

        Returns:
            (Q, k) int64 indices from ``start`` on, nearest first; None if bounds are not
            worthwhile.
        """
        if short is None or stop - start < max(BOUND_MIN_ROWS, k * GROUP):
            return None
        if (start, stop) not in self._parts:
            part = self._embeddings[start:stop]
            short_part = _shorten(part, self._axes)
            self._parts[start, stop] = BoundedPart(part, short_part)
        return self._parts[start, stop].nearest(queries, short, k)


class Axes(NamedTuple):
    """Where the bank lies, and orthonormal directions in which it varies most."""

    centre: torch.Tensor  # (D,) float64
    directions: torch.Tensor  # (D, HEAD) float64


class Short(NamedTuple):
    """Vectors reduced to what the bounds need."""

    coordinates: torch.Tensor  # (n, HEAD + 1) float32: the head and the tail's length
    squares: torch.Tensor  # (n,) float32: squared lengths of the centred vectors


class BoundedPart:
    """A range of the bank's rows, (m, D), searched by lower bounds of the distances.

    Args:
        embeddings: The rows.
        short: The same rows, shortened.
    """

    def __init__(self, embeddings: torch.Tensor, short: Short):
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

    def nearest(self, queries: torch.Tensor, short: Short, k: int) -> torch.Tensor | None:
        """Return (Q, k) indices of the nearest rows, nearest first; None if not worthwhile."""
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
                return None
        query, row = (torch.cat(parts) for parts in zip(*found, strict=True))
        return self._choose(queries, query, row, k)

    def _possible(
        self, queries: torch.Tensor, squares: torch.Tensor, bounds: torch.Tensor, k: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ascending pairs of a query and a row, (P,) each: all possible neighbours.

        Queries with too many possible neighbours are left out.
        """
        least = bounds.amin(1)  # (Q, groups)
        groups = least.topk(k, dim=1, largest=False).indices  # (Q, k)
        members = bounds.gather(2, groups[:, None].expand(-1, GROUP, -1)).argmin(1)
        # k different rows: the k nearest are no farther than the farthest of these.
        first = true_distances(queries, self._embeddings, groups * GROUP + members)
        # Rounding, at worst: a sum of n products errs by n eps / 2 of their sizes, which are at
        # most |q|^2 + |c|^2 for a bound; HEAD + 32 also covers the rounded factors.
        eps = torch.finfo(torch.float32).eps
        limit = first.amax(1).square_().mul_(1 + eps * (queries.shape[1] + 8))
        limit += eps * (HEAD + 32) * (squares + self._largest) - squares
        query, group = (least <= limit[:, None]).nonzero(as_tuple=True)
        most = MAX_GROUP_SHARE * len(self._embeddings)
        kept = (torch.bincount(query, minlength=len(queries)) <= most)[query]
        query, group = query[kept], group[kept]
        pair, member = (bounds[query, :, group] <= limit[query, None]).nonzero(as_tuple=True)
        return query[pair], group[pair] * GROUP + member

    def _choose(
        self, queries: torch.Tensor, query: torch.Tensor, row: torch.Tensor, k: int
    ) -> torch.Tensor:
        """Return the nearest (Q, k) of the possible rows; search plainly where there are none."""
        distances = pair_distances(queries, query, self._embeddings, row)
        # By query, then by distance, then by row: bits of floats >= 0 are in the floats' order.
        order = ((query << 32) | distances.view(torch.int32)).sort(stable=True).indices
        counts = torch.bincount(query, minlength=len(queries))
        starts = counts.cumsum(0) - counts
        places = (starts[:, None] + torch.arange(k)).clamp_(max=len(order) - 1)
        indices = row[order[places]]
        unproven = (counts < k).nonzero()[:, 0]
        if len(unproven):
            moved = near_origin(queries[unproven], self._embeddings)
            indices[unproven] = faiss_nearest(*moved, k)
        return indices


def _principal_axes(embeddings: torch.Tensor) -> Axes:
    """Estimate the leading principal axes by subspace iteration (Halko et al. 2011, 4.4).

    Any directions give valid bounds; these give tight ones. An eigendecomposition of the whole
    covariance would take longer than the search of a small bank.
    """
    sample = embeddings[:: max(1, len(embeddings) // SAMPLE_ROWS)]
    centre = sample.mean(0)
    sample = sample - centre
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(sample.shape[1], HEAD, generator=generator)
    for _ in range(2):
        directions = torch.linalg.qr(sample.T @ (sample @ directions)).Q  # (D, HEAD)
    return Axes(centre.double(), torch.linalg.qr(directions.double()).Q)


def _shorten(vectors: torch.Tensor, axes: Axes) -> Short:
    """Shorten (n, D) vectors. In float64, since its rounding is negligible in float32."""
    coordinates, squares = torch.empty(len(vectors), HEAD + 1), torch.empty(len(vectors))
    for start in range(0, len(vectors), SHORTENED_ROWS):
        rows = slice(start, start + SHORTENED_ROWS)
        centred = vectors[rows].double().sub_(axes.centre)
        head = centred @ axes.directions  # (rows, HEAD)
        whole = torch.linalg.vector_norm(centred, dim=1).square_()
        coordinates[rows, :-1], squares[rows] = head, whole
        coordinates[rows, -1] = (whole - head.square().sum(1)).clamp_(min=0).sqrt_()
    return Short(coordinates, squares)
