"""Exact nearest neighbours of patches in the coreset."""

import functools
import importlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import faiss
import numpy as np
import torch

from patchcore.certificate import Coverage
from patchcore.distances import faiss_nearest, near_origin, true_distances
from patchcore.errors import PatchCoreError
from patchcore.lower_bounds import LowerBounds
from patchcore.nearby import LimitedSearch, Places, SearchArea, check_k
from patchcore.origins import Origins
from patchcore.torch_state import float32_products

# Floats of a block of the distance matrix, where torch searches: 256 MB.
BLOCK_FLOATS = 1 << 26
# Rows found on a GPU in addition to the k nearest, before true distances decide.
SPARE = 3
# Largest number of neighbours that faiss can find on a GPU.
FAISS_GPU_MAX_K = 2048
# Temporary memory of faiss on a GPU. With less, it allocates and frees memory at each search of a
# bank of more than 65,000 patches, and waits for the device each time.
FAISS_GPU_BYTES = 1 << 29
# faiss's memory on a GPU is one for the process, and only one thread may use it at a time.
_GPU_SEARCH = threading.Lock()


class MemoryBank:
    """The coreset's embeddings, searched exactly.

    By faiss if it supports the device, by torch otherwise. On a CPU, lower bounds of the distances
    avoid most of the work (`LowerBounds`). Several threads may search one bank at the same time.
    The result depends on the bank and the queries of the search alone.

    Attributes:
        embeddings: (M, D) float32 on the device of the search, in order of selection. Other types
            are converted. Do not change them after the first search, which prepares data for the
            next ones.
        area: Which rows a patch is compared with; None for all.

    Raises:
        PatchCoreError: the bank is empty or not a matrix.
    """

    def __init__(self, embeddings: torch.Tensor, area: SearchArea | None = None):
        if embeddings.ndim != 2 or not len(embeddings):
            raise PatchCoreError(
                f"expected coreset embeddings (M, D), found shape {tuple(embeddings.shape)}"
            )
        self.embeddings = embeddings.detach().float().contiguous()
        self.area = area
        self._bounds = LowerBounds(self.embeddings)

    def __len__(self) -> int:
        return len(self.embeddings)

    def __reduce__(self) -> tuple[type["MemoryBank"], tuple[torch.Tensor, SearchArea | None]]:
        """Return what another process makes the bank of; it prepares its own searches."""
        return MemoryBank, (self.embeddings, self.area)

    def search(self, queries: torch.Tensor, k: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
        """Find each query's nearest neighbours.

        Args:
            queries: (Q, D) float32 on the bank's device; other types are converted.
            k: Number of neighbours, from 1 to M.

        Returns:
            (Q, k) float32 Euclidean distances, ascending; (Q, k) int64 indices into the bank.

        Raises:
            PatchCoreError: k is larger than the bank.
        """
        return self.begin(queries.detach().float(), k).extend_to(len(self))

    def begin(
        self, queries: torch.Tensor, k: int, where: Places | None = None
    ) -> "PrefixSearch | LimitedSearch":
        """Begin a search for the ``k`` nearest neighbours of (Q, D) queries.

        Args:
            queries: (Q, D) float32 on the bank's device.
            k: Number of neighbours.
            where: Places of the queries, with which the search stays within `area`; None searches
                the whole bank.
        """
        if self.area is not None and where is not None:
            return LimitedSearch(self.embeddings, self.area, queries, where, k)
        return PrefixSearch(self.embeddings, self._bounds, queries, k)

    def first(self, size: int) -> "MemoryBank":
        """Return a bank of the first ``size`` rows; this one if these are all."""
        if size == len(self):
            return self
        area = None if self.area is None else self.area[:size]
        return MemoryBank(self.embeddings[:size], area)


class LayeredBank:
    """Several banks, one for each layer, searched side by side.

    The rows of the banks alternate: row r is row r // L of bank r % L. The first L * m rows are
    therefore the first m rows of each bank.

    Args:
        banks: L banks of the same size and length of embeddings.
    """

    def __init__(self, banks: Sequence[MemoryBank]):
        self.banks = tuple(banks)

    def __len__(self) -> int:
        return sum(len(bank) for bank in self.banks)

    @property
    def embeddings(self) -> torch.Tensor:
        """(L * M, D) float32, the rows of all banks in turn."""
        return torch.stack([bank.embeddings for bank in self.banks], dim=1).flatten(0, 1)

    @property
    def area(self) -> SearchArea | None:
        """Which rows of the first bank a patch is compared with; None for all."""
        return self.banks[0].area

    def begin(self, queries: torch.Tensor, k: int, where: Places | None = None) -> "LayeredSearch":
        """Begin a search for queries (Q, L * D); each bank finds ``k`` neighbours of its part."""
        parts = queries.chunk(len(self.banks), dim=1)
        pairs = zip(self.banks, parts, strict=True)
        return LayeredSearch([bank.begin(part, k, where) for bank, part in pairs])

    def first(self, size: int) -> "LayeredBank":
        """Return banks of the first ``size`` rows, a multiple of L."""
        return LayeredBank([bank.first(size // len(self.banks)) for bank in self.banks])


# What scores patches: one bank, or one for each layer.
Bank = MemoryBank | LayeredBank


def make_bank(embeddings: torch.Tensor, num_banks: int, area: SearchArea | None = None) -> Bank:
    """Return the bank, or banks.

    Args:
        embeddings: (L * M, D), the rows of the L banks in turn.
        num_banks: L.
        area: Which of these rows a patch is compared with; None for all.
    """
    banks = [
        MemoryBank(embeddings[bank::num_banks], None if area is None else area[bank::num_banks])
        for bank in range(num_banks)
    ]
    return banks[0] if num_banks == 1 else LayeredBank(banks)


class LayeredSearch:
    """Nearest neighbours in the first rows of several banks, for growing sizes.

    Args:
        searches: A search of each bank.
    """

    def __init__(self, searches: Sequence["PrefixSearch | LimitedSearch"]):
        self._searches = searches

    def extend_to(self, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Search the first ``size`` rows of all banks together, as `PrefixSearch.extend_to`.

        Returns:
            (Q, L * k) float32 distances and int64 rows: k of the first bank, ascending, then those
            of the next.
        """
        count = len(self._searches)
        found = [search.extend_to(size // count) for search in self._searches]
        rows = [index * count + bank for bank, (_, index) in enumerate(found)]
        return torch.cat([distance for distance, _ in found], dim=1), torch.cat(rows, dim=1)


class PrefixSearch:
    """Nearest neighbours of queries among the first m of a bank, for growing m.

    The first m selected patches are the coreset of size m. Each part of the bank is searched once,
    so all sizes together cost as much as the largest.

    Args:
        embeddings: (M, D) float32, the bank.
        bounds: Lower bounds of the distances to the bank.
        queries: (Q, D) float32 on the bank's device.
        k: Number of neighbours.
    """

    def __init__(
        self, embeddings: torch.Tensor, bounds: LowerBounds, queries: torch.Tensor, k: int
    ):
        self._embeddings = embeddings
        self._bounds = bounds
        self._queries = queries.contiguous()
        self._short = bounds.shorten(self._queries)
        self._k = k
        self._size = 0
        self._best: tuple[torch.Tensor, torch.Tensor] | None = None

    def extend_to(self, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Search the first ``size`` rows of the bank; rows that were searched before are skipped.

        Args:
            size: From k to M, and at least the size of the call before.

        Returns:
            (Q, k) float32 Euclidean distances, ascending; (Q, k) int64 indices into the bank.

        Raises:
            PatchCoreError: k is larger than the size.
        """
        check_k(self._k, size)
        if size > self._size:  # two percentages may have the same size
            found = self._search(self._size, size)
            self._best = found if self._best is None else _merge(self._best, found, self._k)
            self._size = size
        return self._best

    def _search(self, start: int, stop: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return distances and indices of the nearest rows from ``start`` to ``stop``."""
        queries, part = self._queries, self._embeddings[start:stop]
        indices = self._bounds.nearest(queries, self._short, start, stop, self._k)
        if indices is None:
            spare = SPARE if queries.is_cuda else 0
            indices = _search_in_full(queries, part, min(self._k + spare, stop - start))
        distances, indices = _in_order(queries, part, indices, self._k)
        return distances, indices + start


@dataclass(frozen=True)
class Coreset:
    """The selected training patches, for several sizes at once: each is a prefix of the next.

    With one bank for each layer, each bank has its own selection of the same size. Their rows
    alternate (`LayeredBank`), here as well.

    Attributes:
        indices: (M,) int64, numbers of the selected training patches, in order of selection.
        sizes: Size of the coreset of each percentage, ascending.
        bank: Embeddings of the selected patches.
        seed: Seed of the selection.
        origins: The training image and the position of each patch.
        patches: (M, ph, pw, 3) uint8, crop of each patch; None if not kept.
        coverage: How well each size covers all training patches, in projections; empty if unknown.
    """

    indices: np.ndarray
    sizes: tuple[int, ...]
    bank: Bank
    seed: int
    origins: Origins
    patches: np.ndarray | None = None
    coverage: tuple[Coverage, ...] = ()

    def part(self, number: int) -> "Coreset":
        """Return the coreset of one percentage alone, by its position: the first patches."""
        size = self.sizes[number]
        patches = None if self.patches is None else self.patches[:size]
        origins = self.origins.first(size)
        bank = self.bank.first(size)
        coverage = (self.coverage[number],) if self.coverage else ()
        return Coreset(self.indices[:size], (size,), bank, self.seed, origins, patches, coverage)


def _search_in_full(queries: torch.Tensor, part: torch.Tensor, k: int) -> torch.Tensor:
    """Return (Q, k) indices of the nearest rows of ``part``, up to rounding."""
    if not queries.is_cuda:
        return faiss_nearest(*near_origin(queries, part), k)
    if not _faiss_has_gpu() or k > FAISS_GPU_MAX_K:
        return torch_nearest(queries, part, k)
    # faiss works on the stream of the current device.
    with _GPU_SEARCH, torch.cuda.device(queries.device):
        resources = _gpu_resources()  # first: it replaces `faiss.knn_gpu`
        return faiss.knn_gpu(resources, queries, part, k, device=queries.device.index)[1]


@functools.cache
def _gpu_resources() -> "faiss.StandardGpuResources":
    """Return faiss's own memory on a GPU: allocated once, since this takes long."""
    # Makes `faiss.knn_gpu` accept and return tensors on the GPU, on torch's stream.
    importlib.import_module("faiss.contrib.torch_utils")
    # faiss allocates from the device, so torch's unused memory is released first.
    torch.cuda.empty_cache()
    resources = faiss.StandardGpuResources()
    resources.setTempMemory(FAISS_GPU_BYTES)
    resources.setPinnedMemory(0)
    return resources


def _in_order(
    queries: torch.Tensor, part: torch.Tensor, indices: torch.Tensor, k: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return true distances and indices of the k nearest of the found rows, (Q, k) each.

    A search by |x|^2 - 2 x c + |c|^2 cannot order distances that differ by less than it rounds.
    """
    if indices.shape[1] == 1:
        return true_distances(queries, part, indices), indices
    indices = indices.sort(dim=1).values  # of equal distances, the lowest row stays first
    distances, order = true_distances(queries, part, indices).sort(dim=1, stable=True)
    return distances[:, :k], indices.gather(1, order[:, :k])


@float32_products()
def torch_nearest(queries: torch.Tensor, part: torch.Tensor, k: int) -> torch.Tensor:
    """Return (Q, k) indices of the nearest rows of ``part`` (M, D), on any device."""
    queries, part = near_origin(queries, part)
    norms = part.square().sum(1)
    rows = max(1, BLOCK_FLOATS // len(part))
    found = []
    for block in queries.split(rows):
        # Without the query's own norm: the same for all candidates.
        partial = torch.addmm(norms, block, part.T, alpha=-2)
        found.append(partial.topk(k, dim=1, largest=False).indices)
    return torch.cat(found)


def _merge(
    nearer: tuple[torch.Tensor, torch.Tensor], found: tuple[torch.Tensor, torch.Tensor], k: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the k nearest of two lists of neighbours per query, nearest first."""
    distances = torch.cat([nearer[0], found[0]], dim=1)
    indices = torch.cat([nearer[1], found[1]], dim=1)
    # Stable: of equal distances, the patch that was selected first stays first.
    distances, order = distances.sort(dim=1, stable=True)
    return distances[:, :k], indices.gather(1, order[:, :k])


def search_method(device: torch.device) -> str:
    """Describe how a device searches, for the log."""
    if device.type != "cuda":
        return "lower bounds and faiss on the CPU"
    if _faiss_has_gpu():
        return "faiss on the GPU"
    return "torch on the GPU (this faiss has no GPU part)"


def _faiss_has_gpu() -> bool:
    return hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0
