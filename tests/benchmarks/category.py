"""A whole category by ``main.py``, against the time that the backbone alone needs."""

import csv
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from datasets.layouts import open_dataset
from patchcore.weights import load_backbone
from tests.benchmarks.measure import Row, run_and_watch, time_once
from tests.support import ROOT, make_category

REAL = ROOT.parent / "shared" / "mvtec_anomaly_detection"
BATCH = 8
SWEEP = (0.01, 0.1, 0.25)


def measure(quick: bool) -> list[Row]:
    """Measure a run at each percentage alone, and a sweep; by ``results.csv``'s own seconds."""
    with tempfile.TemporaryDirectory() as folder:
        if quick or not (REAL / "bottle").is_dir():
            data, name = Path(folder) / "data", "widget"
            make_category(data, name)
        else:
            data, name = REAL, "bottle"
        category = open_dataset(data).read_category(name)
        count = len(category.train) + len(category.test)
        # Before and after each run: what else the machine does meanwhile meets both.
        alone, runs = [time_backbone(count)], {}
        for shares in ((0.01,), (0.1,), (0.25,), SWEEP):
            runs[shares] = run_program(data, name, shares, Path(folder) / "result")
            alone.append(time_backbone(count))
        bank = 4 * 1024 * 28 * 28 * len(category.train)
    what = f"{name}, {count} images"
    rows = []
    limits = ("<= 1.35", "<= 1.6", "")
    for (shares, (duration, _)), limit, around in zip(
        runs.items(), limits, pairwise(alone), strict=False
    ):
        backbone = sum(around) / 2
        slow, fast = f"backbone alone: {backbone:.1f} s", f"whole run: {duration:.1f} s"
        target = limit if name == "bottle" else ""
        rows.append(Row(f"{what} at {shares[0]:.0%}", slow, fast, duration / backbone, target))
    largest, sweep = runs[0.25,][0], runs[SWEEP][0]
    rows.append(
        Row(
            f"{what}: 1 %, 10 % and 25 % in one run",
            f"25 % alone: {largest:.1f} s",
            f"sweep: {sweep:.1f} s",
            sweep / largest,
            "<= 1.1" if name == "bottle" else "",
        )
    )
    peak = max(run[1] for run in runs.values())
    allowed = 1.5e9 + 1.3 * bank
    if peak:
        limit, found = f"allowed: {allowed / 1e9:.2f} GB", f"{peak / 1e9:.2f} GB"
        rows.append(
            Row(
                f"{what}: peak memory",
                limit,
                found,
                peak / allowed,
                "<= 1" if name == "bottle" else "",
            )
        )
    return rows


def time_backbone(count: int) -> float:
    """Return the seconds for ``count`` images, from those for a few, as `PatchCore` runs it."""
    backbone = load_backbone("wide_resnet50_2", ["layer2", "layer3"], "random")
    backbone.to(memory_format=torch.channels_last)
    images = torch.randn(BATCH, 3, 224, 224).contiguous(memory_format=torch.channels_last)
    backbone(images)
    per_batch = np.median([time_once(lambda: backbone(images)) for _ in range(3)])
    return float(per_batch) * count / BATCH


def run_program(
    data: Path, name: str, shares: tuple[float, ...], result: Path
) -> tuple[float, int]:
    """Run ``main.py``; return the seconds of all its percentages, and its peak resident bytes."""
    command = [sys.executable, "main.py", "--path_data", data, "--path_result", result]
    command += ["--categories", name, "--weights", "random", "--pictures", "none"]
    command += ["--percentage_coreset", *shares, "--device", "cpu"]
    peak = run_and_watch([str(word) for word in command])
    with (result / "results.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    # The largest percentage's time holds all that is shared; the others score and measure besides.
    largest = max(rows, key=lambda row: float(row["percentage_coreset"]))
    besides = sum(
        float(row["seconds_score"]) + float(row["seconds_metrics"])
        for row in rows
        if row is not largest
    )
    return float(largest["seconds_total"]) + besides, peak
