"""The layout of MVTec AD (Bergmann et al. 2021), and of MPDD, BTAD, VAD, AutoVI and others.

PATH/<category>/train/good/000.png
PATH/<category>/test/good/000.png
PATH/<category>/test/<defect type>/000.png
PATH/<category>/ground_truth/<defect type>/000_mask.png, or 000.png, or 000/<any>.png

The good folder may have another usual name, such as ``ok`` of BTAD. PATH may be the folder of one
category. Defective training images, as VAD has them, are not used.
"""

from pathlib import Path

from datasets.base import Category
from datasets.entries import TEST, ReadOptions
from datasets.listing import category_folder, category_folders, has_folder
from datasets.type_folders import Found, read_training, read_types


def match(path: Path) -> str | None:
    """Return an empty text if a folder is in this layout, else None."""
    return "" if category_folders(path, is_category) else None


def find_categories(path: Path, options: ReadOptions) -> list[str]:
    """Return the names of the categories: folders with a subfolder ``train`` or ``test``."""
    return sorted(category_folders(path, is_category))


def read_category(path: Path, name: str, options: ReadOptions) -> Category:
    """List the images of a category.

    A category without a folder ``ground_truth`` has no masks. With this folder, every defective
    image must have a mask.

    Raises:
        DatasetError: There is no such category, a folder is missing or empty, or a mask is missing.
    """
    root = category_folder(path, name, is_category)
    return read_splits(root, options).category(root, name, options)


def read_splits(root: Path, options: ReadOptions) -> Found:
    """List the training images, and the test images if they are to be read, of a category."""
    found = read_training(root / "train")
    if options.training_only:
        return found
    truth = root / "ground_truth"
    return found + read_types(
        root / "test", TEST, lambda folder: truth / folder.name if truth.is_dir() else None
    )


def is_category(folder: Path) -> bool:
    """Return whether a folder is a category in this layout."""
    return has_folder(folder, "train") or has_folder(folder, "test")
