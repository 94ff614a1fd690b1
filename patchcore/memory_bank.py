"""Exact nearest neighbours of patches in the coreset."""

import functools
import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import faiss
import numpy as np
import torch

from patchcore.distances import faiss_nearest, true_distances
from patchcore.errors import PatchCoreError
from patchcore.lower_bounds import LowerBounds
from patchcore.origins import Origins
from patchcore.precision import float32_products

# Floats of a block of the distance matrix, where torch searches: 256 MB.
BLOCK_FLOATS = 1 << 26
# Rows found on a GPU beside the k nearest, before their true distances decide.
SPARE = 3
# The most neighbours that faiss finds on a GPU.
FAISS_GPU_MOST = 2048
# What it may take of the GPU's memory: with less, a bank of more than 65,000 patches makes it take
# and free some at each search, and each time wait for the device.
FAISS_GPU_BYTES = 1 << 29


class MemoryBank:
    """The coreset's embeddings, searched exactly.

    By faiss where it serves the device, by torch otherwise; on a CPU lower bounds of the distances
    spare most of the work (`LowerBounds`).

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
        self._bounds = LowerBounds(self.embeddings)

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
        short = self._bounds.shorten(queries)
        best = None
        for start, stop in pairwise([0, *sizes]):
            if start == stop:  # two percentages of the same size
                yield best
                continue
            part = self.embeddings[start:stop]
            indices = self._bounds.nearest(queries, short, start, stop, k)
            if indices is None:
                spare = SPARE if queries.is_cuda else 0
                indices = _search_plainly(queries, part, min(k + spare, stop - start))
            distances, indices = _in_order(queries, part, indices, k)
            found = distances, indices + start
            best = found if best is None else _merge(best, found, k)
            yield best


@dataclass(frozen=True)
class Coreset:
    """The selected training patches, for several sizes at once: each is a beginning of the next.

    Attributes:
        indices: (M,) int64, which training patches were selected, in order of selection.
        sizes: How many of them make up the coreset of each percentage, ascending.
        bank: Their embeddings.
        seed: Of the selection.
        origins: Where they come from.
        patches: (M, ph, pw, 3) uint8, the crops of the patches; None where they are not kept.
    """

    indices: np.ndarray
    sizes: tuple[int, ...]
    bank: MemoryBank
    seed: int
    origins: Origins | None = None
    patches: np.ndarray | None = None

    def of_size(self, size: int) -> "Coreset":
        """Return the coreset of one percentage alone: the first ``size`` patches."""
        bank = self.bank if size == len(self.bank) else MemoryBank(self.bank.embeddings[:size])
        return Coreset(self.indices[:size], (size,), bank, self.seed)


def _search_plainly(queries: torch.Tensor, part: torch.Tensor, k: int) -> torch.Tensor:
    """Return (Q, k) indices of the nearest rows of ``part``, but for rounding."""
    if not queries.is_cuda:
        return faiss_nearest(queries, part, k)
    if not _faiss_has_gpu() or k > FAISS_GPU_MOST:
        return torch_nearest(queries, part, k)
    # faiss works on the stream of the current device.
    with torch.cuda.device(queries.device):
        resources = _gpu_resources()  # before `faiss.knn_gpu`, which it replaces, is looked up
        return faiss.knn_gpu(resources, queries, part, k, device=queries.device.index)[1]


@functools.cache
def _gpu_resources() -> "faiss.StandardGpuResources":
    """Return faiss's own memory on a GPU: taken once, since taking it takes long."""
    # Lets `faiss.knn_gpu` take and return tensors on the GPU, on torch's stream.
    importlib.import_module("faiss.contrib.torch_utils")
    # faiss takes its memory from the device, of which torch keeps what it needed before.
    torch.cuda.empty_cache()
    resources = faiss.StandardGpuResources()
    resources.setTempMemory(FAISS_GPU_BYTES)
    resources.setPinnedMemory(0)
    return resources


def _in_order(
    queries: torch.Tensor, part: torch.Tensor, indices: torch.Tensor, k: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the true distances of the k nearest of the rows found, and these rows: (Q, k) each.

    A search by |x|^2 - 2 x c + |c|^2 cannot tell apart what differs by less than it rounds.
    """
    if indices.shape[1] == 1:
        return true_distances(queries, part, indices), indices
    indices = indices.sort(dim=1).values  # of equally far ones the first stays first
    distances, order = true_distances(queries, part, indices).sort(dim=1, stable=True)
    return distances[:, :k], indices.gather(1, order[:, :k])


@float32_products()
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
        return "lower bounds and faiss on the CPU"
    if _faiss_has_gpu():
        return "faiss on the GPU"
    return "torch on the GPU (this faiss has no GPU part)"


def _faiss_has_gpu() -> bool:
    return hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0
