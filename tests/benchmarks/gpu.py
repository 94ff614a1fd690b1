"""A dataset of MVTec AD's sizes on a GPU: seconds per category, and the same scores as on a CPU.

    python -m tests.benchmarks.gpu                 # everything, under 5 minutes with 16 cores
    python -m tests.benchmarks.gpu --quick --device cpu    # a small one, to see that it works

Fifteen procedural categories with the numbers of training and test images of MVTec AD's, as PNG of
1024x1024, are written to a temporary folder and evaluated by `main.py` (random weights: for the
time they are as good as any), once for each percentage and precision. The smallest is then trained
once more, and its test images are judged by that model on the GPU and on the CPU. At last the
backbone and the patch embedding alone are timed in both orders of memory.
"""

import argparse
import csv
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from datasets.synthetic.categories import CATEGORIES
from datasets.synthetic.rendering import render
from patchcore import PatchCore
from tests.benchmarks.measure import seconds, time_in_turns

ROOT = Path(__file__).resolve().parents[2]
# Training and test images of MVTec AD's categories: 3,629 and 1,725 in all.
SIZES = (
    *((209, 83), (224, 150), (219, 132), (280, 117), (264, 78), (391, 110), (245, 124), (220, 115)),
    *((267, 167), (320, 160), (230, 117), (60, 42), (213, 100), (247, 79), (240, 151)),
)
SMALLEST = 11
# Percentage, precision, and the seconds per category that are aimed at.
RUNS = (
    (0.01, "float32", 1.0),
    (0.1, "float32", 1.0),
    (0.25, "float32", 1.5),
    (0.1, "tf32", 1.0),
    (0.1, "float16", 1.0),
)
# Pictures that are rendered for each folder; all others are these, shifted and with other noise.
NUM_RENDERED = 6
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Job:
    """Pictures of one folder of one category, to be written by a process of its own."""

    folder: Path
    category: str
    defect_type: str | None
    count: int
    side: int
    seed: int


def main() -> None:
    """Measure, print a table, and write it as JSON where asked for."""
    given = _parse()
    sizes = [(12, 8), (8, 6)] if given.quick else list(SIZES)
    side = 256 if given.quick else 1024
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        start = time.perf_counter()
        with ProcessPoolExecutor() as pool:
            written = sum(pool.map(_write_pictures, _jobs(root / "data", sizes, side)))
        print(f"wrote {written} pictures in {time.perf_counter() - start:.0f} s", flush=True)
        record = {"device": None, "categories": len(sizes), "side": side, "rows": []}
        print("| coreset | precision | mean s per category | first | target | whole run |")
        print("|---:|---|---:|---:|---:|---:|", flush=True)
        for percentage, precision, target in RUNS:
            row = _measure(root, given, percentage, precision, target)
            record["rows"].append(row)
            print(
                f"| {100 * percentage:g} % | {precision} | {row['mean']:.2f} | {row['first']:.2f} "
                f"| {target} | {row['wall']:.1f} s |",
                flush=True,
            )
        run = json.loads((_result(root, *RUNS[0][:2]) / "run.json").read_text())
        record |= {"device": run["device"], "cpu": run["cpu"], "versions": run["versions"]}
        smallest = _name(1 if given.quick else SMALLEST)
        record["largest_difference"] = _compare_with_cpu(root, given, smallest)
    print(f"\n{record['device']}, {record['cpu']}")
    print(
        "largest relative difference of scores and maps from the CPU's: "
        f"{record['largest_difference']:.1e}"
    )
    record["orders"] = _compare_orders(given)
    if given.json:
        given.json.write_text(json.dumps(record, indent=2) + "\n")
    if not record["largest_difference"] <= TOLERANCE:  # nor undefined
        sys.exit(f"expected scores and maps within {TOLERANCE:g} of the CPU's")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--backbone", default="wide_resnet50_2")
    parser.add_argument("--batch_size", default=32, type=int)
    parser.add_argument("--quick", action="store_true", help="two small categories")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    return parser.parse_args()


def _name(number: int) -> str:
    return f"category_{number:02d}"


