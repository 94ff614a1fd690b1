"""Images per second of one loaded model, by calling threads, torch threads and images in a call.

    python -m tests.benchmarks.server                  # bottle, 3 minutes on 2 cores
    python -m tests.benchmarks.server --threads 1 2 --batch_sizes 1 8

The images are decoded before; `predict` resizes, crops and predicts them. All forms are measured
in turns on the same images. The fastest round of each, which other processes disturbed least, is
printed as a Markdown table.
"""

import argparse
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice, product
from pathlib import Path

import numpy as np
import torch

from datasets.images import read_image
from datasets.reading_ahead import in_batches
from patchcore import PatchCore
from tests.support import ROOT
from utils.machine import describe_cpu, usable_cores

SHARED = ROOT.parent / "shared"


def main() -> None:
    """Train a model, measure, and print the table."""
    options = _parse()
    train = [read_image(path) for path in sorted(options.path_category.glob("train/good/*.png"))]
    files = sorted(options.path_category.glob("test/*/*.png"))
    images = [read_image(path) for path in islice(files, options.images)]
    model = PatchCore(
        options.backbone,
        options.layers,
        weights=options.weights,
        percentage_coreset=options.percentage_coreset,
        batch_size=max(options.batch_sizes),
    ).fit(train)
    forms = list(product(options.torch_threads, options.threads, options.batch_sizes))
    rates: dict[tuple[int, int, int], list[float]] = {form: [] for form in forms}
    for _ in range(options.rounds):
        for form in forms:
            rates[form].append(images_per_second(model, images, *form))
    print(f"{describe_cpu()}; {len(model.coreset.bank):,} coreset patches; images per second\n")
    print(as_table(options, {form: max(found) for form, found in rates.items()}))


def images_per_second(
    model: PatchCore,
    images: Sequence[np.ndarray],
    torch_threads: int,
    threads: int,
    batch_size: int,
) -> float:
    """Measure the throughput of calls from several threads.

    Args:
        model: The model, shared by all threads.
        images: Each (H, W, 3) uint8 RGB.
        torch_threads: Number of threads that torch uses for one call.
        threads: Number of threads that call `predict`.
        batch_size: Number of images in a call.
    """
    torch.set_num_threads(torch_threads)
    batches = list(in_batches(images, batch_size))
    # New threads, since a thread keeps the number of torch threads that it began with.
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(model.predict, batches[:threads]))  # warm-up
        start = time.perf_counter()
        list(pool.map(model.predict, batches))
        return len(images) / (time.perf_counter() - start)


def as_table(options: argparse.Namespace, rates: dict[tuple[int, int, int], float]) -> str:
    """Return the rates as a Markdown table, one column for each number of images in a call."""
    heads = [f"{size} image{'s' if size > 1 else ''} in a call" for size in options.batch_sizes]
    lines = [
        f"| torch threads | calling threads | {' | '.join(heads)} |",
        "|---:|---:|" + "---:|" * len(heads),
    ]
    for torch_threads, threads in product(options.torch_threads, options.threads):
        cells = [f"{rates[torch_threads, threads, size]:.1f}" for size in options.batch_sizes]
        lines.append(f"| {torch_threads} | {threads} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.server",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--path_category", type=Path, default=SHARED / "mvtec_anomaly_detection/bottle"
    )
    parser.add_argument("--backbone", default="mobilenet_v2")
    parser.add_argument("--layers", nargs="+", default=["features.6", "features.13"])
    parser.add_argument("--weights", default=str(SHARED / "weights/mobilenet_v2.pth"))
    parser.add_argument("--percentage_coreset", type=float, default=0.01)
    parser.add_argument("--images", type=int, default=64, help="number of test images")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2, 4])
    cores = usable_cores()
    parser.add_argument("--torch_threads", type=int, nargs="+", default=sorted({1, cores}))
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[1, 4, 8, 16])
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    if not options.path_category.is_dir():
        parser.error(f"expected a category's folder, found none: {options.path_category}")
    return options


if __name__ == "__main__":
    main()
