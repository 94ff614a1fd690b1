"""Normal images among the paths that `train` is given; test sets, masks and defects are refused."""

import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TextIO

from datasets.base import GOOD, Category, DatasetError, Sample
from datasets.inputs import STANDARD_INPUT, find_items, find_listed
from datasets.items import Item
from datasets.listing import (
    MASK_ENDINGS,
    has_folder,
    has_images,
    is_defective_name,
    is_good_name,
    is_mask_name,
    list_folders,
    plain,
    split_masks,
)
from datasets.mvtec_3d import COLOUR, DEPTHS
from datasets.notes import Notes
from datasets.path_list import read_paths
from datasets.patterns import has_pattern

TRAIN_NAMES = frozenset({"train", "training"})
TEST_NAMES = frozenset({"test", "testing", "testpublic", "testprivate"})
LIKE_A_MASK = (
    "named like a mask or in a folder of masks, but learned as a normal image; remove it from the "
    "PATHs if it is a mask"
)
# Number of folders to choose from that an error lists.
MAX_CHOICES = 8

log = logging.getLogger(__name__)


def read_training_images(
    paths: Sequence[str], category: str, notes: Notes, listed: TextIO | None = None
) -> Category:
    """List the training images at some paths.

    Of a category of a dataset, the normal training images are taken, and this is logged. A path of
    a list is treated like one that is given itself.

    Args:
        paths: Files, folders and patterns, as `find_items` takes them.
        category: Name of the category.
        notes: Collects the files that are skipped.
        listed: Stream that the path ``-`` reads from.

    Raises:
        DatasetError: A path is missing or a video, there is no image, or there are masks, defects
            or test images among the files of a folder or pattern; the message lists the folders to
            choose from.
    """
    images: list[Path] = []
    for path in paths:
        if path == STANDARD_INPUT:
            for text in read_paths(listed, notes):
                images += _find_images(text, notes, is_listed=True)
        else:
            images += _find_images(path, notes)
    if not images:
        raise DatasetError(f"expected images to learn, found none: {', '.join(paths)}")
    samples = tuple(Sample(image, category, GOOD) for image in images)
    return Category(category, samples, (), has_masks=False)


def _find_images(path: str, notes: Notes, *, is_listed: bool = False) -> list[Path]:
    """Return the normal images at a path; one of a list is no pattern."""
    chosen = _training_folder(Path(path))
    searched = path if chosen is None else str(chosen)
    items = find_listed(searched, notes) if is_listed else find_items([searched], notes=notes)
    images = [_image_of(item) for item in items]
    root = chosen or _root(path)
    if root is not None:
        _check_normal(root, images, is_pattern=not Path(path).is_dir())
    for image in images:
        folders = image.parts[-3:-1]
        if any(map(is_mask_name, folders)) or image.stem.endswith(
            tuple(filter(None, MASK_ENDINGS))
        ):
            notes.add(LIKE_A_MASK, image)
    return images


def _training_folder(path: Path) -> Path | None:
    """Return the folder of normal training images of a category; None if it is no category.

    Raises:
        DatasetError: The training images are not known to be normal.
    """
    try:
        folders = list_folders(path)
        training = [folder for folder in folders if plain(folder.name) in TRAIN_NAMES]
        if not training or has_images(path):
            return None
    except OSError:  # `find_items` reports it
        return None
    normal = [
        folder
        for parent in training
        for folder in (list_folders(parent) or [parent])
        if folder == parent or is_good_name(folder.name)
    ]
    if len(normal) != 1:
        below = [folder for parent in training for folder in list_folders(parent)]
        raise DatasetError(
            f"expected one folder of normal training images in {path}, found {len(normal)}: give "
            f"{_choices(normal or below)}"
        )
    others = [folder.name for folder in folders if folder not in training]
    chosen = normal[0]
    if has_folder(chosen, COLOUR) and has_folder(chosen, DEPTHS):
        chosen = chosen / COLOUR
        others.append(DEPTHS)
    beside = f", not {', '.join(others)}" if others else ""
    log.info("%s is a category of a dataset: learning %s%s", path, chosen, beside)
    return chosen


