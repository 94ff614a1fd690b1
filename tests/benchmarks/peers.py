"""This program and anomalib on the same images with the same network: seconds, memory, metrics.

    python -m venv anomalib && anomalib/bin/pip install anomalib
    python -m tests.benchmarks.peers --python anomalib/bin/python            # PatchCore at 1 %
    python -m tests.benchmarks.peers --python anomalib/bin/python --percentages 0.01 0.1
    python -m tests.benchmarks.peers --python anomalib/bin/python --only anomalydino rad

PatchCore is fitted and tested without figures, each program in a process of its own, one after the
other. AnomalyDINO and RAD get a vision transformer with the same random weights and the same crops
of a few images; the table shows how far scores and maps are apart.
"""

import argparse
import csv
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from datasets.base import Category
from datasets.images import read_image
from datasets.layouts import open_dataset
from datasets.masks import read_mask
from patchcore import PatchCore
from patchcore.preprocess import Preprocess
from patchcore.protocols import PROTOCOLS
from tests.benchmarks.measure import run_and_watch
from tests.support import ROOT
from utils.machine import describe_cpu, usable_cores
from utils.metrics import Metrics, measure, measure_pixels

SHARED = ROOT.parent / "shared"
PEER = Path(__file__).with_name("peer_anomalib.py")
SIZE_RESIZE, SIZE_CROP, BATCH = 256, 224, 8
# Vision transformers for the methods that need one: name, layers, crop in pixels, and settings. The
# crops are of sizes at which position embeddings are not resampled, which anomalib does otherwise.
# Versions of training images are left out, since anomalib has none; the smoothing of RAD is that of
# its maps of 256 pixels.
TRANSFORMERS = {
    "anomalydino": ("vit_small_patch14_dinov2", ("blocks.11",), 518, {"augment": ()}),
    "rad": (
        "vit_small_patch16_dinov3",
        ("blocks.3", "blocks.6", "blocks.9", "blocks.11"),
        256,
        {"sigma": 1.0},
    ),
}
NUM_TRAIN, NUM_TEST = 8, 6


@dataclass(frozen=True)
class Outcome:
    """What one program found on a category.

    Attributes:
        seconds: Seconds of fit and test, from the first image to the metrics.
        peak: Peak resident bytes of the process.
        image_auroc: AUROC of the image scores, in [0, 1].
        pixel_auroc: AUROC of the maps, in [0, 1].
        aupro: AUPRO up to 0.3, in [0, 1].
    """

    seconds: float
    peak: int
    image_auroc: float
    pixel_auroc: float
    aupro: float

    def cells(self) -> list[str]:
        """Return the cells of the table."""
        rates = (self.image_auroc, self.pixel_auroc, self.aupro)
        return [f"{self.seconds:.1f}", f"{self.peak / 1e9:.2f}", *(f"{100 * r:.2f}" for r in rates)]


def main() -> None:
    """Run both programs and print the tables."""
    options = _parse()
    print(f"{describe_cpu()}, {usable_cores()} cores\n")
    with tempfile.TemporaryDirectory() as folder:
        if "patchcore" in options.only:
            compare_patchcore(options, Path(folder))
        names = [name for name in options.only if name != "patchcore"]
        if names:
            print("| method | scores apart | maps apart | maps apart, the same smoothing |")
            print("|:---|---:|---:|---:|")
        for name in names:
            compare_transformer(name, options, Path(folder))


def compare_patchcore(options: argparse.Namespace, folder: Path) -> None:
    """Print the table of PatchCore."""
    print("| coreset | program | seconds | memory (GB) | image AUROC | pixel AUROC | AUPRO |")
    print("|---:|:---|---:|---:|---:|---:|---:|")
    for percentage in options.percentages:
        runs = {"anomalib": run_anomalib, "this program": run_own}
        for name, run in runs.items():
            cells = run(options, percentage, folder / f"{name}_{percentage}").cells()
            print(f"| {percentage:.0%} | {name} | {' | '.join(cells)} |", flush=True)
    print()


def run_own(options: argparse.Namespace, percentage: float, folder: Path) -> Outcome:
    """Evaluate a category by ``main.py``."""
    command = [sys.executable, "main.py", "--path_data", options.path_data, "--path_result", folder]
    command += ["--categories", options.category, "--percentage_coreset", percentage]
    command += ["--backbone", options.backbone, "--weights", options.weights]
    command += ["--layers", *options.layers, "--batch_size", BATCH, "--device", "cpu"]
    command += ["--pictures", "none"]
    peak = run_and_watch([str(word) for word in command])
    with (folder / "results.csv").open(encoding="utf-8") as file:
        row = next(csv.DictReader(file))
    metrics = (float(row[name]) for name in ("image_auroc", "pixel_auroc", "pixel_aupro"))
    return Outcome(float(row["seconds_total"]), peak, *metrics)


def run_anomalib(options: argparse.Namespace, percentage: float, folder: Path) -> Outcome:
    """Evaluate a category by anomalib, and measure its scores and maps as this program does."""
    peak, found = run_peer(
        options.python,
        folder,
        method="patchcore",
        data=str(options.path_data.resolve()),
        category=options.category,
        backbone=options.backbone,
        weights=str(options.weights.resolve()),
        layers=options.layers,
        percentage=percentage,
        size_resize=SIZE_RESIZE,
        size_crop=SIZE_CROP,
    )
    category = open_dataset(options.path_data).read_category(options.category)
    images, pixels = measure_found(category, found)
    seconds = float(found["seconds"])
    return Outcome(seconds, peak, images.auroc, pixels.auroc, pixels.aupro)


