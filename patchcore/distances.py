"""Distances of given pairs, and the plain search for the nearest."""

import faiss
import torch

# Query rows at a time where the true distances of the found neighbours are computed.
BLOCK_ROWS = 2048


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
    for start in range(0, len(queries), BLOCK_ROWS):
        rows = slice(start, start + BLOCK_ROWS)
        for column in range(indices.shape[1]):
            difference = part[indices[rows, column]].sub_(queries[rows])
            distances[rows, column] = torch.linalg.vector_norm(difference, dim=1)
    return distances