def _root(path: str) -> Path | None:
    """Return the folder that a search for a path begins in; None for a file."""
    if Path(path).is_dir():
        return Path(path)
    if not has_pattern(path) or Path(path).exists():
        return None
    parts = Path(path).parts
    fixed = next(place for place, part in enumerate(parts) if has_pattern(part))
    return Path(*parts[:fixed])


def _image_of(item: Item) -> Path:
    if item.fault or item.frame is not None or item.path is None:
        fault = f"expected images to learn, found a video: {item.path or item.name}"
        raise DatasetError(item.fault or fault)
    return item.path


def _check_normal(root: Path, images: Sequence[Path], *, is_pattern: bool) -> None:
    """Raise DatasetError if there are masks, defects, test images or depths among normal images.

    Args:
        root: The folder.
        images: The images below it.
        is_pattern: Whether a pattern has selected them.
    """
    by_folder: dict[Path, list[Path]] = defaultdict(list)
    for image in images:
        by_folder[image.parent].append(image)
    found = _find_foreign_folder(root, by_folder)
    if not found and not is_pattern:
        found = _find_pairs(by_folder)
    if not found:
        return
    categories = [folder for folder in list_folders(root) if _is_category(folder)]
    if categories:
        raise DatasetError(
            f"expected normal images alone in {root}, found "
            f"{'a category' if len(categories) == 1 else f'{len(categories)} categories'}: give "
            f"--path_data {root} to learn each of them, or {_choices(categories)}"
        )
    folders = sorted(by_folder, key=lambda folder: (_doubt(folder.relative_to(root)), folder))
    raise DatasetError(
        f"expected normal images alone in {root}, found {found}: give the normal images alone, "
        f"{_choices(folders)} or a pattern such as '{folders[0]}/*.png'"
    )


def _doubt(folder: Path) -> int:
    """Return how little a folder's name speaks for normal images: 0 for that of good images."""
    if any(
        is_mask_name(name) or is_defective_name(name) or plain(name) in TEST_NAMES
        for name in folder.parts
    ):
        return 2
    return 0 if any(map(is_good_name, folder.parts)) else 1


def _find_foreign_folder(root: Path, folders: Iterable[Path]) -> str:
    """Return the first folder below the root that is not for normal images; empty if none is."""
    beside_good: dict[Path, set[str]] = defaultdict(set)
    for folder in sorted(folders):
        above = folder
        while above not in (root, above.parent):
            name = above.name
            if is_mask_name(name):
                return f"masks in {above}"
            if is_defective_name(name):
                return f"defective images in {above}"
            if plain(name) in TEST_NAMES:
                return f"test images in {above}"
            beside_good[above.parent].add(name)
            above = above.parent
    for parent, names in beside_good.items():
        others = sorted(name for name in names if not is_good_name(name))
        good = sorted(names.difference(others))
        if {COLOUR, DEPTHS} <= names:
            return f"depths in {parent / DEPTHS}"
        if good and others:
            return f"{parent / others[0]} next to {good[0]}, which may be defects or masks"
    return ""


def _find_pairs(by_folder: dict[Path, list[Path]]) -> str:
    """Return two files for one thing: an image and its mask, or one image in two formats."""
    for images in by_folder.values():
        stems: dict[str, Path] = {}
        for image in images:
            other = stems.setdefault(image.stem, image)
            if other != image:
                return f"two files of one name, {other} and {image.name}"
        _, masks = split_masks(images)
        for image, mask in masks.items():
            return f"{image} and its mask {mask.name}"
    return ""


def _is_category(folder: Path) -> bool:
    names = {plain(inner.name) for inner in list_folders(folder)}
    return bool(names & (TRAIN_NAMES | TEST_NAMES))


def _choices(folders: Sequence[Path]) -> str:
    shown = [str(folder) for folder in folders[:MAX_CHOICES]]
    more = ", ..." if len(folders) > MAX_CHOICES else ""
    return f"one of {', '.join(shown)}{more}"
