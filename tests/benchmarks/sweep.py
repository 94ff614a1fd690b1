"""A sweep by two local workers of Ray against one process on the same cores.

Not one of `python -m tests.benchmarks`, since it takes long and needs Ray:

    python -m tests.benchmarks.sweep --categories 6 --images 60 --rounds 2

Both compute with all cores: one process with a thread for each, or Ray with one task of half of the
threads on each half. The runs alternate. The start of Ray is measured alone and left out.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from datasets.synthetic import NAMES
from datasets.synthetic.writing import write_dataset
from tests.support import ROOT
from utils.machine import describe_cpu, usable_cores
from utils.ray_cluster import connected

TARGET = 1.15
# Also starts workers and imports torch in them, as a sweep does before its first image.
IMPORTS = ("torch", "torchvision", "faiss", "cv2")


def main() -> None:
    """Measure, and print the medians and their ratio."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.sweep")
    parser.add_argument("--categories", type=int, default=6, choices=range(2, len(NAMES) + 1))
    parser.add_argument("--images", type=int, default=60, help="training images of a category")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--backbone", default="wide_resnet50_2")
    arguments = parser.parse_args()
    cores = usable_cores()
    workers = max(cores // 2, 1)
    engines = {
        "one process": (cores, []),
        "Ray": (workers, ["--engine", "ray", "--task_cpus", str(workers)]),
    }
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        write_dataset(
            data,
            categories=NAMES[: arguments.categories],
            num_train=arguments.images,
            num_test_good=10,
            num_test_per_defect=6,
        )
        found: dict[str, list[float]] = {name: [] for name in engines}
        for number in range(arguments.rounds):
            for name, (threads, flags) in engines.items():
                result = Path(folder) / f"{name} {number}"
                weights = "default" if arguments.backbone == "formulanet" else "random"
                command = [sys.executable, "main.py", "--path_data", data, "--path_result", result]
                command += ["--backbone", arguments.backbone, "--weights", weights]
                command += ["--pictures", "none", "--device", "cpu", *flags]
                found[name].append(time_run([str(word) for word in command], threads))
                print(f"{name}: {found[name][-1]:.1f} s", flush=True)
    start = time_start(workers)
    alone, spread = (statistics.median(seconds) for seconds in found.values())
    ratio = (spread - start) / alone
    print(f"{describe_cpu()}; start of Ray and of its workers: {start:.1f} s, left out")
    print(f"one process {alone:.1f} s, Ray {spread - start:.1f} s: {ratio:.2f} times, <= {TARGET}")


def time_run(command: list[str], threads: int) -> float:
    """Return the seconds of a run of the program with so many threads."""
    start = time.perf_counter()
    subprocess.run(
        command,
        cwd=ROOT,
        check=True,
        capture_output=True,
        env=os.environ | {"OMP_NUM_THREADS": str(threads)},
    )
    return time.perf_counter() - start


def time_start(cpus: int) -> float:
    """Return the seconds until Ray and its workers can compute, and until they have ended."""
    start = time.perf_counter()
    with connected("", ()):
        import ray

        imports = ray.remote(num_cpus=cpus)(import_packages)
        ray.get([imports.remote() for _ in range(2)])
    return time.perf_counter() - start


def import_packages() -> None:
    """Import what a task needs."""
    import importlib

    for name in IMPORTS:
        importlib.import_module(name)
    time.sleep(1)  # so that one worker does not run both


if __name__ == "__main__":
    main()
