"""The layout of MVTec AD (Bergmann et al. 2021), and of MPDD, BTAD, VAD, AutoVI and others.

PATH/<category>/train/good/000.png
PATH/<category>/test/good/000.png
PATH/<category>/test/<defect type>/000.png
PATH/<category>/ground_truth/<defect type>/000_mask.png, or 000.png, or 000/<any>.png

The good folder may have another usual name, such as ``ok`` of BTAD, and so may the folders of the
splits, such as ``Training`` and ``TEST``, and of the masks, which may also be in ``test`` or next
to their images. PATH may be the folder of one category. Defective
training images, as VAD has them, are not used.
"""

from itertools import chain
from pathlib import Path

from datasets.base import Category, DatasetError, LeftOut
from datasets.entries import SPLIT_NAMES, TEST, TRAIN, VALIDATION, ReadOptions
from datasets.listing import (
    category_folder,
    category_folders,
    images_below,
    inner_folder,
    is_ground_truth,
    is_mask_name,
    list_folders,
)
from datasets.type_folders import Found, read_training, read_types


def match(path: Path) -> str | None:
    """Return an empty text if a folder is in this layout, else None."""
    return "" if category_folders(path, is_category) else None


def find_categories(path: Path, options: ReadOptions) -> list[str]:
    """Return the names of the categories: folders with a subfolder of a split."""
    return sorted(category_folders(path, is_category))


def read_category(path: Path, name: str, options: ReadOptions) -> Category:
    """List the images of a category.

    A category without a folder ``ground_truth``, or another usual name of masks, has the masks
    next to its images alone. With this folder, every defective image must have a mask.

    Raises:
        DatasetError: There is no such category, a folder is missing or empty, or a mask is missing.
    """
    root = category_folder(path, name, is_category)
    return read_splits(root, options).category(root, name, options)


def read_splits(root: Path, options: ReadOptions) -> Found:
    """List the images of a category: the training images, and what else is to be read."""
    found = read_training(_split_folder(root, TRAIN))
    if options.training_only:
        return found
    found += Found(
        left_out=tuple(
            LeftOut(file, "validation images", by_split=True)
            for folder in _split_folders(root, VALIDATION)
            for file in images_below(folder)
        )
    )
    test = _split_folder(root, TEST)
    truth = _ground_truth(root, test)
    return found + read_types(test, TEST, lambda folder: truth and inner_folder(truth, folder.name))


def is_category(folder: Path) -> bool:
    """Return whether a folder is a category in this layout."""
    return bool(_split_folders(folder, TRAIN) or _split_folders(folder, TEST))


def _ground_truth(root: Path, test: Path) -> Path | None:
    """Return the folder of the masks: MVTec AD's, or else another one with a usual name."""
    inner = list_folders(root)
    named = filter(is_ground_truth, (*inner, *list_folders(test)))
    # Without images, a folder such as annotations/ has something else, such as shapes in JSON.
    others = (f for f in inner if is_mask_name(f.name) and images_below(f))
    return next(chain(named, others), None)


def _split_folder(root: Path, split: str) -> Path:
    """Return the folder of a split; without one, where it is expected.

    Raises:
        DatasetError: There are several.
    """
    folders = _split_folders(root, split) or [root / split]
    if len(folders) > 1:
        names = " and ".join(folder.name for folder in folders)
        raise DatasetError(f"expected one folder of {split} images in {root}, found {names}")
    return folders[0]


def _split_folders(root: Path, split: str) -> list[Path]:
    return [f for f in list_folders(root) if SPLIT_NAMES.get(f.name.lower()) == split]
