"""The layout of MVTec AD (Bergmann et al. 2021).

PATH/<category>/train/good/000.png
PATH/<category>/test/good/000.png
PATH/<category>/test/<defect type>/000.png
PATH/<category>/ground_truth/<defect type>/000_mask.png
"""

from itertools import pairwise
from pathlib import Path

from datasets.base import (
    GOOD,
    IMAGE_SUFFIXES,
    Category,
    DatasetError,
    MaskFiles,
    Sample,
    is_image,
)


def is_layout(path: Path) -> bool:
    """Return whether ``path`` is a folder with at least one category in this layout."""
    return path.is_dir() and any(map(_is_category, path.iterdir()))


def find_categories(path: Path) -> list[str]:
    """Return the names of the categories in ``path``, sorted.

    Every folder with a subfolder ``train`` or ``test`` counts as a category; `read_category` checks
    whether it is complete. Other files and folders are ignored.

    Raises:
        DatasetError: ``path`` is missing, not a folder, or has no category in it.
    """
    if not path.is_dir():
        found = "a file" if path.exists() else "nothing"
        raise DatasetError(
            f"expected a folder with categories in MVTec AD's layout, found {found} at {path} "
            "(--path_data)"
        )
    if _is_category(path):
        raise DatasetError(
            f"expected a folder of categories, found a category at {path}: give the folder above "
            f"it as --path_data and --categories {path.resolve().name}"
        )
    names = sorted(entry.name for entry in path.iterdir() if _is_category(entry))
    if not names:
        raise DatasetError(
            f"expected folders <category>/train/good and <category>/test under {path}, "
            "found none (--path_data)"
        )
    return names


def read_category(path: Path, name: str) -> Category:
    """List the training and test samples of category ``name`` in ``path``; no image is opened.

    A category without a folder ``ground_truth`` has no masks, and its pixels are not measured.
    With this folder, every defective image must have a mask.

    Raises:
        DatasetError: There is no such category, a folder is missing or empty, or a mask is missing.
    """
    train = read_training(path, name).train
    root = path / name
    has_masks = (root / "ground_truth").is_dir()
    test = []
    for folder in _list_folders(root / "test", "one folder per defect type"):
        masks = _index_masks(root / "ground_truth" / folder.name) if has_masks else None
        for file in _list_images(folder, "test images"):
            mask = None if folder.name == GOOD else _find_mask(file, masks, root)
            test.append(Sample(file, name, folder.name, mask))
    return Category(name, train, tuple(test), has_masks)


def read_training(path: Path, name: str) -> Category:
    """List the training samples of category ``name`` in ``path``; it needs no test images.

    Raises:
        DatasetError: There is no such category, or its folder is missing or empty.
    """
    known = find_categories(path)
    # A path to a category is not a name: names become parts of file names.
    if name not in known:
        raise DatasetError(
            f"no category {name!r} under {path} (--categories); there are: {', '.join(known)}"
        )
    files = _list_images(path / name / "train" / GOOD, "training images without defects")
    return Category(name, tuple(Sample(file, name, GOOD) for file in files), (), has_masks=False)


def _is_category(folder: Path) -> bool:
    return (folder / "train").is_dir() or (folder / "test").is_dir()


def _list_folders(path: Path, meaning: str) -> list[Path]:
    entries = path.iterdir() if path.is_dir() else []
    folders = sorted(e for e in entries if e.is_dir() and not e.name.startswith("."))
    if not folders:
        raise DatasetError(f"expected {meaning} in {path}, found none")
    # Good images first, as in figures and tables.
    return sorted(folders, key=lambda folder: folder.name != GOOD)


def _list_images(path: Path, meaning: str) -> list[Path]:
    if not path.is_dir():
        raise DatasetError(f"expected {meaning} in {path}, found no such folder")
    files = sorted(file for file in path.iterdir() if is_image(file))
    if not files:
        endings = ", ".join(sorted(IMAGE_SUFFIXES))
        raise DatasetError(f"expected {meaning} in {path}, found no file ending in {endings}")
    for file, following in pairwise(files):
        if file.stem == following.stem:  # they would share a mask and the names of figures
            raise DatasetError(
                f"expected one image of each name, found {file} and {following.name}"
            )
    return files


def _index_masks(path: Path) -> dict[str, Path]:
    """Return the mask files of a folder by their stems; empty if the folder is missing."""
    if not path.is_dir():
        return {}
    return {file.stem: file for file in sorted(path.iterdir()) if is_image(file)}


def _find_mask(image: Path, masks: dict[str, Path] | None, root: Path) -> MaskFiles | None:
    if masks is None:
        return None
    mask = masks.get(f"{image.stem}_mask", masks.get(image.stem))
    if mask is None:
        expected = root / "ground_truth" / image.parent.name / f"{image.stem}_mask.png"
        raise DatasetError(f"expected the mask {expected} of the defective image {image}")
    return MaskFiles((mask,))
