"""Searches that compare a patch with a part of the bank: nearby positions, similar images.

Both limits are exact: each patch gets its true nearest neighbours among those that it may be
compared with. Where a limit leaves fewer than k coreset patches, the smallest wider limit that
leaves k applies instead, so that every patch has a score.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from patchcore.distances import near_origin, true_distances
from patchcore.errors import PatchCoreError
from patchcore.origins import locate
from patchcore.settings import Settings
from patchcore.torch_state import float32_products

# Floats of a block of the distance matrix: 64 MB.
BLOCK_FLOATS = 1 << 24
# Rows found in addition to the k nearest, before true distances decide.
SPARE = 3
# Columns of the grid that are searched together, at least.
MIN_COLUMNS = 4


@dataclass(frozen=True)
class Places:
    """Where patches come from.

    Attributes:
        row: (n,) int16, row of each patch in the grid.
        column: (n,) int16, its column.
        image: (n,) int64, its image, a position in ``features``.
        features: (m, D) float32, the mean point of each image; None if images are not compared.
    """

    row: torch.Tensor
    column: torch.Tensor
    image: torch.Tensor
    features: torch.Tensor | None = None

    @classmethod
    def of_patches(
        cls,
        numbers: np.ndarray,
        grid: tuple[int, int],
        device: torch.device,
        features: torch.Tensor | None = None,
    ) -> "Places":
        """Return the places of patches by their numbers (n,), counted over the images' grids."""
        image, row, column = locate(numbers, grid)
        arrays = row.astype(np.int16), column.astype(np.int16), image
        return cls(*(torch.from_numpy(array).to(device) for array in arrays), features)

    def __getitem__(self, chosen: slice) -> "Places":
        """Return the places of some of the patches."""
        arrays = (self.row[chosen], self.column[chosen], self.image[chosen])
        return Places(*arrays, self.features)


@dataclass(frozen=True)
class SearchArea:
    """Which rows of a bank a patch is compared with.

    Attributes:
        places: The places of the bank's rows.
        radius: Largest number of rows and of columns of the grid between a patch and a coreset
            patch (as the positional bank of RAD); -1 for no limit.
        images: An image is compared only with the coreset patches of this many training images,
            those with the nearest mean points (as the retrieval of RAD, which compares class
            tokens); 0 for all.
    """

    places: Places
    radius: int
    images: int

    @classmethod
    def of(cls, settings: Settings, places: Places) -> "SearchArea | None":
        """Return the area by the settings; None without a limit."""
        radius, images = settings.search_radius, settings.retrieve_images
        return None if radius < 0 and not images else cls(places, radius, images)

    def __getitem__(self, chosen: slice) -> "SearchArea":
        """Return the area of some of the bank's rows."""
        return SearchArea(self.places[chosen], self.radius, self.images)

    def num_widened(self, grid: tuple[int, int], k: int) -> int:
        """Return the number of grid positions with fewer than k rows within the radius."""
        if self.radius < 0:
            return 0
        options = {"dtype": self.places.row.dtype, "device": self.places.row.device}
        rows, columns = (torch.arange(length, **options) for length in grid)
        away = (_away(self.places, row.expand(grid[1]), columns) for row in rows)
        return sum(int((_kth(values, k) > self.radius).sum()) for values in away)


