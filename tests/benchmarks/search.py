"""Exact nearest neighbours: one flat search by faiss, against bounds first."""

import faiss
import torch

from patchcore.memory_bank import MemoryBank
from tests.benchmarks.measure import Row, seconds, time_in_turns

BATCH = 6272  # queries: 8 images of 28 x 28 patches


def make_vectors(count: int, dim: int = 1024, *, decay: float = 0.9, seed: int = 0) -> torch.Tensor:
    """Draw vectors whose variance decays along the axes about as that of patch embeddings does.

    Args:
        count: How many.
        dim: Their length.
        decay: The standard deviation of axis i is i^-decay; 0 gives no structure at all. With 0.9
            the first 64 of 1024 hold 97 % of the variance, as for ResNet50's embeddings.
        seed: Of the draw.
    """
    generator = torch.Generator().manual_seed(seed)
    scales = torch.arange(1, dim + 1).float() ** -decay
    vectors = torch.randn(count, dim, generator=generator) * scales
    # Embeddings lie along no axis: turned by reflections, which keep all distances.
    for _ in range(2):
        mirror = torch.nn.functional.normalize(torch.randn(dim, generator=generator), dim=0)
        vectors -= 2 * (vectors @ mirror)[:, None] * mirror
    return vectors


def measure(quick: bool) -> list[Row]:
    """Measure banks of 1 % and 10 % of a category's patches, and data without structure."""
    batches = 1 if quick else 10
    sizes = [1_638, 4_096] if quick else [1_638, 16_385]
    rows = [_compare(size, batches, 0.9, ">= 2.5" if size > 10_000 else "") for size in sizes]
    return [*rows, _compare(sizes[-1], max(1, batches // 5), 0.0, "")]


def _compare(size: int, batches: int, decay: float, target: str) -> Row:
    vectors = make_vectors(size + batches * BATCH, decay=decay)
    embeddings, queries = vectors[:size], vectors[size:].split(BATCH)

    def flat(count: int = batches) -> None:
        index = faiss.IndexFlatL2(embeddings.shape[1])
        index.add(embeddings.numpy())
        for batch in queries[:count]:
            index.search(batch.numpy(), 1)

    def bank(count: int = batches) -> None:  # anew each time: its preparation counts
        memory_bank = MemoryBank(embeddings)
        for batch in queries[:count]:
            memory_bank.search(batch)

    slow, fast = time_in_turns(
        [flat, bank], 3 if size < 10_000 else 2, warm_ups=[lambda: flat(1), lambda: bank(1)]
    )
    kind = "decaying spectrum" if decay else "no structure, the worst case"
    return Row(
        f"nearest neighbours, {batches * BATCH:,} x {size:,} x {embeddings.shape[1]}, {kind}",
        f"IndexFlatL2.search: {seconds(slow)}",
        f"bounds first: {seconds(fast)}",
        slow / fast,
        target,
    )
