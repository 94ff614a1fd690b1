"""The layout of VisA as published (Zou et al. 2022), with its one-class split.

PATH/split_csv/1cls.csv (object,split,label,image,mask)
PATH/<category>/Data/Images/Normal/0000.JPG, Data/Images/Anomaly/000.JPG
PATH/<category>/Data/Masks/Anomaly/000.png

The folders that VisA's own script makes of it are in the layout of MVTec AD.
"""

from pathlib import Path

from datasets.base import GOOD, Category, MaskFiles
from datasets.csv_files import read_rows
from datasets.entries import Entry, ReadOptions, make_category, split_named
from datasets.listing import category_folders, choose, has_folder, listed_file

SPLIT = "split_csv/1cls.csv"
COLUMNS = ("object", "split", "label", "image", "mask")


def match(path: Path) -> str | None:
    """Return an empty text if a folder is in this layout, what it lacks, or None."""
    if not category_folders(path, _has_data):
        return None
    return "" if (path / SPLIT).is_file() else SPLIT


def find_categories(path: Path, options: ReadOptions) -> list[str]:
    """Return the names of the categories of the split that are there."""
    return sorted(_rows_by_category(path))


def read_category(path: Path, name: str, options: ReadOptions) -> Category:
    """List the images of a category as the split divides them.

    Raises:
        DatasetError: There is no such category, or a listed file is missing.
    """
    entries = []
    for row in choose(_rows_by_category(path), name, path):
        split = split_named(row["split"], path / SPLIT)
        if not options.lists(split):
            continue
        is_good = row["label"] == "normal"
        file = listed_file(path, row["image"], path / SPLIT)
        mask = None if is_good else MaskFiles((listed_file(path, row["mask"], path / SPLIT),))
        entries.append(Entry(file, GOOD if is_good else "anomaly", split, mask))
    return make_category(path / name, name, entries, options)


def _rows_by_category(path: Path) -> dict[str, list[dict[str, str]]]:
    """Return the rows of the split for each category whose folder is there."""
    rows: dict[str, list[dict[str, str]]] = {}
    for row in read_rows(path / SPLIT, COLUMNS).rows:
        rows.setdefault(row["object"], []).append(row)
    return {name: found for name, found in rows.items() if _has_data(path / name)}


def _has_data(folder: Path) -> bool:
    return has_folder(folder / "Data", "Images")
