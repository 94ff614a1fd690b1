"""What the procedural images look like in this version of their generator.

`python -m tests.datasets.golden` draws the sheet anew: look at it before committing it, and
increase GENERATOR_VERSION in datasets/synthetic/writing.py.
"""

import tempfile
from pathlib import Path

import cv2
import numpy as np

from datasets.synthetic.categories import CATEGORIES
from datasets.synthetic.writing import GENERATOR_VERSION, write_dataset
from tests.support import write_image

SHEET = Path(__file__).with_name(f"synthetic_version_{GENERATOR_VERSION}.png")
TILE = 32  # what the rounding of another processor changes averages out
# Several images of a defect, and a seed with which each kind of variant occurs among them.
FEW = {"num_train": 1, "num_test_good": 1, "num_test_per_defect": 3, "size": 2 * TILE, "seed": 4}


def draw_sheet(folder: Path) -> np.ndarray:
    """Write a small dataset; return its images and masks as tiles, (H, W, 3) uint8 RGB.

    One row for each category: a training image, a good test image, and for each defect its images
    and a tile with a mask in each channel.
    """
    write_dataset(folder, categories=list(CATEGORIES), **FEW)
    rows = []
    for name, category in CATEGORIES.items():
        root = folder / name
        tiles = [_tile(root / part / "good/000.png") for part in ("train", "test")]
        for defect in category.defect_types:
            tiles += [_tile(file) for file in sorted((root / "test" / defect).iterdir())]
            masks = sorted((root / "ground_truth" / defect).iterdir())
            tiles.append(np.dstack([_tile(file)[..., 0] for file in masks]))
        rows.append(np.hstack(tiles))
    return np.vstack(rows)


def _tile(file: Path) -> np.ndarray:
    image = cv2.imread(str(file), cv2.IMREAD_COLOR_RGB)
    return cv2.resize(image, (TILE, TILE), interpolation=cv2.INTER_AREA)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        print(write_image(SHEET, draw_sheet(Path(temporary))))
