"""How good a backbone is for PatchCore, on procedural categories: no data set needed."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from datasets import synthetic
from patchcore import PatchCore
from patchcore.backbone import Backbone
from utils.metrics import auroc

# Seeds of pictures that the demo does not draw: choices are made by these.
FIRST_SEED = 77 << 64
NUM_TRAIN, NUM_TEST_GOOD, NUM_TEST_PER_DEFECT = 24, 10, 8
SEEDS_PER_KIND = 1000


@dataclass(frozen=True)
class Trial:
    """The pictures of one procedural category.

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


def measure_backbone(
    backbone: Backbone, trials: Sequence[Trial], *, percentage_coreset: float = 0.01
) -> dict[str, Score]:
    """Measure PatchCore with a backbone, its other settings being the defaults.

    Returns:
        By category.
    """
    return {trial.name: _measure(backbone, trial, percentage_coreset) for trial in trials}


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


def _measure(backbone: Backbone, trial: Trial, percentage_coreset: float) -> Score:
    model = PatchCore(backbone, percentage_coreset=percentage_coreset)
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
