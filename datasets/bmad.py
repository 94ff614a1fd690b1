"""The layout of BMAD (Bao et al. 2024), six medical datasets.

PATH/<category>/train/good/1000.png
PATH/<category>/valid/good/1080.png, valid/Ungood/1000.png
PATH/<category>/test/good/1000.png, test/Ungood/100.png

Categories with masks have a folder ``img`` below ``good`` and ``Ungood``, and masks of the same
names in ``Ungood/label``.
"""

from pathlib import Path

from datasets.base import Category
from datasets.entries import TEST, VALIDATION, ReadOptions
from datasets.listing import category_folder, category_folders, has_folder, list_folders
from datasets.type_folders import read_training, read_types

DEFECTIVE = "Ungood"


def match(path: Path) -> str | None:
    """Return an empty text if a folder is in this layout, else None."""
    return "" if category_folders(path, is_category) else None


def find_categories(path: Path, options: ReadOptions) -> list[str]:
    """Return the names of the categories: folders with a test set ``good`` and ``Ungood``."""
    return sorted(category_folders(path, is_category))


def read_category(path: Path, name: str, options: ReadOptions) -> Category:
    """List the images of a category.

    Raises:
        DatasetError: There is no such category, a folder is missing or empty, or a mask is missing.
    """
    root = category_folder(path, name, is_category)
    inside = "img" if any(has_folder(f, "img") for f in list_folders(root / "train")) else ""
    found = read_training(root / "train", inside=inside)
    if not options.training_only:
        found += read_types(root / "test", TEST, _masks_of, inside=inside)
        if has_folder(root, "valid"):
            found += read_types(root / "valid", VALIDATION, inside=inside)
    return found.category(root, name, options)


def is_category(folder: Path) -> bool:
    """Return whether a folder is a category in this layout."""
    return has_folder(folder / "test", DEFECTIVE)


def _masks_of(folder: Path) -> Path | None:
    return folder / "label" if has_folder(folder, "label") else None
