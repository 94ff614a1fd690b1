"""How good a backbone is for PatchCore, without a picture of a real defect.

On procedural categories, for which nothing is needed; or on photographs of good products, which
tell backbones apart much as real defects do. Of those a few are held out and blemished.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch

from datasets import synthetic
from datasets.base import DatasetError
from datasets.inputs import Item, find_items
from datasets.synthetic.blemishes import BLEMISHES, blemish
from patchcore import PatchCore
from patchcore.backbone import Backbone
from utils.errors import UsageError
from utils.metrics import auroc

# Seeds of pictures that the demo does not draw: choices are made by these.
FIRST_SEED = 77 << 64
NUM_TRAIN, NUM_TEST_GOOD, NUM_TEST_PER_DEFECT = 24, 10, 8
SEEDS_PER_KIND = 1000

LEAST_PHOTOGRAPHS, MOST_PHOTOGRAPHS = 10, 400
SHARE_TO_LEARN = 0.6
PHOTOGRAPH_SIDE = 256  # pixels: what the default crop is cut from


@dataclass(frozen=True)
class Trial:
    """The pictures of one category.

    Attributes:
        name: Of the category.
        train: (N, H, W, 3) uint8 RGB, all good.
        test: (B, H, W, 3) uint8 RGB.
        masks: (B, H, W) bool, where a test picture is defective.
    """

    name: str
    train: np.ndarray
    test: np.ndarray
    masks: np.ndarray


@dataclass(frozen=True)
class Score:
    """AUROC of one category: of its images, and of its pixels."""

    image: float
    pixel: float


def check_categories(names: Sequence[str]) -> None:
    """Raise UsageError unless all are procedural categories."""
    for name in names:
        if name not in synthetic.CATEGORIES:
            raise UsageError(
                f"expected --categories out of {', '.join(synthetic.CATEGORIES)}, found {name!r}"
            )


def make_trials(
    names: Sequence[str] | None = None, *, first_seed: int = FIRST_SEED, num_workers: int = 1
) -> list[Trial]:
    """Draw procedural categories in memory.

    Args:
        names: Of ``datasets.synthetic``; None for all eight.
        first_seed: Other pictures for another one.
        num_workers: Threads that draw.
    """
    return [_make_trial(n, first_seed, num_workers) for n in names or synthetic.CATEGORIES]


def read_photograph_trial(folder: Path) -> Trial:
    """Read photographs of good products, hold some out, and blemish these.

    Each that is held out is judged as it is, and with two blemishes, each in a picture of its own.

    Args:
        folder: Of image files, in folders in it too; if there are many, only the first of them
            are read.

    Raises:
        UsageError: there are too few, one cannot be read, or no blemish can be seen on one.
    """
    items = list(islice(find_items([str(folder)]), MOST_PHOTOGRAPHS))
    for fault in (item.fault for item in items if item.fault):
        raise UsageError(f"{fault} (--photographs)")
    if len(items) < LEAST_PHOTOGRAPHS:
        raise UsageError(
            f"expected at least {LEAST_PHOTOGRAPHS} photographs in {folder}, found {len(items)} "
            "(--photographs)"
        )
    # As the tables name a folder: not by all of its path.
    name = "/".join(folder.absolute().parts[-3:])
    photographs = _read_square(items)
    try:
        return make_photograph_trial(name, photographs)
    except ValueError as error:
        raise UsageError(f"{error} in {folder} (--photographs)") from error


def make_photograph_trial(name: str, photographs: np.ndarray) -> Trial:
    """Hold out some photographs of good products, and blemish these.

    Args:
        name: Of the trial.
        photographs: (N, S, S, 3) uint8 RGB.
    """
    order = np.random.default_rng(FIRST_SEED).permutation(len(photographs))
    learnt, held_out = np.split(photographs[order], [round(SHARE_TO_LEARN * len(photographs))])
    kinds, num_kinds = tuple(BLEMISHES), len(BLEMISHES)
    blemished = [
        blemish(photo, kinds[(number + second * num_kinds // 2) % num_kinds], seed=number)
        for number, photo in enumerate(held_out)
        for second in range(2)
    ]
    images, masks = (np.stack(parts) for parts in zip(*blemished, strict=True))
    good = np.zeros(held_out.shape[:3], bool)
    return Trial(name, learnt, np.concatenate([held_out, images]), np.concatenate([good, masks]))


def measure_backbone(
    backbone: Backbone,
    trials: Sequence[Trial],
    *,
    percentage_coreset: float = 0.01,
    device: torch.device | str = "cpu",
) -> dict[str, Score]:
    """Measure PatchCore with a backbone, its other settings being the defaults.

    Returns:
        By category.
    """
    model = PatchCore(backbone, percentage_coreset=percentage_coreset, device=device)
    return {trial.name: _measure(model, trial) for trial in trials}


def mean_score(scores: Mapping[str, Score]) -> Score:
    """Return the mean over categories."""
    images, pixels = ([getattr(s, n) for s in scores.values()] for n in ("image", "pixel"))
    return Score(float(np.mean(images)), float(np.mean(pixels)))


def _make_trial(name: str, first_seed: int, num_workers: int) -> Trial:
    good = [(None, first_seed + index) for index in range(NUM_TRAIN + NUM_TEST_GOOD)]
    defective = [
        (defect, first_seed + SEEDS_PER_KIND * kind + index)
        for kind, defect in enumerate(synthetic.CATEGORIES[name].defect_types, start=1)
        for index in range(NUM_TEST_PER_DEFECT)
    ]
    with ThreadPoolExecutor(max(num_workers, 1)) as pool:
        drawn = list(pool.map(lambda s: synthetic.render(name, s[0], seed=s[1]), good + defective))
    images, masks = (np.stack(parts) for parts in zip(*drawn, strict=True))
    return Trial(name, images[:NUM_TRAIN], images[NUM_TRAIN:], masks[NUM_TRAIN:])


def _read_square(items: Sequence[Item]) -> np.ndarray:
    size = (PHOTOGRAPH_SIDE, PHOTOGRAPH_SIDE)
    try:
        return np.stack(
            [cv2.resize(item.read(), size, interpolation=cv2.INTER_AREA) for item in items]
        )
    except DatasetError as error:
        raise UsageError(f"{error} (--photographs)") from error


def _measure(model: PatchCore, trial: Trial) -> Score:
    coreset = model.select(model.embed_all(_crops(model, trial.train), len(trial.train)))
    prediction = model.judge(_crops(model, trial.test), coreset)
    masks = np.stack([model.preprocess.crop_mask(mask) for mask in trial.masks])
    return Score(
        auroc(prediction.score, trial.masks.any(axis=(1, 2))),
        auroc(prediction.anomaly_map.reshape(-1), masks.reshape(-1)),
    )


def _crops(model: PatchCore, images: np.ndarray) -> Iterator[np.ndarray]:
    """Yield batches of cropped images."""
    for first in range(0, len(images), model.batch_size):
        yield np.stack([model.crop(image) for image in images[first : first + model.batch_size]])
