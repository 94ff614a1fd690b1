"""The layout of KolektorSDD2 (Bozic et al. 2021): one category.

PATH/train/10000.png, PATH/train/10000_GT.png, ...
PATH/test/20000.png, PATH/test/20000_GT.png, ...

Good images have masks without a defective pixel.
"""

from pathlib import Path

from datasets.base import Category
from datasets.drawn_labels import read_beside
from datasets.entries import TEST, TRAIN, ReadOptions
from datasets.listing import choose

NAME, ENDING = "kolektor_sdd2", "_GT"


def match(path: Path) -> str | None:
    """Return an empty text if a folder is in this layout, what it lacks, or None."""
    lacking = [split for split in (TRAIN, TEST) if not any((path / split).glob(f"*{ENDING}.png"))]
    return None if len(lacking) == 2 else "".join(f"{split}/*{ENDING}.png" for split in lacking)


def find_categories(path: Path, options: ReadOptions) -> list[str]:
    """Return the name of the only category."""
    return [NAME]


def read_category(path: Path, name: str, options: ReadOptions) -> Category:
    """List the images as they are split.

    Raises:
        DatasetError: There is no such category, or a mask is missing.
    """
    root = choose({NAME: path}, name, path)
    found = read_beside(root / TRAIN, TRAIN, ENDING)
    if not options.training_only:
        found += read_beside(root / TEST, TEST, ENDING)
    return found.category(root, name, options)
