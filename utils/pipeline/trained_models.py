"""Trained models on disk: how they are made, where they are kept, and how one is found.

trained/<category>/<backbone>_p0100_k01/
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from datasets.base import Category, DatasetError
from patchcore import PatchCore
from patchcore.fit import FitResult
from patchcore.record import RECORD, read_record
from patchcore.storage import write_folder
from patchcore.thresholds import F1_MAX, BestThresholds, Thresholds, choose_thresholds
from patchcore.trained import Trained
from utils.errors import UsageError
from utils.options.model_choice import ModelChoice
from utils.options.fit import FitOptions
from utils.options.thresholds import read_threshold
from utils.pipeline.evaluate_category import CategoryResult, Measurement
from utils.results import picture_tag

log = logging.getLogger(__name__)


def check_thresholds(options: FitOptions, categories: Sequence[Category]) -> None:
    """Check that the requested thresholds can be set, before anything is computed.

    Raises:
        DatasetError: ``f1_max`` is requested, and a category has no labelled images or masks.
    """
    for category in categories if options.saves_models else ():
        kinds = {sample.is_defective for sample in category.test}
        if options.threshold == F1_MAX and len(kinds) < 2:
            raise DatasetError(
                f"expected good and defective test images of {category.name} for --threshold "
                f"{F1_MAX}, found one kind only; take train_quantile or a number"
            )
        if options.threshold_pixel == F1_MAX and not (category.has_masks and True in kinds):
            raise DatasetError(
                f"expected masks of defective images of {category.name} for --threshold_pixel "
                f"{F1_MAX}, found none; take train_quantile or a number"
            )


def save_evaluated(
    model: PatchCore, name: str, result: CategoryResult, options: FitOptions
) -> None:
    """Save a model for each percentage of the first seed, and log how its threshold does.

    Raises:
        PatchCoreError: a folder cannot be written.
    """
    pairs = result.of_first_seed()
    best = [_best(measurement) for measurement, _ in pairs]
    for one, (measurement, prediction) in zip(
        save_models(model, name, result.category, result.learned, options, best), pairs, strict=True
    ):
        _log_test_verdicts(one.thresholds, measurement, prediction.score, result.category)


def save_models(
    model: PatchCore,
    name: str,
    category: Category,
    learned: FitResult,
    options: FitOptions,
    best: Sequence[BestThresholds] = (),
) -> list[Trained]:
    """Save a model for each percentage of the first seed.

    Args:
        model: The method.
        name: Name of the model in the tables.
        category: The category that was learned.
        learned: What was learned of its training images.
        options: Where and how to save.
        best: For each percentage, the best thresholds on test images, if measured.

    Returns:
        What was saved.

    Raises:
        PatchCoreError: a folder cannot be written.
    """
    coreset, saved = learned.first, []
    for part, percentage in enumerate(learned.percentages):
        known = best[part] if best else BestThresholds()
        thresholds = choose_thresholds(
            learned.held_out[part],
            known,
            image=read_threshold(options.threshold, "threshold"),
            pixel=read_threshold(options.threshold_pixel, "threshold_pixel"),
            image_rate=options.nominal_fpr,
            pixel_rate=options.nominal_fpr_pixel,
        )
        trained = Trained(
            coreset.of_size(coreset.sizes[part]),
            learned.held_out[part],
            thresholds,
            known,
            category.name,
        )
        folder = model_folder(
            options.path_trained, category.name, name, percentage, model.settings.k
        )
        settings = replace(model.settings, percentage_coreset=(percentage,))
        write_folder(
            folder,
            trained,
            settings,
            model.backbone,
            dtype=options.trained_dtype,
            faiss_index=options.save_index,
        )
        log.info("trained model: %s", folder)
        saved.append(trained)
    return saved


def model_folder(root: Path, category: str, name: str, percentage: float, k: int) -> Path:
    """Return the folder of a trained model."""
    return root / category / f"{name.replace(':', '-')}_{picture_tag(percentage, k)}"


def load_model(choice: ModelChoice, device: torch.device, batch_size: int = 8) -> PatchCore:
    """Find and load the trained model that the flags choose.

    Args:
        choice: The flags.
        device: Device of the computation.
        batch_size: Number of images at a time.

    Raises:
        UsageError: no model fits, or several do.
        PatchCoreError: the model cannot be loaded.
    """
    path = find_model(choice)
    model = PatchCore.load(
        path,
        backbone=choice.backbone if ":" in choice.backbone else None,
        weights=choice.weights or None,
        device=device,
        batch_size=batch_size,
    )
    log.info("model: %s", path)
    return model


def find_model(choice: ModelChoice) -> Path:
    """Find the folder of the one trained model that the flags choose.

    Raises:
        UsageError: no model fits, or several do.
        PatchCoreError: a record cannot be read.
    """
    root = choice.path_trained
    folders = sorted(path.parent for path in root.rglob(RECORD) if "/." not in path.as_posix())
    if not folders:
        found = "none" if root.is_dir() else "no such folder"
        raise UsageError(
            f"expected trained models in {root}, found {found} (--path_trained); python main.py "
            "train makes them, and evaluate with --path_trained"
        )
    records = {folder: read_record(folder) for folder in folders}
    wanted = {name: getattr(choice, name) for name in _CHOICES if getattr(choice, name)}
    fitting = [
        folder
        for folder, record in records.items()
        if all(_value(record, name) == value for name, value in wanted.items())
    ]
    if len(fitting) == 1:
        return fitting[0]
    asked = " ".join(f"--{name} {value}" for name, value in wanted.items()) or "no flag"
    listed = "\n  ".join(_flags_of(records[folder]) for folder in fitting or folders)
    raise UsageError(
        f"expected one trained model in {root}, found {len(fitting)} by {asked}; there are:\n"
        f"  {listed}"
    )


# The flags that choose a trained model.
_CHOICES = ("category", "backbone", "percentage_coreset")


def _value(record: dict, name: str) -> object:
    if name == "category":
        return record.get("category")
    if name == "backbone":
        return record.get("backbone", {}).get("name")
    return record.get("settings", {}).get("percentage_coreset", [None])[-1]


def _flags_of(record: dict) -> str:
    """Return the flags that choose a model."""
    return " ".join(f"--{name} {_value(record, name)}" for name in _CHOICES)


def _best(measurement: Measurement) -> BestThresholds:
    images, pixels = measurement.images.threshold, measurement.pixels.threshold
    return BestThresholds(*(None if math.isnan(value) else value for value in (images, pixels)))


def _log_test_verdicts(
    thresholds: Thresholds, measurement: Measurement, scores, category: Category
) -> None:
    """Log how the threshold does on the test images, which by default had no part in it."""
    threshold = thresholds.image
    if threshold is None:
        log.warning(
            "%s: too few training images to set a threshold; infer needs --threshold NUMBER",
            category.name,
        )
        return
    above = scores >= threshold.value
    defective = [sample.is_defective for sample in category.test]
    found = sum(1 for a, d in zip(above, defective, strict=True) if a and d)
    rate = "" if threshold.rate is None else f", nominal rate {threshold.rate:.2%}"
    log.info(
        "%s, coreset %g %%: threshold %.4g (%s%s) finds %d of %d defective test images, and %d of "
        "%d good ones",
        category.name,
        100 * measurement.row.percentage_coreset,
        threshold.value,
        threshold.method,
        rate,
        found,
        sum(defective),
        int(above.sum()) - found,
        len(defective) - sum(defective),
    )
