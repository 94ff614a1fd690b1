"""Small data that the tests make themselves, and the flags that make a run on it quick."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import torch

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
