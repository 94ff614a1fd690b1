"""Folders of images and masks: listing in a fixed order, and matching by name.

Only files with an unusual ending are opened, to see whether they are images.
"""

import os
import re
import stat
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from datasets.base import DatasetError, LeftOut, did_you_mean, is_hidden, is_image
from datasets.content import IMAGE, VIDEO, kind_of
from datasets.folders import is_folder, is_within

Item = TypeVar("Item")

# Names of folders and labels in the form of `plain`.
GOOD_NAMES = frozenset(
    {"good", "ok", "normal", "normals", "free", "defectfree", "nodefect", "nodefects"}
    | {"nondefective", "nondefect", "anomalyfree", "noanomaly"}
)
DEFECTIVE_NAMES = frozenset(
    {"bad", "ko", "ng", "nok", "notok", "notgood", "ungood", "defect", "defects", "defective"}
    | {"anomaly", "anomalies", "anomalous", "abnormal", "abnormals", "faulty", "fail", "reject"}
)
MASK_NAMES = frozenset(
    {"groundtruth", "groundtruths", "groundtruthmasks", "gt", "gtmask", "gtmasks", "mask", "masks"}
    | {"defectmask", "defectmasks", "anomalymask", "anomalymasks", "binarymasks", "labelmasks"}
    | {"segmentation", "segmentations", "segmentationmasks", "annotation", "annotations", "labels"}
    | {"annotationmasks", "maskimages"}
)
MASK_ENDINGS = ("_mask", "-mask", "_gt", "_GT", "_label", "")


@dataclass(frozen=True)
class Listing:
    """The files of a folder.

    Attributes:
        images: Image files in order of names.
        left_out: Other files; hidden files, which operating systems leave, are not listed.
    """

    images: tuple[Path, ...]
    left_out: tuple[LeftOut, ...]


def plain(name: str) -> str:
    """Return a name in lower case without spaces, dots, hyphens and underscores."""
    return re.sub(r"[\s._-]+", "", name).lower()


def is_good_name(name: str) -> bool:
    """Return whether the name of a folder or label means images without defects."""
    return plain(name) in GOOD_NAMES


def is_defective_name(name: str) -> bool:
    """Return whether the name of a folder or label means images with defects of any type."""
    return plain(name) in DEFECTIVE_NAMES


def is_mask_name(name: str) -> bool:
    """Return whether the name of a folder means masks."""
    return plain(name) in MASK_NAMES


def is_ground_truth(folder: Path) -> bool:
    """Return whether a folder has the name of masks that MVTec AD has, in any spelling."""
    return plain(folder.name) == "groundtruth"


def as_name(text: str) -> str:
    """Return a text as a part of file names: without separators and control characters."""
    return re.sub(r'[\x00-\x1f/\\:*?"<>|]+', "_", text.strip()).strip(".") or "_"


def list_folders(path: Path) -> list[Path]:
    """Return the subfolders in order of names; empty if there is no folder.

    Hidden ones are left out, and so are links to a folder that contains them.
    """
    if not path.is_dir():
        return []
    with os.scandir(path) as entries:  # unlike Path.is_dir, it need not ask for each file
        names = [
            e.name for e in entries if not is_hidden(e.name) and is_folder(e) and not _is_loop(e)
        ]
    return [path / name for name in sorted(names)]


def _is_loop(entry: os.DirEntry) -> bool:
    if not entry.is_symlink():
        return False
    around = os.path.realpath(Path(entry.path).parent)
    return is_within(around, os.path.realpath(entry.path))


def has_folder(path: Path, name: str) -> bool:
    """Return whether a folder has a subfolder of exactly this name, also if case is ignored."""
    return any(folder.name == name for folder in list_folders(path))


def list_files(path: Path, *, unique: bool = True) -> Listing:
    """List the files of a folder, without its subfolders.

    Args:
        path: The folder; it may be missing.
        unique: Whether two images that differ only in their endings are an error, since they would
            share a mask.

    Raises:
        DatasetError: There are two such images, or a file with an unusual ending cannot be read.
    """
    images, left_out = [], []
    for file in sorted(path.iterdir()) if path.is_dir() else []:
        mode = _mode(file)
        if is_hidden(file.name) or stat.S_ISDIR(mode):
            continue
        # A link that leads nowhere is an error when it is read; reading a pipe would block.
        kind = IMAGE if is_image(file) and mode in (0, stat.S_IFREG) else _kind(file)
        if kind == IMAGE:
            images.append(file)
        else:
            reason = "a video" if kind == VIDEO else "neither an image nor a video"
            left_out.append(LeftOut(file, reason))
    stems: dict[str, Path] = {}
    for file in images if unique else ():
        if (other := stems.setdefault(stem_of(file), file)) != file:
            raise DatasetError(f"expected one image of each name, found {other} and {file.name}")
    return Listing(tuple(images), tuple(left_out))


def list_below(path: Path, without: Collection[Path] = ()) -> Listing:
    """List the files of a folder and of its subfolders, except some, in order of names."""
    listing = list_files(path)
    for folder in list_folders(path):
        if folder in without:
            continue
        below = list_below(folder, without)
        listing = Listing(listing.images + below.images, listing.left_out + below.left_out)
    return listing


