"""Categories that a command processes, found and checked before anything heavy is imported."""

from collections.abc import Callable, Sequence
from functools import partial

from datasets.base import Category, DatasetError
from datasets.entries import ReadOptions
from datasets.layouts import Dataset, open_dataset
from patchcore.settings import F1_MAX
from utils.errors import named_flag
from utils.options.evaluate import EvaluateOptions
from utils.options.fit import FitOptions
from utils.pipeline.skipping import Skipping


def read_categories(options: EvaluateOptions, skipping: Skipping) -> list[Category]:
    """List the training and test images of each category.

    Args:
        options: The data, and the thresholds, which may need labels.
        skipping: Skips categories that cannot be used.

    Raises:
        DatasetError: A folder or mask is missing, or a threshold needs labels that do not exist.
    """
    dataset = open_data(options)

    def read(name: str) -> Category:
        category = dataset.read_category(name)
        if options.saves_models:
            _check_thresholds(options, category)
        return category

    return _read_each(category_names(options, dataset), read, skipping)


def read_training(options: FitOptions, skipping: Skipping) -> list[Category]:
    """List the training images of each category; no test image need exist.

    Args:
        options: The data.
        skipping: Skips categories that cannot be used.

    Raises:
        DatasetError: A folder is missing, or a category has no training images.
    """
    dataset = open_data(options)
    return _read_each(category_names(options, dataset), dataset.read_training, skipping)


def _read_each(
    names: Sequence[str], read: Callable[[str], Category], skipping: Skipping
) -> list[Category]:
    """Read all categories, without those that are skipped.

    Raises:
        DatasetError: None is left.
    """
    with named_flag("--path_data, --normal_dir, --abnormal_dir, --mask_dir"):
        found = [skipping.attempt(name, partial(read, name)) for name in names]
    categories = [category for category in found if category is not None]
    if not categories:
        raise DatasetError(skipping.describe_none())
    return categories


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
    with named_flag("--path_data"):
        return open_dataset(options.path_data, options.dataset, reading)


def category_names(options: FitOptions, dataset: Dataset) -> list[str]:
    """Return the names of ``--categories``, without duplicates; by default of all in the dataset.

    Raises:
        DatasetError: The dataset has no category.
    """
    with named_flag("--path_data"):
        return list(dict.fromkeys(options.categories)) or dataset.find_categories()


def _check_thresholds(options: EvaluateOptions, category: Category) -> None:
    """Raise DatasetError if ``f1_max`` is requested and a category has no labels for it."""
    kinds = {sample.is_defective for sample in category.test}
    if options.threshold == F1_MAX and len(kinds) < 2:
        raise DatasetError(
            f"expected good and defective test images of {category.name} for --threshold "
            f"{F1_MAX}, found only one of the two; give train_quantile or a number"
        )
    if options.threshold_pixel == F1_MAX and not category.has_masks:
        raise DatasetError(
            f"expected masks of defective images of {category.name} for --threshold_pixel "
            f"{F1_MAX}, found none; give train_quantile or a number"
        )
