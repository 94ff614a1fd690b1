"""A harder test than bottle's own, where the image AUROC is 100 with any setting.

    python -m tests.benchmarks.harder "--percentage_coreset 0.01" "--protocol high_resolution"

Every fifth training image of bottle is held out. Copies of these get one of three kinds of
synthetic defects each: faint scratches and spots, which need details, and pieces of the bottle at
a wrong place, which need the surroundings. Each argument is a set of flags to evaluate; the rest
of the training images are learned.
"""

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from tests.benchmarks.measure import run_and_watch
from tests.support import ROOT, read_table, write_image
from utils.machine import describe_cpu, usable_cores

SHARED = ROOT.parent / "shared"
CATEGORY = "bottle"
NUM_COPIES = 40  # of each kind
EVERY = 5

# A changed copy of an image (H, W, 3), and a mask (H, W) of what was changed.
Change = Callable[[np.ndarray, np.random.Generator], tuple[np.ndarray, np.ndarray]]


def scratch(image: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw a faint line of 2 to 3 pixels."""
    mask = np.zeros(image.shape[:2], np.uint8)
    points = [_place(image, rng)]
    for angle in rng.uniform(0, 0.6, 4) + rng.uniform(0, 2 * np.pi):
        step = rng.uniform(15, 45)
        points.append(points[-1] + step * np.array([np.cos(angle), np.sin(angle)]))
    line = np.int32(np.rint(points))[None]
    cv2.polylines(mask, line, isClosed=False, color=1, thickness=int(rng.integers(2, 4)))
    return _shaded(image, mask, rng)


def spots(image: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw three faint discs of 4 to 12 pixels."""
    mask = np.zeros(image.shape[:2], np.uint8)
    for _ in range(3):
        centre = tuple(np.int32(_place(image, rng)).tolist())
        cv2.circle(mask, centre, int(rng.integers(2, 7)), 1, cv2.FILLED)
    return _shaded(image, mask, rng)


def misplaced(image: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Copy a piece of 120 to 180 pixels to another place, with a soft border."""
    side = int(rng.integers(120, 181))
    height, width = image.shape[:2]
    while True:
        source, target = (
            rng.integers(height // 8, 7 * height // 8 - side, 2),
            rng.integers(width // 8, 7 * width // 8 - side, 2),
        )
        if np.abs(source - target).max() > side:
            break
    weight = np.zeros((height, width), np.float32)
    weight[target[0] + 12 : target[0] + side - 12, target[1] + 12 : target[1] + side - 12] = 1
    weight = cv2.GaussianBlur(weight, (0, 0), 4)
    moved = np.roll(image, target - source, axis=(0, 1))
    mixed = image + weight[..., None] * (moved.astype(np.float32) - image)
    return np.rint(mixed).astype(np.uint8), weight > 0.5


KINDS: dict[str, Change] = {"scratches": scratch, "spots": spots, "misplaced": misplaced}


def _place(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw a place (x, y) on the bottle."""
    height, width = image.shape[:2]
    angle, radius = rng.uniform(0, 2 * np.pi), 0.36 * np.sqrt(rng.uniform())
    return np.array([width, height]) * (0.5 + radius * np.array([np.cos(angle), np.sin(angle)]))


def _shaded(
    image: np.ndarray, mask: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Change the brightness of masked pixels by 12 to 24 levels, with a soft border."""
    level = rng.uniform(12, 24) * rng.choice([-1, 1])
    soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 0.8)
    changed = np.clip(image + level * soft[..., None], 0, 255)
    return np.rint(changed).astype(np.uint8), mask > 0


def make_data(folder: Path) -> None:
    """Write the harder category in the layout of MVTec AD."""
    source, target = SHARED / "mvtec_anomaly_detection" / CATEGORY, folder / CATEGORY
    shutil.copytree(source / "test", target / "test")
    shutil.copytree(source / "ground_truth", target / "ground_truth")
    paths = sorted((source / "train/good").iterdir())
    held_out = paths[::EVERY]
    (target / "train/good").mkdir(parents=True)
    for path in paths:
        to_train = path not in held_out
        place = target / ("train/good" if to_train else "test/good")
        shutil.copy(path, place / (path.name if to_train else f"held_out_{path.name}"))
    rng = np.random.default_rng(0)
    for kind, change in KINDS.items():
        for number in range(NUM_COPIES):
            image = cv2.imread(str(held_out[number % len(held_out)]))[..., ::-1]
            changed, mask = change(image, rng)
            write_image(target / f"test/{kind}/{number:03d}.png", changed)
            path = target / f"ground_truth/{kind}/{number:03d}_mask.png"
            write_image(path, 255 * mask.astype(np.uint8))


def main() -> None:
    """Evaluate each set of flags and print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.harder")
    parser.add_argument("flags", nargs="+", help="flags of one evaluation, as one argument each")
    parser.add_argument("--backbone", default="resnet50_v2:resnet50_v2")
    parser.add_argument("--weights", type=Path, default=SHARED / "weights" / "resnet50_v2.pth")
    options = parser.parse_args()
    paths = [str(SHARED / "backbones"), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    print(f"{describe_cpu()}, {usable_cores()} cores\n")
    print(f"| flags | {' | '.join(KINDS)} | image AUROC | pixel AP | AUPRO | seconds |")
    print("|:---|" + "---:|" * (len(KINDS) + 4))
    with tempfile.TemporaryDirectory() as folder:
        make_data(Path(folder) / "data")
        for number, flags in enumerate(options.flags):
            result = Path(folder) / str(number)
            command = [sys.executable, "main.py", "--path_data", f"{folder}/data"]
            command += ["--path_result", str(result), "--pictures", "none"]
            command += ["--backbone", options.backbone, "--weights", str(options.weights)]
            run_and_watch([*command, *flags.split()])
            _print_rows(flags, result)


def _print_rows(flags: str, result: Path) -> None:
    """Print a row for each percentage, in percent."""
    defects = read_table(result / "results_defects.csv")
    for row in read_table(result):
        share = row["percentage_coreset"]
        of_kind = {r["defect_type"]: r for r in defects if r["percentage_coreset"] == share}
        values = [of_kind[kind]["image_auroc"] for kind in KINDS]
        values += [row[name] for name in ("image_auroc", "pixel_ap", "pixel_aupro")]
        shown = " | ".join(f"{100 * float(value):.2f}" for value in values)
        name = f"{flags or 'the paper'} ({float(share):.0%})"
        print(f"| {name} | {shown} | {float(row['seconds_total']):.1f} |", flush=True)


if __name__ == "__main__":
    main()
