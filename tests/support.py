"""Small data that the tests make themselves, quick runs on it, and what these leave behind."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from unittest import mock

import cv2
import numpy as np
import torch

import main

ROOT = Path(main.__file__).parent

SIDE = 64  # pixels
NUM_TRAIN = 6
NUM_TEST_PER_TYPE = 2
DEFECT_TYPES = ("hole", "stain")
TEST_TYPES = ("good", *DEFECT_TYPES)
COLOURS = {"hole": (0, 0, 0), "stain": (230, 40, 200)}

# Features of a small network without training: what they find does not matter, that they are
# there in a fraction of a second does.
QUICK_NETWORK = "squeezenet1_1"
QUICK = {
    "--backbone": (QUICK_NETWORK,),
    "--layers": ("features.3", "features.6"),
    "--weights": ("random",),
    "--size_resize": ("72",),
    "--size_crop": ("64",),
    "--embed_dim": ("64",),
    "--pictures": ("none",),
}
NUM_PATCHES = 15 * 15  # of an image


def quick(*flags: str) -> list[str]:
    """Return the flags of a quick run; those that are given replace the ones of the same name."""
    kept = [word for name in QUICK if name not in flags for word in (name, *QUICK[name])]
    return [*kept, *flags]


def call(*arguments: object) -> int:
    """Run the program within this process, as quickly as small data allow; return its status."""
    with one_thread():
        return main.main([str(argument) for argument in arguments])


def evaluate(data: Path, result: Path, flags: str = "", *, plots: bool = False) -> Path:
    """Evaluate with a small network; return the result folder.

    Args:
        data: For ``--path_data``.
        result: For ``--path_result``.
        flags: More of them, as a user types them.
        plots: Whether curves and score distributions are drawn, which take half of a quick run.
    """
    arguments = quick("--path_data", str(data), "--path_result", str(result), *flags.split())
    with nullcontext() if plots else without_plots():
        assert call(*arguments) == 0
    return result


def start(*arguments: str) -> subprocess.CompletedProcess:
    """Run the program as users do."""
    return subprocess.run(
        [sys.executable, str(ROOT / "main.py"), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )


def read_table(path: Path) -> list[dict[str, str]]:
    """Read a CSV file; of a result folder its ``results.csv``."""
    file_path = path / "results.csv" if path.is_dir() else path
    with file_path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_run(folder: Path) -> dict:
    """Read the ``run.json`` of a result folder."""
    return json.loads((folder / "run.json").read_text(encoding="utf-8"))


def read_maps(folder: Path, row: dict[str, str]) -> dict[str, np.ndarray]:
    """Read what ``--save_maps`` wrote for a row of ``results.csv``."""
    per_mille = round(float(row["percentage_coreset"]) * 1000)
    name = f"maps_{row['category']}_{row['model']}_p{per_mille:04d}_k{int(row['k']):02d}"
    with np.load(folder / f"{name}_seed{row['seed']}.npz", allow_pickle=False) as arrays:
        return dict(arrays)


def names(folder: Path, pattern: str = "*.*") -> set[str]:
    """Return the names of a folder's files that match."""
    return {file.name for file in folder.glob(pattern)}


def write_image(path: Path, image: np.ndarray) -> Path:
    """Write (H, W) or (H, W, 3) RGB in the format that the name says, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = image[:, :, ::-1] if image.ndim == 3 else image
    written, data = cv2.imencode(path.suffix, stored)
    assert written
    data.tofile(path)
    return path


def make_category(root: Path, name: str = "widget", *, seed: int = 0) -> Path:
    """Write a category in MVTec AD's layout: noise that is normal, and squares that are not."""
    rng = np.random.default_rng(seed)
    folder = root / name

    def normal() -> np.ndarray:
        return rng.integers(90, 160, (SIDE, SIDE, 3), dtype=np.uint8)

    for index in range(NUM_TRAIN):
        write_image(folder / f"train/good/{index:03d}.png", normal())
    for index in range(NUM_TEST_PER_TYPE):
        write_image(folder / f"test/good/{index:03d}.png", normal())
        for defect_type in DEFECT_TYPES:
            image, mask = normal(), np.zeros((SIDE, SIDE), np.uint8)
            square = np.s_[20 + 8 * index : 36 + 8 * index, 16:40]
            image[square], mask[square] = COLOURS[defect_type], 255
            write_image(folder / f"test/{defect_type}/{index:03d}.png", image)
            write_image(folder / f"ground_truth/{defect_type}/{index:03d}_mask.png", mask)
    return folder


def make_data(root: Path) -> Path:
    """Write two categories, ``gadget`` and ``widget``."""
    make_category(root, "gadget", seed=1)
    make_category(root, "widget")
    return root


def truncate(path: Path) -> Path:
    """Cut off the second half of a file."""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    return path


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute in one thread: for small data the quickest, most so on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def without_plots() -> Iterator[None]:
    """Leave out the curves, and leave the score distributions empty."""
    empty = np.full((2, 2, 3), 255, np.uint8)
    with (
        mock.patch("utils.pipeline.evaluation.draw_curves"),
        mock.patch("utils.pipeline.pictures.draw_score_distribution", return_value=empty),
    ):
        yield
