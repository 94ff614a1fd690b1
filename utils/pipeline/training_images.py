"""Training images again, for explanations."""

from functools import lru_cache
from pathlib import Path

import numpy as np

from datasets.base import DatasetError
from datasets.images import read_image
from patchcore.model import FLIPS
from patchcore.preprocess import Preprocess

# Explanations of a category come back to the same ones.
TRAINING_IMAGES_KEPT = 64


@lru_cache(maxsize=TRAINING_IMAGES_KEPT)
def read_training_image(path: Path, flip: str, preprocess: Preprocess) -> np.ndarray | None:
    """Read a training image as the model saw it: (H, W, 3) uint8; None where it is gone."""
    try:
        image = preprocess.crop_image(read_image(path))
    except DatasetError:
        return None
    return np.flip(image, FLIPS[flip] - 1) if flip else image
