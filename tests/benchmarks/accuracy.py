"""What each setting brings: accuracy and seconds per image, one setting at a time.

    python -m tests.benchmarks.accuracy                    # all steps, about 30 minutes on 2 cores
    python -m tests.benchmarks.accuracy --only size k      # some of them
    python -m tests.benchmarks.accuracy --skip_real        # only the procedural categories

Each step changes the protocol of the paper at 1 % in one setting. It is run on bottle of MVTec AD,
where the folder `shared/` lies beside the checkout, and on the procedural categories, rendered with
512 pixels. The table holds the mean of the procedural categories.
"""

import argparse
import csv
import os
import statistics
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from datasets.synthetic import NAMES
from datasets.synthetic.writing import write_dataset
from tests.benchmarks.measure import run_and_watch
from tests.support import ROOT
from utils.machine import describe_cpu, usable_cores

SHARED = ROOT.parent / "shared"
REAL, PROCEDURAL = "bottle", "procedural"
SIZE, NUM_TRAIN, NUM_TEST_GOOD, NUM_TEST_PER_DEFECT = 512, 24, 8, 4
BASE = "--percentage_coreset 0.01"
METRICS = ("image_auroc", "pixel_auroc", "pixel_ap", "pixel_aupro")

# Name of a group -> label of a step -> flags that differ from the paper's protocol.
STEPS: Mapping[str, Mapping[str, str]] = {
    "size": {
        "224 (the paper)": BASE,
        "320": f"{BASE} --size_resize 366 --size_crop 320",
        "448": f"{BASE} --size_resize 512 --size_crop 448",
    },
    "coreset": {"": "--percentage_coreset 0.01 0.1 0.25 1"},
    "scales": {"448 and 224": f"{BASE} --size_resize 512 --size_crop 448 --scales 1 0.5"},
    "coreset at 448": {"": "--size_resize 512 --size_crop 448 --percentage_coreset 0.03 0.1"},
    "neighbourhood": {
        "none": f"{BASE} --patch_size 1",
        "5x5": f"{BASE} --patch_size 5",
        "plain features": f"{BASE} --neighbourhood plain",
    },
    "banks": {"one for each layer": f"{BASE} --banks per_layer"},
    "distance": {"cosine": f"{BASE} --distance cosine"},
    "image score": {
        "top 1 % of patches": f"{BASE} --image_score top_share",
        "largest map value": f"{BASE} --image_score max_map",
        "equation 7": f"{BASE} --image_score reweighted",
    },
    "k": {"3": f"{BASE} --k 3", "9": f"{BASE} --k 9"},
    "augment": {
        "horizontal flips": f"{BASE} --augment horizontal",
        "rotations": f"{BASE} --augment rotations",
    },
    "shots": {"": "--shots 1 4 16 --percentage_coreset 1 --seed 0 1 2"},
    "protocol": {"high_resolution": "--protocol high_resolution"},
    "larger size": {"672": f"{BASE} --size_resize 768 --size_crop 672"},
}


def main() -> None:
    """Run the steps and print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.accuracy")
    parser.add_argument("--only", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--backbone", default="resnet50_v2:resnet50_v2")
    parser.add_argument("--weights", type=Path, default=SHARED / "weights" / "resnet50_v2.pth")
    parser.add_argument("--skip_real", action="store_true", help="only the procedural categories")
    options = parser.parse_args()
    # Where the default backbone lies.
    paths = [str(SHARED / "backbones"), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    network = f"--backbone {options.backbone} --weights {options.weights}".split()
    print(f"{describe_cpu()}, {usable_cores()} cores\n")
    heads = "image AUROC | pixel AUROC | pixel AP | AUPRO | s / image"
    print(f"| setting | {REAL}: {heads} | {PROCEDURAL}: {heads} |")
    print("|:---|" + "---:|" * 10)
    with tempfile.TemporaryDirectory() as folder:
        data = make_data(Path(folder), skip_real=options.skip_real)
        for group in options.only:
            for label, flags in STEPS[group].items():
                found = {n: run(path, f, network + flags.split()) for n, (path, f) in data.items()}
                print_rows(f"{group} {label}".strip(), found)


def make_data(folder: Path, *, skip_real: bool) -> dict[str, tuple[Path, list[str]]]:
    """Return the datasets by name: their folder, and flags that choose their categories."""
    data = {}
    real = SHARED / "mvtec_anomaly_detection"
    if real.is_dir() and not skip_real:
        data[REAL] = (real, ["--categories", REAL])
    write_dataset(
        folder / "data",
        categories=NAMES,
        num_train=NUM_TRAIN,
        num_test_good=NUM_TEST_GOOD,
        num_test_per_defect=NUM_TEST_PER_DEFECT,
        size=SIZE,
    )
    return data | {PROCEDURAL: (folder / "data", [])}


def run(data: Path, chosen: list[str], flags: list[str]) -> dict[str, list[float]]:
    """Evaluate a dataset; return the metrics and seconds of each percentage and number of shots."""
    with tempfile.TemporaryDirectory() as result:
        command = [sys.executable, "main.py", "--path_data", str(data), "--path_result", result]
        run_and_watch([*command, *chosen, *flags, "--pictures", "none", "--device", "cpu"])
        with (Path(result) / "results.csv").open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    groups: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        name = f"{float(row['percentage_coreset']):.0%}"
        groups.setdefault(f"{row['shots']} shots" if row.get("shots") else name, []).append(row)
    return {
        name: [*(mean(group, metric) for metric in METRICS), cost(group)]
        for name, group in groups.items()
    }


def mean(rows: list[dict[str, str]], metric: str) -> float:
    """Return the mean of a metric in percent."""
    return 100 * statistics.mean(float(row[metric]) for row in rows)


def cost(rows: list[dict[str, str]]) -> float:
    """Return the seconds per training and test image."""
    images = sum(int(row["num_train"]) + int(row["num_test"]) for row in rows)
    return sum(float(row["seconds_total"]) for row in rows) / images


def print_rows(label: str, found: Mapping[str, Mapping[str, list[float]]]) -> None:
    """Print a row for each percentage or number of shots of a step."""
    names = next(iter(found.values()))
    for name in names:
        step = f"{label}, {name}" if len(names) > 1 else label
        cells = []
        for dataset in (REAL, PROCEDURAL):
            values = found.get(dataset, {}).get(name)
            *rates, seconds = values or [float("nan")] * (len(METRICS) + 1)
            cells += [*(f"{rate:.2f}" for rate in rates), f"{seconds:.2f}"]
        print(f"| {step} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
