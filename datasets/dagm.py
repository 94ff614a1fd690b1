"""The layout of DAGM 2007 (Wieler and Hahn): ten categories.

PATH/Class1/Train/0001.PNG, PATH/Class1/Test/0001.PNG, ...
PATH/Class1/Train/Label/0002_label.PNG (for defective images only), Label/Labels.txt
"""

from pathlib import Path

from datasets.base import GOOD, Category, MaskFiles
from datasets.entries import TEST, TRAIN, Entry, ReadOptions
from datasets.listing import (
    category_folder,
    category_folders,
    has_folder,
    index_masks,
    list_files,
    stem_of,
)
from datasets.type_folders import Found, spare_masks

FOLDERS = {TRAIN: "Train", TEST: "Test"}
LABELS = "Label"


def match(path: Path) -> str | None:
    """Return an empty text if a folder is in this layout, what it lacks, or None."""
    labelled = {
        f"{name}/{split}/{LABELS}": has_folder(folder / split, LABELS)
        for name, folder in sorted(category_folders(path, is_category).items())
        for split in FOLDERS.values()
    }
    if not any(labelled.values()):  # folders Train and Test alone are in MVTec AD's layout
        return None
    return next((name for name, is_there in labelled.items() if not is_there), "")


def find_categories(path: Path, options: ReadOptions) -> list[str]:
    """Return the names of the categories: folders with ``Train`` and ``Test``."""
    return sorted(category_folders(path, is_category))


def read_category(path: Path, name: str, options: ReadOptions) -> Category:
    """List the images of a category; those with a mask are defective.

    Raises:
        DatasetError: There is no such category, or it has no training image.
    """
    root = category_folder(path, name, is_category)
    found = _read(root, TRAIN)
    if not options.training_only:
        found += _read(root, TEST)
    return found.category(root, name, options)


def is_category(folder: Path) -> bool:
    """Return whether a folder is a category in this layout."""
    return all(has_folder(folder, split) for split in FOLDERS.values())


def _read(root: Path, split: str) -> Found:
    folder = root / FOLDERS[split]
    listing = list_files(folder)
    masks = index_masks(list_files(folder / LABELS).images)
    entries = []
    for file in listing.images:
        mask = masks.pop(f"{stem_of(file)}_label", None)
        if mask is None:
            entries.append(Entry(file, GOOD, split))
        else:
            entries.append(Entry(file, "defect", split, MaskFiles((mask,))))
    return Found(tuple(entries), listing.left_out) + spare_masks(masks.values())
