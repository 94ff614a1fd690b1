"""The layout of MVTec AD 2 (Heckler-Kram et al. 2025).

PATH/<category>/train/good/000_regular.png
PATH/<category>/validation/good/000_regular.png
PATH/<category>/test_public/good/000_overexposed.png
PATH/<category>/test_public/bad/000_shift_1.png
PATH/<category>/test_public/ground_truth/bad/000_shift_1_mask.png
PATH/<category>/test_private/000_regular.png, test_private_mixed/000_mixed.png (without labels)

Names end in the lighting condition.
"""

from collections import Counter
from pathlib import Path

from datasets.base import Category, LeftOut
from datasets.entries import TEST, VALIDATION, ReadOptions
from datasets.listing import category_folder, category_folders, has_folder, inner_folder, list_files
from datasets.type_folders import Found, read_training, read_types

PRIVATE = ("test_private", "test_private_mixed")


def match(path: Path) -> str | None:
    """Return an empty text if a folder is in this layout, what it lacks, or None."""
    if category_folders(path, is_category):
        return ""
    private = category_folders(path, lambda folder: any(has_folder(folder, n) for n in PRIVATE))
    return f"{next(iter(private))}/test_public" if private else None


def find_categories(path: Path, options: ReadOptions) -> list[str]:
    """Return the names of the categories: folders with a subfolder ``test_public``."""
    return sorted(category_folders(path, is_category))


def read_category(path: Path, name: str, options: ReadOptions) -> Category:
    """List the images of a category; the test set is the public one.

    Raises:
        DatasetError: There is no such category, a folder is missing or empty, or a mask is missing.
    """
    root = category_folder(path, name, is_category)
    found = read_training(root / "train")
    if not options.training_only:
        test, truth = root / "test_public", root / "test_public/ground_truth"
        public = read_types(test, TEST, lambda folder: inner_folder(truth, folder.name))
        found += public + Found(facts=(_count_conditions(public),))
        if has_folder(root, "validation"):
            found += read_types(root / "validation", VALIDATION)
        for folder in PRIVATE:
            images = list_files(root / folder).images
            reason = f"images of {folder}, which has no labels"
            found += Found(left_out=tuple(LeftOut(file, reason, by_split=True) for file in images))
    return found.category(root, name, options)


def lighting(path: Path) -> str:
    """Return the lighting condition of an image, for example ``shift_1``."""
    return path.stem.partition("_")[2] or "unknown"


def is_category(folder: Path) -> bool:
    """Return whether a folder is a category in this layout."""
    return has_folder(folder, "test_public")


def _count_conditions(found: Found) -> str:
    counts = Counter(lighting(entry.path) for entry in found.entries)
    shown = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
    return f"lighting conditions of the test images: {shown}"
