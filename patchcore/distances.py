"""Distances of given pairs, full search for the nearest, and blocks of rows."""

from collections.abc import Iterator

import faiss
import torch
import torch.nn.functional as F

# Rows of a block: few enough for a CPU's cache, and enough to use a GPU fully.
BLOCK_ROWS, GPU_BLOCK_ROWS = 1024, 1 << 14
# Bytes of a cache line, and of the widest vector register.
ALIGNMENT = 64
# Floats of the differences that a GPU computes at a time: 256 MB.
GPU_BLOCK_FLOATS = 1 << 26
# Vectors are far from the origin if their mean has this many times their squared length from it. A
# product of nearer vectors finds a row within 5e-6 of the smallest distance.
FAR = 64
# Number of vectors from which both are estimated.
FAR_ROWS = 128


def fixed_blocks(
    vectors: torch.Tensor, taken: torch.Tensor | None = None
) -> Iterator[tuple[slice, torch.Tensor]]:
    """Split vectors into blocks of one shape and alignment.

    The number of rows depends on the device alone, and the last block is filled up with zeros. A
    matrix library chooses its kernels by the shapes and the alignment of its operands. With equal
    ones, a row of a product has the same bits in every block and position.

    Args:
        vectors: (N, D) float32.
        taken: (n,) int64, the vectors to use; None for all.

    Yields:
        The rows of the block, as positions in ``taken``, and the block (R, D') with columns as
        `aligned_columns` returns them; a view of ``vectors`` if nothing has to be copied.
    """
    size = GPU_BLOCK_ROWS if vectors.is_cuda else BLOCK_ROWS
    for start in range(0, len(vectors if taken is None else taken), size):
        if taken is None:
            block = vectors[start : start + size]
        else:
            block = vectors.index_select(0, taken[start : start + size])
        rows = slice(start, start + len(block))
        block = aligned_columns(block)
        if len(block) < size:
            block = F.pad(block, (0, 0, 0, size - len(block)))
        yield rows, block


def aligned_columns(vectors: torch.Tensor) -> torch.Tensor:
    """Append columns of zeros until each row begins at a multiple of `ALIGNMENT` bytes.

    Returns:
        (n, D') contiguous: the given vectors (n, D) themselves if they are aligned.
    """
    missing = -vectors.shape[1] % (ALIGNMENT // vectors.element_size())
    if missing:
        return F.pad(vectors, (0, missing))
    vectors = vectors.contiguous()
    return vectors.clone() if vectors.data_ptr() % ALIGNMENT else vectors


def near_origin(queries: torch.Tensor, part: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return queries (Q, D) and rows (M, D), moved to the origin if the rows are far from it.

    A search by |x|^2 - 2 x c + |c|^2 would lose the digits of their distances.
    """
    sample = part[:: -(-len(part) // FAR_ROWS)]
    mean = sample.mean(0)
    spread = (sample - mean).square_().sum(1).mean()
    if not bool(mean.square().sum() > FAR * spread):
        return queries, part
    return queries - mean, part - mean


def faiss_nearest(queries: torch.Tensor, part: torch.Tensor, k: int) -> torch.Tensor:
    """Return (Q, k) indices of the nearest rows of ``part`` (M, D), on the CPU."""
    return torch.from_numpy(faiss.knn(queries.numpy(), part.numpy(), k)[1])


def pair_distances(
    queries: torch.Tensor, query: torch.Tensor, part: torch.Tensor, row: torch.Tensor
) -> torch.Tensor:
    """Return (P,) squared distances of pairs, on the CPU, without copying the vectors."""
    distances = torch.full((len(query),), torch.nan)
    arrays = (queries, query.contiguous(), part, row.contiguous(), distances)
    pointers = [faiss.swig_ptr(array.numpy()) for array in arrays]
    faiss.pairwise_indexed_L2sqr(queries.shape[1], len(query), *pointers)
    return distances


def true_distances(
    queries: torch.Tensor, part: torch.Tensor, indices: torch.Tensor
) -> torch.Tensor:
    """Return (Q, k) Euclidean distances to given rows, computed from the differences.

    A search by |x|^2 - 2 x c + |c|^2 finds the neighbour, but loses up to half of the digits of a
    small distance: the distance of equal vectors would not be 0.
    """
    if not queries.is_cuda:
        query = torch.arange(len(queries)).repeat_interleave(indices.shape[1])
        return pair_distances(queries, query, part, indices.flatten()).sqrt_().view_as(indices)
    distances = torch.empty(indices.shape, device=queries.device)
    step = max(1, GPU_BLOCK_FLOATS // queries.shape[1])
    for start in range(0, len(queries), step):
        rows = slice(start, start + step)
        for column in range(indices.shape[1]):
            difference = part[indices[rows, column]].sub_(queries[rows])
            distances[rows, column] = torch.linalg.vector_norm(difference, dim=1)
    return distances
