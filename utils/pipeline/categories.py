"""Categories that a command processes, found and checked before anything heavy is imported."""

from collections.abc import Sequence

from datasets.base import GOOD, Category, DatasetError, Sample
from datasets.inputs import find_items
from datasets.mvtec import find_categories, read_category, read_training
from patchcore.settings import F1_MAX
from utils.options.evaluate import EvaluateOptions
from utils.options.fit import FitOptions
from utils.options.train import TrainOptions


def read_categories(options: EvaluateOptions) -> list[Category]:
    """List the training and test images of each category.

    Raises:
        DatasetError: A folder or mask is missing, or a threshold needs labels that do not exist.
    """
    categories = [read_category(options.path_data, name) for name in _names(options)]
    if options.saves_models:
        _check_thresholds(options, categories)
    return categories


def read_training_categories(options: TrainOptions) -> list[Category]:
    """List the training images of each category, or those at the PATHs.

    Raises:
        DatasetError: A folder or file is missing, or a PATH is a video.
    """
    if not options.paths:
        return [read_training(options.path_data, name) for name in _names(options)]
    samples = []
    for item in find_items(options.paths):
        if item.fault or item.frame is not None:
            raise DatasetError(
                item.fault or f"expected images to learn, found a video: {item.path}"
            )
        samples.append(Sample(item.path, options.category, GOOD))
    return [Category(options.category, tuple(samples), (), has_masks=False)]


def _names(options: FitOptions) -> list[str]:
    return list(dict.fromkeys(options.categories)) or find_categories(options.path_data)


def _check_thresholds(options: EvaluateOptions, categories: Sequence[Category]) -> None:
    """Raise DatasetError if ``f1_max`` is asked for and a category lacks labels for it."""
    for category in categories:
        kinds = {sample.is_defective for sample in category.test}
        if options.threshold == F1_MAX and len(kinds) < 2:
            raise DatasetError(
                f"expected good and defective test images of {category.name} for --threshold "
                f"{F1_MAX}, found one kind only; give train_quantile or a number"
            )
        if options.threshold_pixel == F1_MAX and not (category.has_masks and True in kinds):
            raise DatasetError(
                f"expected masks of defective images of {category.name} for --threshold_pixel "
                f"{F1_MAX}, found none; give train_quantile or a number"
            )