def _jobs(root: Path, sizes: list[tuple[int, int]], side: int) -> Iterator[Job]:
    """Yield what is to be written: a quarter of the test images is good, as in MVTec AD."""
    names = list(CATEGORIES)
    for number, (num_train, num_test) in enumerate(sizes):
        name = names[number % len(names)]
        defect_type = CATEGORIES[name].defect_types[0]
        folder = root / _name(number)
        num_good = max(1, num_test // 4)
        yield Job(folder / "train" / "good", name, None, num_train, side, 3 * number)
        yield Job(folder / "test" / "good", name, None, num_good, side, 3 * number + 1)
        num_defective = num_test - num_good
        yield Job(
            folder / "test" / defect_type, name, defect_type, num_defective, side, 3 * number + 2
        )


def _write_pictures(job: Job) -> int:
    """Write a folder's pictures and masks; return how many pictures."""
    cv2.setNumThreads(1)
    generator = np.random.default_rng(job.seed)
    rendered = [
        render(job.category, job.defect_type, seed=1000 * job.seed + i, size=job.side)
        for i in range(min(NUM_RENDERED, job.count))
    ]
    job.folder.mkdir(parents=True)
    for index in range(job.count):
        image, mask = rendered[index % len(rendered)]
        shift = generator.integers(-job.side // 32, job.side // 32 + 1, 2).tolist()
        noise = generator.integers(-2, 3, image.shape, dtype=np.int16)
        shifted = np.roll(image, shift, (0, 1)) + noise
        picture = np.clip(shifted, 0, 255).astype(np.uint8)
        cv2.imwrite(str(job.folder / f"{index:03d}.png"), picture, [cv2.IMWRITE_PNG_COMPRESSION, 1])
        if job.defect_type is not None:
            masks = job.folder.parents[1] / "ground_truth" / job.defect_type
            masks.mkdir(parents=True, exist_ok=True)
            shifted_mask = np.roll(mask, shift, (0, 1)).astype(np.uint8) * 255
            cv2.imwrite(str(masks / f"{index:03d}_mask.png"), shifted_mask)
    return job.count


def _measure(
    root: Path, given: argparse.Namespace, percentage: float, precision: str, target: float
) -> dict[str, object]:
    """Evaluate all categories in one run.

    The first category's time holds what is loaded and chosen once: cuDNN, cuBLAS, faiss.
    """
    result = _result(root, percentage, precision)
    start = time.perf_counter()
    _run(
        *("evaluate", "--path_data", root / "data", "--path_result", result),
        *("--percentage_coreset", percentage, "--path_trained", "none"),
        *("--backbone", given.backbone, "--weights", "random", "--pictures", "none"),
        *("--batch_size", given.batch_size, "--precision", precision, "--device", given.device),
    )
    wall = time.perf_counter() - start
    seconds = [float(row["seconds_total"]) for row in _rows(result)]
    return {
        "percentage": percentage,
        "precision": precision,
        "mean": statistics.fmean(seconds),
        "median": statistics.median(seconds),
        "first": seconds[0],
        "mean_without_first": statistics.fmean(seconds[1:]),
        "target": target,
        "wall": wall,
        "stages": _stages(result),
    }


def _result(root: Path, percentage: float, precision: str) -> Path:
    return root / f"result_{percentage:g}_{precision}"


def _rows(result: Path) -> list[dict[str, str]]:
    with (result / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def _stages(result: Path) -> dict[str, float]:
    """Return the mean seconds of each stage."""
    rows = _rows(result)
    names = [name for name in rows[0] if name.startswith("seconds_")]
    return {name: statistics.fmean(float(row[name]) for row in rows) for name in names}


def _compare_with_cpu(root: Path, given: argparse.Namespace, category: str) -> float:
    """Return the largest difference of any score or map of one category, in shares of the scores.

    One coreset for both: where two patches are equally far, either device may select either.
    """
    trained = root / "trained"
    data = root / "data"
    _run(
        *("train", "--path_data", data, "--categories", category, "--percentage_coreset", 0.1),
        *("--backbone", given.backbone, "--weights", "random", "--device", given.device),
        *("--path_trained", trained),
    )
    scores, maps = [], []
    for device in (given.device, "cpu"):
        result = root / f"compared_{len(scores)}"
        _run(
            *("infer", data / category / "test", "--path_trained", trained),
            *("--path_result", result, "--device", device, "--save_maps"),
        )
        with (result / "predictions.csv").open(newline="") as file:
            scores.append(np.array([float(row["score"]) for row in csv.DictReader(file)]))
        maps.append(np.stack([np.load(file) for file in sorted(result.glob("maps/**/*.npy"))]))
    assert len(maps[0]) == len(scores[0])
    differences = [np.abs(scores[0] - scores[1]), np.abs(maps[0] - maps[1]).max(axis=(1, 2))]
    return float(np.max(differences) / np.min(scores[1]))


def _compare_orders(given: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Time the backbone and the patch embedding with maps in either order in memory.

    `PatchCore` keeps channels last, which is faster on a CPU and in half precision; in float32 a
    GPU may have faster kernels for the other order.

    Returns:
        Seconds per batch by precision and order.
    """
    images = np.zeros((given.batch_size, 224, 224, 3), np.uint8)
    found: dict[str, dict[str, float]] = {}
    for precision in ("float32", "tf32", "float16"):
        if given.device == "cpu" and precision != "float32":
            continue
        forms = {}
        for order in (torch.channels_last, torch.contiguous_format):
            model = PatchCore(
                given.backbone, weights="random", device=given.device, precision=precision
            )
            model.backbone.to(memory_format=order)
            model.backbone.register_forward_pre_hook(
                lambda _, images, order=order: images[0].contiguous(memory_format=order)
            )
            forms[str(order).removeprefix("torch.")] = lambda model=model: _wait(
                model.embedder.embed(images)
            )
        found[precision] = dict(zip(forms, time_in_turns(list(forms.values()), 5), strict=True))
        times = ", ".join(f"{order} {seconds(time)}" for order, time in found[precision].items())
        print(f"{precision}, {given.batch_size} images: {times}", flush=True)
    return found


def _wait(tensor: torch.Tensor) -> None:
    """Wait for the device: until then only the order to compute was timed."""
    if tensor.is_cuda:
        torch.cuda.synchronize(tensor.device)


def _run(command: str, *arguments: object) -> None:
    """Run one of main.py's commands; end the benchmark where it fails."""
    words = [sys.executable, str(ROOT / "main.py"), command, *map(str, arguments)]
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    anomalies_found = 1  # is no failure of infer's
    if done.returncode and not (command == "infer" and done.returncode == anomalies_found):
        sys.exit("\n".join(["a run failed:", *done.stderr.splitlines()[-30:]]))


if __name__ == "__main__":
    main()
