"""From options to models on their device."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from datasets.base import Category
from datasets.masks import read_mask
from patchcore import PatchCore
from patchcore.fit import check_sizes
from patchcore.settings import is_own_network
from patchcore.thresholds import Threshold
from patchcore.trained import Trained
from patchcore.weights import load_backbone_for
from utils.errors import UsageError, first_line
from utils.options.fit import FitOptions
from utils.options.ignoring import IgnoringOptions
from utils.options.model_choice import ModelChoice
from utils.results import numbered

log = logging.getLogger(__name__)


def choose_device(name: str) -> torch.device:
    """Return the device of ``--device``.

    Args:
        name: Name of a torch device, or ``auto``: the GPU if there is one, else the CPU.

    Raises:
        UsageError: the device is not available.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    reason = "torch does not find it"
    try:
        device = torch.device(name)
        if device.type == "cuda":
            has_gpus = torch.cuda.is_available()
            is_available = has_gpus and (device.index or 0) < torch.cuda.device_count()
        else:
            is_available = torch.ones(1, device=device).item() == 1
    except (RuntimeError, AssertionError) as error:  # torch raises either, depending on the type
        is_available = False
        reason = first_line(error)
    if not is_available:
        raise UsageError(
            f"expected an available device, found {name} ({reason}; --device): --device auto "
            "selects the GPU if there is one, else the CPU"
        )
    return device


def with_layers(options: FitOptions, models: Mapping[str, PatchCore]) -> FitOptions:
    """Return the options with the layers of the models where none were given."""
    if options.layers:
        return options
    layers = tuple(model.backbone.layers for model in models.values())
    return replace(options, layers=layers[:1] if len(set(layers)) == 1 else layers)


def make_models(
    options: FitOptions, device: torch.device, categories: Sequence[Category]
) -> dict[str, PatchCore]:
    """Load the backbones and build the models, by their names in the tables.

    Raises:
        PatchCoreError: a backbone cannot be loaded, or a category is too small for the settings.
    """
    settings, mask = options.settings(), read_ignore_mask(options)
    _report_few_images(options, categories)
    models: dict[str, PatchCore] = {}
    for member in options.members():
        start = time.perf_counter()
        backbone = load_backbone_for(settings, member.backbone, member.layers, member.weights)
        count = sum(name.partition("#")[0] == member.backbone for name in models)
        name = f"{member.backbone}#{count + 1}" if count else member.backbone
        models[name] = model = PatchCore.of(backbone, settings, device=device, ignore_mask=mask)
        log.debug(
            "%s: layers %s, weights %s (digest %.12s), loaded in %.1f s",
            name,
            " ".join(backbone.layers),
            backbone.weights,
            backbone.weights_digest,
            time.perf_counter() - start,
        )
        # Checked before the first one is embedded, unless such categories are skipped then.
        for category in () if options.skips else categories:
            num_images = min(options.shot_counts[0] or len(category.train), len(category.train))
            check_sizes(
                model.embedder,
                model.scorer,
                model.context,
                num_images,
                settings.percentage_coreset,
            )
    return models


def _report_few_images(options: FitOptions, categories: Sequence[Category]) -> None:
    """Warn about categories with fewer training images than ``--shots``."""
    wanted = max(options.shots, default=0)
    few = [f"{c.name} ({len(c.train)})" for c in categories if len(c.train) < wanted]
    if few:
        log.warning(
            "expected at least %d training images (--shots), found fewer in %s: all are used",
            wanted,
            ", ".join(few),
        )


def load_model(
    folder: Path,
    choice: ModelChoice,
    device: torch.device,
    batch_size: int = 8,
    ignore_mask: np.ndarray | None = None,
) -> PatchCore:
    """Load a trained model.

    Args:
        folder: Folder of the model.
        choice: Backbone and weights that replace the recorded ones.
        device: Device of the computation.
        batch_size: Number of images at a time.
        ignore_mask: (H, W) bool, True where images are not judged, in addition to what the model
            ignores.

    Raises:
        PatchCoreError: the model cannot be loaded.
    """
    start = time.perf_counter()
    model = PatchCore.load(
        folder,
        backbone=choice.backbone if is_own_network(choice.backbone) else None,
        weights=choice.weights or None,
        device=device,
        batch_size=batch_size,
        ignore_mask=ignore_mask,
    )
    log.info("model: %s", folder)
    log.debug("loaded in %.1f s", time.perf_counter() - start)
    return model


def read_ignore_mask(options: IgnoringOptions) -> np.ndarray | None:
    """Return the mask of ``--ignore_mask``, (H, W) bool; None without one.

    Raises:
        DatasetError: the file is not an image.
    """
    return read_mask(Path(options.ignore_mask)) if options.ignore_mask else None


def describe_ignored(model: PatchCore) -> str:
    """Return the share of the image that a model ignores, in words; empty if none."""
    ignored = model.scorer.ignored
    if ignored is None:
        return ""
    return (
        f"{100 * ignored.pixels.mean():.1f} % of each image is ignored (--ignore_mask): neither "
        "learned nor judged"
    )


def log_ignored(model: PatchCore) -> None:
    """Log the share of the image that a model ignores, if there is any."""
    if ignored := describe_ignored(model):
        log.info("%s", ignored)


def describe_threshold(threshold: Threshold, trained: Trained) -> str:
    """Return the value of a model's threshold of images, how it was set, and its rate."""
    rate, held_out = threshold.rate, trained.held_out
    how = threshold.method
    if rate is not None:
        how += f", nominal false-positive rate {100 * rate:.2f} %"
        num_scored = 0 if held_out is None else len(held_out.images)
        if num_scored and rate <= 1 / (num_scored + 1):
            images = numbered(num_scored, "scored training image")
            how += f", the lowest that {images} can give"
    return f"{threshold.value:.4g} ({how})"


def first_of(models: Mapping[str, PatchCore]) -> PatchCore:
    """Return the first model of a run, for properties that all models share."""
    return next(iter(models.values()))


def print_summaries(models: Mapping[str, PatchCore]) -> None:
    """Print torchinfo's summary of each cut backbone."""
    import torchinfo

    for model in models.values():
        size = (1, 3, *model.backbone.size)
        dtypes = [next(model.backbone.parameters()).dtype]
        print(
            torchinfo.summary(
                model.backbone, size, dtypes=dtypes, depth=3, device=model.device, verbose=0
            )
        )