def measure_found(category: Category, found: dict[str, np.ndarray]) -> tuple[Metrics, Metrics]:
    """Return the metrics of image scores and of maps."""
    order = {Path(path).resolve(): number for number, path in enumerate(found["paths"].tolist())}
    samples = category.test
    chosen = [order[sample.path.resolve()] for sample in samples]
    preprocess = Preprocess((SIZE_RESIZE,) * 2, (SIZE_CROP,) * 2)
    masks = [
        np.zeros((SIZE_CROP,) * 2, bool)
        if sample.mask is None
        else preprocess.crop_mask(read_mask(*sample.mask.files))
        for sample in samples
    ]
    labels = np.array([sample.is_defective for sample in samples])
    pixels = measure_pixels(found["maps"][chosen], np.stack(masks))
    return measure(found["scores"][chosen], labels), pixels


def compare_transformer(name: str, options: argparse.Namespace, folder: Path) -> None:
    """Print how far the scores and maps of a method for vision transformers are apart."""
    import timm

    network, layers, side, changed = TRANSFORMERS[name]
    torch.manual_seed(0)
    weights = folder / f"{name}.pth"
    torch.save(timm.create_model(network).state_dict(), weights)
    model = PatchCore(
        f"timm:{network}",
        layers,
        weights=str(weights),
        **PROTOCOLS[name] | {"size_resize": side, "size_crop": side} | changed,
    )
    category = open_dataset(options.path_data).read_category(options.category)
    train, test = (
        [model.crop(read_image(sample.path)) for sample in samples]
        for samples in (category.train[:NUM_TRAIN], spread(category.test, NUM_TEST))
    )
    crops = folder / f"{name}_crops.npz"
    normalised = (model.preprocess.normalise(torch.from_numpy(np.stack(c))) for c in (train, test))
    np.savez(crops, **dict(zip(("train", "test"), (n.numpy() for n in normalised), strict=True)))
    _, found = run_peer(
        options.python,
        folder / name,
        method=name,
        backbone=network,
        weights=str(weights),
        layers=layers,
        crops=str(crops),
    )
    own = model.fit(train).predict(test)
    apart = [relative(found["scores"], own.score), relative(found["maps"], own.anomaly_map)]
    apart.append(relative(found["maps"], resmoothed(name, own.distance.mean(-1), side)))
    print(f"| {name} | {' | '.join(f'{value:.1e}' for value in apart)} |", flush=True)


def resmoothed(name: str, scores: np.ndarray, side: int) -> np.ndarray:
    """Return maps of patch scores (B, h, w), resized and smoothed as anomalib does."""
    from torch.nn.functional import interpolate
    from torchvision.transforms.functional import gaussian_blur

    patches = torch.from_numpy(scores)[:, None]
    if name == "rad":
        maps = interpolate(patches, (side, side), mode="bilinear", align_corners=False)
        return gaussian_blur(maps, [5, 5], [1.0, 1.0])[:, 0].numpy()
    return gaussian_blur(interpolate(patches, (side, side)), [33, 33], [4.0, 4.0])[:, 0].numpy()


def relative(found: np.ndarray, own: np.ndarray) -> float:
    """Return the largest difference, relative to the largest value."""
    return float(np.abs(found - own).max() / np.abs(own).max())


def spread(samples: Sequence, count: int) -> list:
    """Return a number of samples, evenly spread."""
    return [samples[number * len(samples) // count] for number in range(count)]


def run_peer(python: str, folder: Path, **job: object) -> tuple[int, dict[str, np.ndarray]]:
    """Run a job in anomalib's environment; return its peak resident bytes and its arrays."""
    folder.mkdir(parents=True)
    output, file = folder / "found.npz", folder / "job.json"
    job |= {"output": str(output), "folder": str(folder), "batch_size": BATCH}
    file.write_text(json.dumps(job), encoding="utf-8")
    peak = run_and_watch([python, str(PEER), str(file)])
    with np.load(output) as arrays:
        return peak, dict(arrays)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.peers")
    parser.add_argument("--python", required=True, help="interpreter of anomalib's environment")
    parser.add_argument("--path_data", type=Path, default=SHARED / "mvtec_anomaly_detection")
    parser.add_argument("--category", default="bottle")
    parser.add_argument("--backbone", default="resnet50_v2:resnet50_v2", help="module:factory")
    parser.add_argument("--weights", type=Path, default=SHARED / "weights" / "resnet50_v2.pth")
    parser.add_argument("--layers", nargs="+", default=["layer2", "layer3"])
    parser.add_argument("--percentages", nargs="+", type=float, default=[0.01])
    methods = ("patchcore", *TRANSFORMERS)
    parser.add_argument("--only", nargs="+", choices=methods, default=["patchcore"])
    options = parser.parse_args()
    # Where the default backbone lies; both programs import it.
    paths = [str(SHARED / "backbones"), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    return options


if __name__ == "__main__":
    main()
