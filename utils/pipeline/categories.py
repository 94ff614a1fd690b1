"""Categories that a command processes, found and checked before anything heavy is imported."""

from collections.abc import Sequence

from datasets.base import Category, DatasetError
from datasets.layouts import layout_of
from patchcore.settings import F1_MAX
from utils.options.data import DataOptions
from utils.options.evaluate import EvaluateOptions


def read_categories(options: EvaluateOptions) -> list[Category]:
    """List the training and test images of each category.

    Raises:
        DatasetError: A folder or mask is missing, or a threshold needs labels that do not exist.
    """
    layout = layout_of(options.path_data)
    categories = [layout.read_category(options.path_data, n) for n in category_names(options)]
    if options.saves_models:
        _check_thresholds(options, categories)
    return categories


def category_names(options: DataOptions) -> list[str]:
    """Return the names of ``--categories``, without duplicates; by default of all in the dataset.

    Raises:
        DatasetError: The folder is missing or has no category.
    """
    given = list(dict.fromkeys(options.categories))
    return given or layout_of(options.path_data).find_categories(options.path_data)


def _check_thresholds(options: EvaluateOptions, categories: Sequence[Category]) -> None:
    """Raise DatasetError if ``f1_max`` is requested and a category has no labels for it."""
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