def images_below(path: Path) -> list[Path]:
    """Return the images of a folder and of its subfolders, judged by their names."""
    images = filter(is_image, path.rglob("*"))
    return sorted(f for f in images if not any(map(is_hidden, f.relative_to(path).parts)))


def category_folders(path: Path, is_category: Callable[[Path], bool]) -> dict[str, Path]:
    """Return the folders of the categories by name: the subfolders, or the folder itself."""
    if is_category(path):
        return {path.resolve().name: path}
    return {folder.name: folder for folder in list_folders(path) if is_category(folder)}


def category_folder(path: Path, name: str, is_category: Callable[[Path], bool]) -> Path:
    """Return the folder of a category.

    Raises:
        DatasetError: There is no category of this name.
    """
    return choose(category_folders(path, is_category), name, path)


def choose(categories: Mapping[str, Item], name: str, path: Path) -> Item:
    """Return the category of this name.

    Raises:
        DatasetError: There is none; a path, for example, is not a name, since names become parts of
            file names.
    """
    if not categories:
        raise DatasetError(
            f"expected categories in {path}, found none (--path_data, --dataset, --normal_dir, "
            "--abnormal_dir, --mask_dir)"
        )
    if name not in categories:
        known = ", ".join(sorted(categories))
        raise DatasetError(
            f"expected a category name ({known}), found {name!r} in {path} (--categories)"
            f"{did_you_mean(name, categories)}"
        )
    return categories[name]


def has_images(path: Path) -> bool:
    """Return whether a folder contains an image file, judged by its name."""
    return path.is_dir() and any(is_image(file) for file in path.iterdir() if not file.is_dir())


def composed(name: str) -> str:
    """Return a name in composed Unicode: macOS writes a letter and its accent apart."""
    return unicodedata.normalize("NFC", name)


def stem_of(file: Path) -> str:
    """Return the stem of a file in composed Unicode."""
    return composed(file.stem)


def inner_folder(path: Path, name: str) -> Path:
    """Return a subfolder by its name in any form of Unicode; without one, where it is expected."""
    named = (f for f in list_folders(path) if composed(f.name) == composed(name))
    return next(named, path / name)


def find_file(folder: Path, name: str) -> Path | None:
    """Return the file of a relative path in any form of Unicode; None if there is none."""
    forms = (name, composed(name), unicodedata.normalize("NFD", name))
    return next((folder / form for form in forms if (folder / form).is_file()), None)


def listed_file(folder: Path, name: str, source: Path) -> Path:
    """Return the file of a relative path that a list gives, as `find_file` does.

    Raises:
        DatasetError: There is none.
    """
    if (file := find_file(folder, name)) is None:
        raise DatasetError(f"expected {folder / name}, which {source} lists, found none")
    return file


def index_masks(files: Iterable[Path]) -> dict[str, Path]:
    """Return mask files by their stems."""
    return {stem_of(file): file for file in files}


def find_mask(stem: str, masks: dict[str, Path]) -> Path | None:
    """Return the mask of an image: of its stem with ``_mask`` or similar, or of its stem alone."""
    for ending in MASK_ENDINGS:
        if stem + ending in masks:
            return masks[stem + ending]
    return None


def split_masks(files: Iterable[Path]) -> tuple[list[Path], dict[Path, Path]]:
    """Separate masks among their images, such as ``1_mask.png`` and ``1.png``.

    Returns:
        The images, and the mask of each image that has one.

    Raises:
        DatasetError: A mask has several images, none of them in its folder, or an image has several
            masks.
    """
    files = list(files)
    by_stem: dict[str, list[Path]] = {}
    for file in files:
        by_stem.setdefault(stem_of(file), []).append(file)
    masks: dict[Path, Path] = {}
    for file in files:
        image = _image_of(file, by_stem)
        if image is not None and masks.setdefault(image, file) != file:
            raise DatasetError(f"expected one mask of {image}, found {masks[image]} and {file}")
    found = set(masks.values())
    return [file for file in files if file not in found], masks


def _image_of(file: Path, by_stem: Mapping[str, list[Path]]) -> Path | None:
    """Return the image that a file is the mask of: in its folder, or the only one of its stem."""
    for ending in filter(None, MASK_ENDINGS):
        if not file.stem.endswith(ending):
            continue
        images = by_stem.get(stem_of(file).removesuffix(ending), [])
        images = [image for image in images if image.parent == file.parent] or images
        if len(images) > 1:
            raise DatasetError(
                f"expected the image of the mask {file} next to it, found {images[0]} and "
                f"{images[1]}: give the folder of the masks (--mask_dir)"
            )
        if images:
            return images[0]
    return None


def _mode(file: Path) -> int:
    """Return the type of a file; 0 if it is a link that leads nowhere, or cannot be read."""
    try:
        return stat.S_IFMT(file.stat().st_mode)
    except OSError:
        return 0


def _kind(file: Path) -> str:
    try:
        return kind_of(file)
    except OSError as error:
        raise DatasetError(f"cannot read {file}: {error.strerror or error}") from error
