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
# The sensor noise averages out in a tile, and how a library rounds a pixel does not show.
TILE = 32
FEW = {"num_train": 1, "num_test_good": 1, "num_test_per_defect": 1, "size": 4 * TILE, "seed": 1}


def draw_sheet(folder: Path) -> np.ndarray:
    """Write a small dataset; return its images and masks as tiles, (H, W, 3) uint8.

    One row for each category: a training image, a good test image, and each defect with its mask.
    """
    write_dataset(folder, categories=list(CATEGORIES), **FEW)
    rows = []
    for name, category in CATEGORIES.items():
        files = [folder / name / part / "good/000.png" for part in ("train", "test")]
        for defect in category.defect_types:
            files.append(folder / name / "test" / defect / "000.png")
            files.append(folder / name / "ground_truth" / defect / "000_mask.png")
        images = [cv2.imread(str(file), cv2.IMREAD_COLOR_RGB) for file in files]
        tiles = [cv2.resize(i, (TILE, TILE), interpolation=cv2.INTER_AREA) for i in images]
        rows.append(np.hstack(tiles))
    return np.vstack(rows)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        print(write_image(SHEET, draw_sheet(Path(temporary))))
