"""Saving of trained models: from the result of a fit to folders."""

import logging
import math
from collections.abc import Sequence

import numpy as np

from datasets.base import Category
from datasets.depth import Decoding
from patchcore import PatchCore
from patchcore.fit import FitResult
from patchcore.thresholds import BestThresholds, choose_thresholds
from patchcore.trained import Trained
from utils.options.fit import FitOptions
from utils.pipeline.category_result import CategoryResult, Measurement
from utils.pipeline.models import describe_threshold
from utils.pipeline.suspects import SUSPECTS_FILE
from utils.pipeline.trained_models import model_folder

log = logging.getLogger(__name__)


def save_evaluated(
    model: PatchCore, name: str, result: CategoryResult, options: FitOptions
) -> None:
    """Save a model for each percentage of the first seed, and log its verdicts on test images.

    Raises:
        PatchCoreError: a folder cannot be written.
    """
    pairs = result.of_first_seed()
    best = [_best(measurement) for measurement, _ in pairs]
    saved = save_models(
        model,
        name,
        result.category,
        result.learned,
        result.reading.decoding,
        options,
        shots=result.shots,
        best=best,
    )
    for one, (measurement, prediction) in zip(saved, pairs, strict=True):
        _log_test_verdicts(one, measurement, prediction.score, result.category)


def save_models(
    model: PatchCore,
    name: str,
    category: Category,
    learned: FitResult,
    decoding: Decoding,
    options: FitOptions,
    *,
    shots: int | None = None,
    best: Sequence[BestThresholds] = (),
) -> list[Trained]:
    """Save a model for each percentage of the first seed.

    Args:
        model: The method.
        name: Name of the model in the tables.
        category: The category.
        learned: Result of the fit to its training images.
        decoding: How these were decoded.
        options: Options of thresholds and saving.
        shots: Number of training images of a few-shot model, for the folder's name; None for all.
        best: For each percentage, the best thresholds on test images, if measured.

    Returns:
        The saved models.

    Raises:
        PatchCoreError: a folder cannot be written.
    """
    coreset, saved, value_range = learned.first, [], decoding.value_range
    context = learned.context_of(coreset.seed)
    for part, percentage in enumerate(learned.percentages):
        known = best[part] if best else BestThresholds()
        thresholds = choose_thresholds(
            learned.held_out[part],
            known,
            **options.methods(),
            image_rate=options.nominal_fpr,
            pixel_rate=options.nominal_fpr_pixel,
        )
        trained = Trained(
            coreset.part(part),
            learned.held_out[part],
            thresholds,
            known,
            category.name,
            None if value_range is None else value_range.as_json(),
            model.mask,
            context=None if context is None else context.part(part),
        )
        folder = model_folder(
            options.path_trained, category.name, name, percentage, model.settings.k, shots
        )
        replaced = " (it replaces an earlier one)" if folder.exists() else ""
        one = model.with_percentages((percentage,))
        one.trained = trained
        one.save(folder, dtype=options.trained_dtype, faiss_index=options.save_index)
        (folder / SUSPECTS_FILE).unlink(missing_ok=True)  # of the earlier model
        log.info("trained model: %s%s", folder, replaced)
        saved.append(trained)
    return saved


def _best(measurement: Measurement) -> BestThresholds:
    images, pixels = measurement.images.threshold, measurement.pixels.threshold
    return BestThresholds(*(None if math.isnan(value) else value for value in (images, pixels)))


def _log_test_verdicts(
    trained: Trained, measurement: Measurement, scores: np.ndarray, category: Category
) -> None:
    """Log the verdicts on the test images, which by default did not influence the threshold."""
    threshold = trained.thresholds.image
    if threshold is None:
        log.warning(
            "%s: too few training images to set a threshold; infer needs --threshold NUMBER",
            category.name,
        )
        return
    above = scores >= threshold.value
    defective = [sample.is_defective for sample in category.test]
    found = sum(1 for a, d in zip(above, defective, strict=True) if a and d)
    log.info(
        "%s, coreset %s: threshold %s finds %d of %d defective test images, and wrongly %d of %d "
        "good ones",
        category.name,
        measurement.row.setting,
        describe_threshold(threshold, trained),
        found,
        sum(defective),
        int(above.sum()) - found,
        len(defective) - sum(defective),
    )
