"""From what was learned to the trained models that are kept."""

import logging
import math
from collections.abc import Sequence

from datasets.base import Category, DatasetError
from patchcore import PatchCore
from patchcore.storage import write_folder
from patchcore.thresholds import F1_MAX, BestThresholds, Thresholds, choose_thresholds
from patchcore.trained import Trained
from utils.options import Options
from utils.pipeline.evaluate_category import CategoryResult, Measurement
from utils.pipeline.fit import Learned
from utils.pipeline.trained_models import model_folder
from utils.thresholds import read_threshold

log = logging.getLogger(__name__)


def check_thresholds(options: Options, categories: Sequence[Category]) -> None:
    """Tell before anything is computed whether the asked thresholds can be set.

    Raises:
        DatasetError: ``f1_max`` is asked for, and a category has no labelled images or masks.
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


def save_models(model: PatchCore, name: str, result: CategoryResult, options: Options) -> None:
    """Keep what was learned of a category, one model for each percentage of the first seed.

    Args:
        model: The method.
        name: What the tables call it.
        result: With what was learned.
        options: The run's.

    Raises:
        PatchCoreError: a folder cannot be written.
    """
    if not options.saves_models:
        return
    of_seed = result.measurements[: len(model.percentages)]
    trained = trained_models(model, result.category, result.learned, options, of_seed)
    for one, measurement in zip(trained, of_seed, strict=True):
        _report(one.thresholds, measurement, result.category)
    write_models(model, name, trained, options)


def trained_models(
    model: PatchCore,
    category: Category,
    learned: Learned,
    options: Options,
    measurements: Sequence[Measurement] = (),
) -> list[Trained]:
    """Return what was learned for each percentage of the first seed.

    Args:
        model: The method.
        category: Its samples.
        learned: Of its training images.
        options: The run's.
        measurements: On test images, one of each percentage, where there are such.
    """
    coreset = learned.cells[0].coreset
    models = []
    for number, (size, held_out) in enumerate(zip(coreset.sizes, learned.held_out, strict=True)):
        best = _best(measurements[number]) if measurements else BestThresholds()
        thresholds = choose_thresholds(
            held_out,
            best,
            image=read_threshold(options.threshold, "threshold"),
            pixel=read_threshold(options.threshold_pixel, "threshold_pixel"),
            image_rate=options.nominal_fpr,
            pixel_rate=options.nominal_fpr_pixel,
        )
        patches = learned.coreset_patches
        models.append(
            Trained(
                coreset=coreset.of_size(size),
                origins=learned.origins,
                held_out=held_out,
                thresholds=thresholds,
                names=tuple(str(sample.path) for sample in category.train),
                best=best,
                patches=None if patches is None else patches[:size],
                category=category.name,
            )
        )
    return models


def write_models(model: PatchCore, name: str, trained: Sequence[Trained], options: Options) -> None:
    """Write one folder for each percentage."""
    for one, percentage in zip(trained, model.percentages, strict=True):
        folder = model_folder(options.path_trained, one.category, name, percentage, model.k)
        write_folder(
            folder,
            model,
            one,
            percentages=[percentage],
            dtype=options.trained_dtype,
            faiss_index=options.save_index,
        )
        log.info("trained model: %s", folder)


def _best(measurement: Measurement) -> BestThresholds:
    images, pixels = measurement.images.threshold, measurement.pixels.threshold
    return BestThresholds(*(None if math.isnan(value) else value for value in (images, pixels)))


def _report(thresholds: Thresholds, measurement: Measurement, category: Category) -> None:
    """Say how the threshold does on the test images, which had no part in it by default."""
    if thresholds.image is None:
        log.warning(
            "%s: too few training images to set a threshold; infer needs --threshold NUMBER",
            category.name,
        )
        return
    above = measurement.prediction.score >= thresholds.image.value
    defective = [sample.is_defective for sample in category.test]
    found = sum(1 for a, d in zip(above, defective, strict=True) if a and d)
    false = int(above.sum()) - found
    kept = "" if thresholds.image.rate is None else f", nominal rate {thresholds.image.rate:.2%}"
    log.info(
        "%s, coreset %g %%: threshold %.4g (%s%s) finds %d of %d defective test images, and %d of "
        "%d good ones",
        category.name,
        100 * measurement.row.percentage_coreset,
        thresholds.image.value,
        thresholds.image.method,
        kept,
        found,
        sum(defective),
        false,
        len(defective) - sum(defective),
    )
