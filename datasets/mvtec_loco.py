"""The layout of MVTec LOCO AD (Bergmann et al. 2022).

PATH/<category>/train/good/000.png
PATH/<category>/validation/good/000.png
PATH/<category>/test/good/000.png
PATH/<category>/test/logical_anomalies/000.png, test/structural_anomalies/000.png
PATH/<category>/ground_truth/logical_anomalies/000/000.png (one file per defect)
PATH/<category>/defects_config.json (saturation thresholds)
"""

from dataclasses import replace
from pathlib import Path

from datasets.base import Category, DatasetError, Saturation
from datasets.entries import ReadOptions
from datasets.json_files import MALFORMED, read_json
from datasets.listing import category_folder, category_folders, has_folder
from datasets.mvtec import is_category as has_splits
from datasets.mvtec import read_splits
from datasets.type_folders import Found

TYPES = ("logical_anomalies", "structural_anomalies")
CONFIG = "defects_config.json"


def match(path: Path) -> str | None:
    """Return an empty text if a folder is in this layout, else None."""
    return "" if category_folders(path, is_category) else None


def find_categories(path: Path, options: ReadOptions) -> list[str]:
    """Return the names of the categories: with saturation thresholds, or with LOCO's types."""
    return sorted(category_folders(path, is_category))


def read_category(path: Path, name: str, options: ReadOptions) -> Category:
    """List the images of a category, with the saturation thresholds of its defects.

    Raises:
        DatasetError: There is no such category, a folder is missing or empty, a mask is missing, or
            the thresholds cannot be read.
    """
    root = category_folder(path, name, is_category)
    found = read_splits(root, options)
    saturations: tuple[Saturation, ...] = ()
    if not options.training_only:
        if (root / CONFIG).is_file():
            saturations = read_saturations(root / CONFIG)
        else:
            note = f"without {root / CONFIG}, which has the saturation thresholds: no sPRO"
            found += Found(notes=(note,))
    return replace(found.category(root, name, options), saturations=saturations)


def read_saturations(path: Path) -> tuple[Saturation, ...]:
    """Read the saturation thresholds of a category's defects.

    Raises:
        DatasetError: The file is not as expected.
    """
    try:
        return tuple(
            Saturation(
                str(record["defect_name"]),
                int(record["pixel_value"]),
                float(record["saturation_threshold"]),
                bool(record["relative_saturation"]),
            )
            for record in read_json(path)
        )
    except MALFORMED as error:
        raise DatasetError(
            "expected a list of defect_name, pixel_value, saturation_threshold and "
            f"relative_saturation in {path}, found something else ({error!r})"
        ) from error


def is_category(folder: Path) -> bool:
    """Return whether a folder is a category in this layout."""
    if not has_splits(folder):
        return False
    return (folder / CONFIG).is_file() or any(has_folder(folder / "test", t) for t in TYPES)
