"""Growth: how time and memory follow the sizes, as the exponent p of time ~ size^p."""

from collections.abc import Callable

from patchcore.coreset import greedy_coreset
from patchcore.memory_bank import MemoryBank
from tests.benchmarks.measure import Row, fitted_exponent, peak_bytes, seconds, time_in_turns
from tests.benchmarks.search import make_vectors

DIM = 128


def measure(quick: bool) -> list[Row]:
    """Measure the selection over N and M, and the search over M."""
    largest = 20_000 if quick else 120_000
    counts = [largest // 4, largest // 2, largest]
    vectors = make_vectors(largest, DIM)
    samples = largest // 40
    return [
        _fit(
            f"selection of M = {samples:,}, time over N",
            counts,
            lambda n: greedy_coreset(vectors[:n], samples),
        ),
        _fit(
            f"selection from N = {largest:,}, time over M",
            [samples, 2 * samples, 4 * samples],
            lambda m: greedy_coreset(vectors, m),
        ),
        *_memory(counts, lambda n: greedy_coreset(vectors[:n], samples)),
        _search(quick),
    ]


def _search(quick: bool) -> Row:
    largest = 4_096 if quick else 32_768
    sizes = [largest // 4, largest // 2, largest]
    vectors = make_vectors(largest + 2048, 1024)
    banks = {size: MemoryBank(vectors[:size]) for size in sizes}
    return _fit(
        "nearest neighbours of 2,048 queries, time over M",
        sizes,
        lambda size: banks[size].search(vectors[largest:]),
    )


def _fit(what: str, sizes: list[int], run: Callable[[int], object]) -> Row:
    times = time_in_turns([lambda size=size: run(size) for size in sizes], 3)
    ends = [f"{size:,}: {seconds(t)}" for size, t in zip(sizes, times, strict=True)]
    return Row(f"{what} (ratio: exponent)", ends[0], ends[-1], fitted_exponent(sizes, times))


def _memory(sizes: list[int], run: Callable[[int], object]) -> list[Row]:
    peaks = [peak_bytes(lambda size=size: run(size)) for size in sizes]
    if None in peaks:
        return []
    ends = [f"{size:,}: {peak / 1e6:.0f} MB" for size, peak in zip(sizes, peaks, strict=True)]
    exponent = fitted_exponent(sizes, [max(peak, 1) for peak in peaks])
    return [Row("selection, extra memory over N (ratio: exponent)", ends[0], ends[-1], exponent)]
