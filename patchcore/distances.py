"""Distances of given pairs, and the plain search for the nearest."""

import faiss
import torch

# Rows at a time: on a CPU few enough to stay in its cache; on a GPU, where starting an operation
# takes as long as a million multiplications, as many as make so many floats (256 MB).
BLOCK_ROWS, GPU_BLOCK_FLOATS = 2048, 1 << 26


def rows_at_a_time(device: torch.device, columns: int) -> int:
    """Return how many rows of so many columns are computed at a time."""
    if device.type == "cpu":
        return BLOCK_ROWS
    return max(BLOCK_ROWS, GPU_BLOCK_FLOATS // columns)


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
    """Return (Q, k) Euclidean distances to given rows, from the differences.

    A search by |x|^2 - 2 x c + |c|^2 finds the neighbour, but loses up to half of the digits of a
    small distance: equal vectors would not be at distance 0.
    """
    if not queries.is_cuda:
        query = torch.arange(len(queries)).repeat_interleave(indices.shape[1])
        return pair_distances(queries, query, part, indices.flatten()).sqrt_().view_as(indices)
    distances = torch.empty(indices.shape, device=queries.device)
    step = rows_at_a_time(queries.device, queries.shape[1])
    for start in range(0, len(queries), step):
        rows = slice(start, start + step)
        for column in range(indices.shape[1]):
            difference = part[indices[rows, column]].sub_(queries[rows])
            distances[rows, column] = torch.linalg.vector_norm(difference, dim=1)
    return distances
