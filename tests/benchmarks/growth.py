"""Growth: how time and memory follow the sizes, as the exponent p of time ~ size^p."""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from patchcore.coreset import greedy_coreset
from patchcore.memory_bank import MemoryBank
from tests.benchmarks.measure import (
    Row,
    fitted_exponent,
    peak_bytes,
    run_and_watch,
    seconds,
    time_in_turns,
)
from tests.benchmarks.search import make_vectors
from tests.support import make_category, read_table
from tests.support import quick as quick_flags

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
        *_categories(quick),
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


def _categories(quick: bool) -> list[Row]:
    """Run the program on more and more categories: what it holds of one must not stay."""
    counts = [1, 2, 4] if quick else [2, 4, 8]
    times, peaks = [], []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for number in range(counts[-1]):
            make_category(root / "data", f"widget_{number}", seed=number)
        for count in counts:
            result = root / f"result_{count}"
            flags = quick_flags("--path_data", str(root / "data"), "--path_result", str(result))
            named = [f"widget_{number}" for number in range(count)]
            peaks.append(run_and_watch([sys.executable, "main.py", *flags, "--categories", *named]))
            times.append(sum(float(row["seconds_total"]) for row in read_table(result)))
    what = "main.py over the number of categories"
    ends = [f"{n}: {seconds(t)}" for n, t in zip(counts, times, strict=True)]
    exponent = fitted_exponent(counts, times)
    rows = [Row(f"{what}, time (ratio: exponent)", ends[0], ends[-1], exponent)]
    if all(peaks):
        ends = [f"{n}: {peak / 1e6:.0f} MB" for n, peak in zip(counts, peaks, strict=True)]
        exponent = fitted_exponent(counts, peaks)
        rows.append(Row(f"{what}, peak memory (ratio: exponent)", ends[0], ends[-1], exponent))
    return rows


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
