"""Selection over several processes: seconds, processor seconds and bytes for each selected patch.

``python -m tests.benchmarks.scale`` needs Ray (``requirements-ray.txt``). All workers are on this
machine, and the bytes are those that would go over a network. The vectors are made by the workers;
making them is not measured. docs/scale.md explains the model whose constants are fitted.
"""

import argparse
import os
import time
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import torch

from patchcore.distributed import RayShards
from patchcore.greedy import centre, select_greedily
from patchcore.ray_workers import Workers, import_ray
from patchcore.shard_worker import ShardWorker
from patchcore.shards import LocalShards, Shards
from utils.machine import describe_cpu

DIM = 128
BLOCK = 10_000
KEY = (0, 0)
CPU = SimpleNamespace(device=torch.device("cpu"))


def make_points(first: int, stop: int) -> torch.Tensor:
    """Return rows of clustered vectors whose variance decays along the axes."""
    clusters = torch.randn(500, DIM, generator=torch.Generator().manual_seed(0))
    scale = torch.arange(1, DIM + 1) ** -0.5
    points = torch.empty(stop - first, DIM)
    for start in range(first, stop, BLOCK):
        generator = torch.Generator().manual_seed(start + 1)
        rows = points[start - first : start - first + BLOCK]
        rows.normal_(generator=generator).mul_(0.5)
        rows.add_(clusters[torch.randint(500, (len(rows),), generator=generator)]).mul_(scale)
    return points


class PointsWorker(ShardWorker):
    """A worker that holds made vectors instead of projections."""

    def __init__(self, first: int, stop: int, num_threads: int):
        torch.set_num_threads(num_threads)
        self._embedder, self._shards = CPU, {}
        self._points = make_points(first, stop)

    def open(self, key: tuple, candidates: None) -> None:
        """Open a selection of all points."""
        self._shards[key] = LocalShards.of(self._points)

    def subtract(self, key: tuple, origin: torch.Tensor) -> None:
        """Subtract a vector from all points."""
        self._points.sub_(origin)

    def processor_seconds(self) -> float:
        """Return the processor's seconds of this process so far."""
        return time.process_time()


class CountingShards(RayShards):
    """Ray shards that count the bytes between the driver and all workers."""

    num_bytes = 0

    def call(self, method: str, arguments: list[tuple]) -> list:
        """Count what goes and what comes."""
        found = super().call(method, arguments)
        self.num_bytes += _bytes(arguments) + _bytes(found)
        return found

    def send(self, method: str, arguments: list[tuple]) -> None:
        """Count what goes."""
        self.num_bytes += _bytes(arguments)
        super().send(method, arguments)


def _bytes(value: object) -> int:
    if isinstance(value, list | tuple):
        return sum(map(_bytes, value))
    return value.nbytes if isinstance(value, torch.Tensor | np.ndarray) else 0


@dataclass(frozen=True)
class Measured:
    """One selection: N, workers (0 for none), M, groups, seconds, processor seconds, bytes."""

    count: int
    workers: int
    samples: int
    groups: int
    seconds: float
    of_workers: float
    of_driver: float
    num_bytes: int
    digest: int

    def row(self) -> str:
        """Return the row of the table."""
        per = 1e6 / self.samples
        return (
            f"| {self.count:,} | {self.workers or 'no Ray'} | {self.samples / self.groups:.0f} "
            f"| {self.seconds:.1f} | {self.seconds * per:,.0f} | {self.of_workers * per:,.0f} "
            f"| {self.of_driver * per:,.0f} | {self.num_bytes / self.samples:,.0f} |"
        )


def _select(shards: Shards, samples: int) -> tuple[int, float, float, int]:
    """Select; return the groups, the seconds, the driver's processor seconds, a digest."""
    passes: list[int] = []
    start, used = time.perf_counter(), time.process_time()
    centre(shards, 0)
    found = select_greedily(shards, samples, seed=0, progress=passes.append)
    seconds, driver = time.perf_counter() - start, time.process_time() - used
    return len(passes), seconds, driver, hash(found.numbers.tobytes())


def measure_alone(count: int, samples: int) -> Measured:
    """Measure the selection in this process."""
    shards = LocalShards.of(make_points(0, count))
    groups, seconds, used, digest = _select(shards, samples)
    return Measured(count, 0, samples, groups, seconds, used, 0.0, 0, digest)


def measure_distributed(count: int, num_workers: int, samples: int) -> Measured:
    """Measure the selection over Ray workers with one thread each."""
    ray = import_ray()
    ends = [BLOCK * (count // BLOCK * i // num_workers) for i in range(num_workers)] + [count]
    arguments = [(ends[i], ends[i + 1], 1) for i in range(num_workers)]
    workers = Workers(arguments, {"num_cpus": 0}, PointsWorker)

    def used() -> float:
        return sum(ray.get([actor.processor_seconds.remote() for actor in workers.actors]))

    workers.send("open", [(KEY, None)] * num_workers, KEY)
    shards = CountingShards(workers, KEY, np.diff(ends).tolist(), CPU.device)
    before = used()
    groups, seconds, driver, digest = _select(shards, samples)
    measured = Measured(
        count,
        num_workers,
        samples,
        groups,
        seconds,
        used() - before,
        driver,
        shards.num_bytes,
        digest,
    )
    workers.stop()
    return measured


def fit_model(measured: list[Measured]) -> tuple[float, float, list[float]]:
    """Fit processor seconds = a N M + b M; return a, b and the relative error of each."""
    sizes = np.array([[m.count * m.samples, m.samples] for m in measured], dtype=float)
    times = np.array([m.of_workers + m.of_driver for m in measured])
    weighted = sizes / times[:, None]  # errors relative to the time
    a, b = np.linalg.lstsq(weighted, np.ones(len(times)), rcond=None)[0]
    return a, b, list(sizes @ (a, b) / times - 1)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.scale")
    parser.add_argument("--counts", type=int, nargs="+", default=[250_000, 1_000_000])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--samples", type=int, default=2_000, help="selected patches")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    import_ray().init(
        address="local",
        include_dashboard=False,
        log_to_driver=False,
        logging_level="error",
        _node_ip_address="127.0.0.1",
    )
    print(f"{describe_cpu()}; load {os.getloadavg()[0]:.1f}\n")
    print("| patches | workers | per group | s | us | us, workers | us, driver | bytes |")
    print("|---:|---:|---:|---:|---:|---:|---:|---:|")
    measured = []
    for count in arguments.counts:
        ways = [measure_alone(count, arguments.samples)]
        print(ways[0].row(), flush=True)
        for workers in arguments.workers:
            ways.append(measure_distributed(count, workers, arguments.samples))
            print(ways[-1].row(), flush=True)
        if len({way.digest for way in ways}) > 1:
            raise RuntimeError("the selections differ")
        measured += ways
    a, b, errors = fit_model(measured)
    print(f"\n{a * 1e9:.2f} ns for each pair of a patch and a selected one, on one core")
    print(f"{b * 1e6:.0f} us for each selected patch besides")
    print("error of the model: " + ", ".join(f"{error:+.0%}" for error in errors))


if __name__ == "__main__":
    main()
