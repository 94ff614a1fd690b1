"""Categories that a command processes, found and checked before anything heavy is imported."""

from collections.abc import Sequence

from datasets.base import Category, DatasetError
from datasets.entries import ReadOptions
from datasets.layouts import Dataset, open_dataset
from patchcore.settings import F1_MAX
from utils.options.evaluate import EvaluateOptions
from utils.options.fit import FitOptions


def read_categories(options: EvaluateOptions) -> list[Category]:
    """List the training and test images of each category.

    Raises:
        DatasetError: A folder or mask is missing, or a threshold needs labels that do not exist.
    """
    dataset = open_data(options)
    categories = [dataset.read_category(name) for name in category_names(options, dataset)]
    if options.saves_models:
        _check_thresholds(options, categories)
    return categories


def read_training(options: FitOptions) -> list[Category]:
    """List the training images of each category; no test image need exist.

    Raises:
        DatasetError: A folder is missing, or a category has no training images.
    """
    dataset = open_data(options)
    return [dataset.read_training(name) for name in category_names(options, dataset)]


def open_data(options: FitOptions) -> Dataset:
    """Find the layout of ``--path_data``.

    Raises:
        DatasetError: The path is missing, or no layout fits.
    """
    reading = ReadOptions(
        holdout=options.holdout,
        seed=options.seed[0],
        normal_dir=options.normal_dir,
        abnormal_dir=options.abnormal_dir,
        mask_dir=options.mask_dir,
    )
    return open_dataset(options.path_data, options.dataset, reading)


def category_names(options: FitOptions, dataset: Dataset) -> list[str]:
    """Return the names of ``--categories``, without duplicates; by default of all in the dataset.

    Raises:
        DatasetError: The dataset has no category.
    """
    return list(dict.fromkeys(options.categories)) or dataset.find_categories()


def _check_thresholds(options: EvaluateOptions, categories: Sequence[Category]) -> None:
    """Raise DatasetError if ``f1_max`` is requested and a category has no labels for it."""
    for category in categories:
        kinds = {sample.is_defective for sample in category.test}
        if options.threshold == F1_MAX and len(kinds) < 2:
            raise DatasetError(
                f"expected good and defective test images of {category.name} for --threshold "
                f"{F1_MAX}, found one kind only; give train_quantile or a number"
            )
        if options.threshold_pixel == F1_MAX and not category.has_masks:
            raise DatasetError(
                f"expected masks of defective images of {category.name} for --threshold_pixel "
                f"{F1_MAX}, found none; give train_quantile or a number"
            )