class LimitedSearch:
    """Nearest neighbours of patches within a search area of a bank, for growing prefixes.

    Args:
        embeddings: (M, D) float32, the bank.
        area: Which rows a patch is compared with.
        queries: (Q, D) float32 on the bank's device.
        where: Places of the queries.
        k: Number of neighbours.
    """

    def __init__(
        self,
        embeddings: torch.Tensor,
        area: SearchArea,
        queries: torch.Tensor,
        where: Places,
        k: int,
    ):
        self._embeddings = embeddings
        self._area = area
        self._queries = queries.contiguous()
        self._moved = near_origin(self._queries, embeddings)
        self._where = where
        self._k = k

    @float32_products()
    def extend_to(self, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Search the first ``size`` rows of the bank, as `PrefixSearch.extend_to`."""
        check_k(self._k, size)
        shape, device = (len(self._queries), self._k), self._queries.device
        distances = torch.empty(shape, device=device)
        indices = torch.empty(shape, dtype=torch.int64, device=device)
        for asking, rows in self._groups(self._area.places[:size]):
            step = max(1, BLOCK_FLOATS // len(rows))
            for block in asking.split(step):
                distances[block], indices[block] = self._search(block, rows)
        return distances, indices

    def _groups(self, places: Places) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield queries, and rows of the bank among which their neighbours are."""
        if self._area.images:
            for image in self._where.image.unique():
                rows = self._rows_of_nearest_images(image, places)
                yield (self._where.image == image).nonzero()[:, 0], rows
            return
        # Neighbouring positions of a row together: each product has enough queries, and few rows
        # that only some of them may use.
        width = max(MIN_COLUMNS, self._area.radius)
        for row in self._where.row.unique():
            in_row = (self._where.row == row).nonzero()[:, 0]
            column = self._where.column[in_row]
            for columns in column.unique().split(width):
                asking = in_row[(column >= columns[0]) & (column <= columns[-1])]
                away = _away(places, row.expand(len(columns)), columns)  # (columns, M)
                limit = max(int(_kth(away, self._k).amax()), self._area.radius)
                yield asking, (away.amin(0) <= limit).nonzero()[:, 0]

    def _rows_of_nearest_images(self, image: torch.Tensor, places: Places) -> torch.Tensor:
        """Return the rows of the nearest images that have rows, at least k of them."""
        present, counts = places.image.unique(return_counts=True)
        own = self._where.features[image]
        away = torch.linalg.vector_norm(places.features[present] - own, dim=1)
        order = away.argsort(stable=True)
        enough = int((counts[order].cumsum(0) < self._k).sum()) + 1
        chosen = present[order[: max(self._area.images, enough)]]
        return torch.isin(places.image, chosen).nonzero()[:, 0]

    def _search(
        self, asking: torch.Tensor, rows: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (q, k) distances, ascending, and rows of the bank for some queries."""
        queries, part = (
            moved[chosen] for moved, chosen in zip(self._moved, (asking, rows), strict=True)
        )
        # Without the query's own square, which is the same for all rows.
        partial = torch.addmm(part.square().sum(1), queries, part.T, alpha=-2)  # (q, n)
        excluded = self._excluded(asking, rows)
        if excluded is not None:
            partial.masked_fill_(excluded, torch.inf)
        count = min(self._k + SPARE, len(rows))
        found = partial.topk(count, dim=1, largest=False).indices.sort(dim=1).values
        distances = true_distances(self._queries[asking], self._embeddings, rows[found])
        if excluded is not None:  # there may be fewer than `count` others
            distances.masked_fill_(excluded.gather(1, found), torch.inf)
        distances, order = distances.sort(dim=1, stable=True)  # of equal ones the lowest row first
        return distances[:, : self._k], rows[found.gather(1, order[:, : self._k])]

    def _excluded(self, asking: torch.Tensor, rows: torch.Tensor) -> torch.Tensor | None:
        """Return (q, n) bool: rows that are too far from a query's position."""
        if self._area.radius < 0:
            return None
        away = _away(self._area.places[rows], self._where.row[asking], self._where.column[asking])
        return away > _kth(away, self._k).clamp_(min=self._area.radius)[:, None]


def check_k(k: int, size: int) -> None:
    """Raise PatchCoreError if a coreset of ``size`` patches has no ``k`` nearest ones."""
    if not 1 <= k <= size:
        raise PatchCoreError(
            f"expected k from 1 to the coreset's size {size}, found {k} (k, percentage_coreset)"
        )


def _away(places: Places, row: torch.Tensor, column: torch.Tensor) -> torch.Tensor:
    """Return (q, n) the larger of the distances in rows and columns from positions to places."""
    rows = (places.row[None] - row[:, None]).abs_()
    return torch.maximum(rows, (places.column[None] - column[:, None]).abs_())


def _kth(values: torch.Tensor, k: int) -> torch.Tensor:
    """Return (q,) the k-th smallest of each row."""
    if k == 1:
        return values.amin(1)
    return values.topk(k, dim=1, largest=False).values[:, -1]
