"""The layout of MVTec 3D-AD (Bergmann et al. 2022); its colour images are read, not its depths.

PATH/<category>/train/good/rgb/000.png
PATH/<category>/validation/good/rgb/000.png
PATH/<category>/test/good/rgb/000.png
PATH/<category>/test/<defect type>/rgb/000.png
PATH/<category>/test/<defect type>/gt/000.png
"""

from pathlib import Path

from datasets.base import Category
from datasets.entries import TEST, VALIDATION, ReadOptions
from datasets.listing import category_folder, category_folders, has_folder, list_folders
from datasets.type_folders import read_training, read_types

COLOUR, DEPTHS = "rgb", "xyz"
SPLITS = ("train", "validation", "test")


def match(path: Path) -> str | None:
    """Return an empty text if a folder is in this layout, what it lacks, or None."""
    if category_folders(path, is_category):
        return ""
    depths = category_folders(path, lambda folder: _has(folder, DEPTHS))
    return f"{next(iter(depths))}/train/good/{COLOUR}" if depths else None


def find_categories(path: Path, options: ReadOptions) -> list[str]:
    """Return the names of the categories: folders with ``rgb`` in the folders of types."""
    return sorted(category_folders(path, is_category))


def read_category(path: Path, name: str, options: ReadOptions) -> Category:
    """List the colour images of a category.

    Raises:
        DatasetError: There is no such category, a folder is missing or empty, or a mask is missing.
    """
    root = category_folder(path, name, is_category)
    found = read_training(root / "train", inside=COLOUR)
    if not options.training_only:
        found += read_types(root / "test", TEST, lambda folder: folder / "gt", inside=COLOUR)
        if has_folder(root, "validation"):
            found += read_types(root / "validation", VALIDATION, inside=COLOUR)
    return found.category(root, name, options)


def is_category(folder: Path) -> bool:
    """Return whether a folder is a category in this layout."""
    return _has(folder, COLOUR)


def _has(folder: Path, name: str) -> bool:
    """Return whether a type of any split has a subfolder of this name."""
    return any(has_folder(kind, name) for s in SPLITS for kind in list_folders(folder / s))
