"""Kaputt (Hoefer et al. 2025), which is recognised and not read: its lists are Parquet files.

PATH/datasets/query-train.parquet, query-validation.parquet, query-test.parquet
PATH/query-image/data/..., PATH/query-mask/data/...
"""

from pathlib import Path
from typing import NoReturn

from datasets.base import DatasetError
from datasets.entries import ReadOptions


def match(path: Path) -> str | None:
    """Return an empty text if a folder is in this layout, else None."""
    return "" if any((path / "datasets").glob("query-*.parquet")) else None


def find_categories(path: Path, options: ReadOptions) -> NoReturn:
    """Raise DatasetError: the lists cannot be read."""
    raise DatasetError(
        "expected lists of Kaputt that this program can read, found Parquet files in "
        f"{path / 'datasets'}: write the columns path,label,mask,split to a CSV file and give it "
        "as --path_data (docs/datasets.md)"
    )


def read_category(path: Path, name: str, options: ReadOptions) -> NoReturn:
    """Raise DatasetError: the lists cannot be read."""
    find_categories(path, options)
