"""The layout of KolektorSDD (Tabernik et al. 2020): one category, without a split.

PATH/kos01/Part0.jpg, PATH/kos01/Part0_label.bmp, ...

Good images have masks without a defective pixel.
"""

from pathlib import Path

from datasets.base import Category
from datasets.drawn_labels import read_beside
from datasets.entries import UNSPLIT, ReadOptions
from datasets.listing import choose, list_folders
from datasets.type_folders import Found

NAME, ENDING = "kolektor_sdd", "_label"


def match(path: Path) -> str | None:
    """Return an empty text if a folder is in this layout, what it lacks, or None."""
    items = _items(path)
    if not items:
        return None
    has_masks = any(any(folder.glob(f"*{ENDING}.*")) for folder in items)
    return "" if has_masks else f"{items[0].name}/Part0{ENDING}.bmp"


def find_categories(path: Path, options: ReadOptions) -> list[str]:
    """Return the name of the only category."""
    return [NAME]


def read_category(path: Path, name: str, options: ReadOptions) -> Category:
    """List the images; a share of the good ones is held out.

    Raises:
        DatasetError: There is no such category, or a mask is missing.
    """
    root, found = choose({NAME: path}, name, path), Found()
    for folder in _items(root):
        found += read_beside(folder, UNSPLIT, ENDING)
    return found.category(root, name, options)


def _items(path: Path) -> list[Path]:
    return [f for f in list_folders(path) if f.name.startswith("kos") and f.name[3:].isdecimal()]
