"""Folders of one's own: good images, defective images by type, and masks, without a split.

PATH/good/a.png, or another usual name; or images directly in PATH
PATH/<defect type>/b.png, also several folders deep
PATH/ground_truth/<defect type>/b_mask.png, or masks/b.png, ... with or without the defect type
PATH/<defect type>/masks/b.png, or b_mask.png next to b.png

PATH is one category, or a folder of categories.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from datasets.base import GOOD, Category, DatasetError, LeftOut, MaskFiles
from datasets.entries import UNSPLIT, Entry, ReadOptions
from datasets.folders import has_results
from datasets.listing import (
    choose,
    composed,
    find_mask,
    has_images,
    images_below,
    is_defective_name,
    is_good_name,
    is_mask_name,
    list_below,
    list_files,
    list_folders,
    split_masks,
    stem_of,
)
from datasets.type_folders import Found, good_entries, leave_out

OUTSIDE = "images outside the named folders (--normal_dir, --abnormal_dir, --mask_dir)"
# Mask files by the folders of their images and by stem.
Masks = dict[tuple[str, ...], dict[str, Path]]


@dataclass(frozen=True)
class _Folders:
    """The folders of a category that have a meaning; a file belongs to the innermost of them.

    Attributes:
        root: Folder of the category.
        good: Folders of good images; empty if they are directly in `root`.
        types: Folders of defective images.
        masks: Folders of masks, each with the folders of its images as far as its place tells them:
            ``bent`` for ``bent/masks``, none for ``masks``.
        results: Folders of results of this program, which are not read.
        unused: Folders of masks that are not used, since another one is named.
    """

    root: Path
    good: tuple[Path, ...]
    types: tuple[Path, ...]
    masks: Mapping[Path, tuple[str, ...]]
    results: tuple[Path, ...]
    unused: tuple[Path, ...]

    @property
    def all(self) -> frozenset[Path]:
        """All these folders."""
        return frozenset((*self.good, *self.types, *self.masks, *self.results, *self.unused))


def match(path: Path) -> str | None:
    """Return an empty text if a folder is in this layout, what it lacks, or None."""
    options = ReadOptions()
    if _is_category(path, options) or _subcategories(path, options):
        return ""
    lone = [folder.name for folder in list_folders(path) if is_defective_name(folder.name)]
    return f"folder of good images next to {lone[0]}" if lone else None


def find_categories(path: Path, options: ReadOptions) -> list[str]:
    """Return the names of the categories: of the folder itself, or of its subfolders.

    Raises:
        DatasetError: Both may be categories.
    """
    return sorted(_categories(path, options))


def read_category(path: Path, name: str, options: ReadOptions) -> Category:
    """List the images of a category; a share of the good ones is held out.

    Raises:
        DatasetError: There is no such category, masks or results lie among good images, or two
            images would share a mask.
    """
    root = choose(_categories(path, options), name, path)
    folders = _find_folders(root, options)
    found = _read_good(folders)
    if folders.results:
        names = " and ".join(map(str, folders.results))
        found += Found(notes=(f"results of this program in {names} are not read",))
    if not options.training_only:
        found += _read_defective(folders)
        if options.normal_dir or options.abnormal_dir or options.mask_dir:
            found += Found(left_out=_outside(folders))
    return found.category(root, name, options)


def _find_folders(root: Path, options: ReadOptions) -> _Folders:
    good = _good_folders(root, options)
    if found := next(filter(has_results, (root, *good)), None):
        raise DatasetError(
            f"expected images alone in {found}, found results of this program among them: move the "
            "results to a folder of their own"
        )
    types = [folder for folder in _type_folders(root, options) if folder not in good]
    results = [folder for folder in _outermost(root, has_results) if folder not in types]
    drawn = [
        folder
        for folder in _outermost(root, lambda below: is_mask_name(below.name))
        if folder not in (*good, *types) and not set(folder.parents).intersection(results)
    ]
    if options.mask_dir:
        masks = {root / options.mask_dir: ()}
    else:
        masks = {folder: folder.parent.relative_to(root).parts for folder in drawn}
    return _Folders(
        root,
        tuple(good),
        tuple(folder for folder in types if folder not in masks),
        masks,
        tuple(results),
        tuple(folder for folder in drawn if folder not in masks),
    )


def _read_good(folders: _Folders) -> Found:
    """List the images of the good folders; without any, those directly in the category."""
    root, good = folders.root, folders.good
    direct = list_files(root)
    if not good:
        note = f"the images in {root} are taken as good: it has no subfolder {GOOD}"
        return Found(good_entries(root, direct.images, UNSPLIT), direct.left_out, (note,))
    found = Found() if root in good else leave_out(direct)
    _check_no_masks(folders)
    for folder in good:
        listing = list_below(folder, folders.all)
        found += Found(good_entries(folder, listing.images, UNSPLIT), listing.left_out)
    if len(good) > 1:
        names = " and ".join(folder.name for folder in good)
        found += Found(notes=(f"{names} in {root} are both taken as good images",))
    return found


def _check_no_masks(folders: _Folders) -> None:
    """Raise DatasetError if a folder of masks that the user has not named is in a good folder."""
    for masks, place in folders.masks.items():
        around = next((f for f in masks.parents if f in (*folders.good, *folders.types)), None)
        if place and around in folders.good:
            raise DatasetError(
                f"expected good images in {around}, found masks in {masks}: move defective images "
                "to a folder of their own, or name the folder of masks (--mask_dir)"
            )


def _read_defective(folders: _Folders) -> Found:
    """List the images of defect types, each with its mask if there is one."""
    for folder in (*folders.types, *folders.masks):
        if not folder.is_dir():
            raise DatasetError(
                f"expected the folder {folder}, found none (--abnormal_dir, --mask_dir)"
            )
    drawn = {folder: list_below(folder, folders.all).images for folder in folders.masks}
    indexed = _index(drawn, folders.masks)
    found, used = Found(), dict[Path, Path]()
    for folder in folders.types:
        listing = list_below(folder, folders.all)
        images, beside = split_masks(listing.images)
        entries = []
        for file in images:
            kind = file.parent.relative_to(folders.root).parts
            mask = beside.get(file) or _find_mask(stem_of(file), kind, indexed)
            if mask in used:
                raise DatasetError(
                    f"expected a mask of its own for each image, found {mask} for {used[mask]} and "
                    f"{file}: put masks in folders of the defect types"
                )
            if mask is not None:
                used[mask] = file
            files = None if mask is None else MaskFiles((mask,))
            entries.append(Entry(file, "/".join(kind), UNSPLIT, files))
        found += Found(tuple(entries), listing.left_out)
    spare = [file for files in drawn.values() for file in files if file not in used]
    if spare and found.entries and not used:
        raise DatasetError(
            f"expected masks named like the defective images, for example "
            f"{found.entries[0].path.stem}_mask.png, found {spare[0]} (--mask_dir)"
        )
    return found + Found(left_out=tuple(LeftOut(f, "masks of no defective image") for f in spare))


def _outside(folders: _Folders) -> tuple[LeftOut, ...]:
    """Return the images in none of the named folders; those directly in the category are known."""
    files = []
    for file in images_below(folders.root):
        innermost = next((folder for folder in file.parents if folder in folders.all), None)
        if file.parent != folders.root and innermost in (None, *folders.unused):
            files.append(file)
    return tuple(LeftOut(file, OUTSIDE) for file in files)


def _index(drawn: Mapping[Path, tuple[Path, ...]], places: Mapping[Path, tuple[str, ...]]) -> Masks:
    """Return mask files by the folders of their images, as far as they are known, and by stem."""
    indexed: Masks = {}
    for folder, files in drawn.items():
        for file in files:
            parts = tuple(map(composed, (*places[folder], *file.parent.relative_to(folder).parts)))
            other = indexed.setdefault(parts, {}).setdefault(stem_of(file), file)
            if other != file:
                raise DatasetError(
                    f"expected one mask of each image, found {other} and {file} (--mask_dir)"
                )
    return indexed


def _find_mask(stem: str, kind: tuple[str, ...], indexed: Masks) -> Path | None:
    """Return the mask of an image: from the folders of its defect type, or from some or none."""
    kind, count = tuple(map(composed, kind)), len(kind)
    inner, outer = [kind[n:] for n in range(count)], [kind[:n] for n in range(count - 1, -1, -1)]
    for parts in (*inner, *outer):
        if (mask := find_mask(stem, indexed.get(parts, {}))) is not None:
            return mask
    return None


def _categories(path: Path, options: ReadOptions) -> dict[str, Path]:
    """Return the folders of the categories by name."""
    if not _is_category(path, options):
        if drawn := next(filter(_has_masks, list_folders(path)), None):
            raise DatasetError(
                f"expected folders of categories in {path}, found masks in {drawn}: put good and "
                f"defective images into folders of their own ({path}/good, {path}/<defect type>), "
                "or list the images in a CSV file (path,label,mask,split)"
            )
        return _subcategories(path, options)
    is_named = bool(options.normal_dir or options.abnormal_dir)
    for folder in [] if is_named else _type_folders(path, options):
        if inner := _good_folders(folder, options):
            raise DatasetError(
                f"expected one category in {path}, found good images there and in {inner[0]}: give "
                "the folder of one category as --path_data, a folder that has categories alone, or "
                "--normal_dir and --abnormal_dir"
            )
    return {path.resolve().name: path}


def _subcategories(path: Path, options: ReadOptions) -> dict[str, Path]:
    named = [folder for folder in list_folders(path) if not is_defective_name(folder.name)]
    return {
        folder.name: folder
        for folder in named
        if _is_category(folder, options) and not _has_masks(folder)
    }


def _has_masks(folder: Path) -> bool:
    """Return whether a folder next to categories holds masks, by its name, and is no category."""
    is_category = bool(_good_folders(folder, ReadOptions()))
    return is_mask_name(folder.name) and not is_category and bool(images_below(folder))


def _is_category(folder: Path, options: ReadOptions) -> bool:
    if options.normal_dir:
        return (folder / options.normal_dir).is_dir()
    is_good = has_images(folder) and not has_results(folder)
    return is_good or bool(_good_folders(folder, options))


def _good_folders(root: Path, options: ReadOptions) -> list[Path]:
    if options.normal_dir:
        return [root / options.normal_dir]
    return [folder for folder in list_folders(root) if is_good_name(folder.name)]


def _type_folders(root: Path, options: ReadOptions) -> list[Path]:
    if options.abnormal_dir:
        return [root / name for name in dict.fromkeys(options.abnormal_dir)]
    others = (f for f in list_folders(root) if not is_good_name(f.name))
    return [f for f in others if not is_mask_name(f.name) and not has_results(f)]


def _outermost(folder: Path, is_wanted: Callable[[Path], bool]) -> list[Path]:
    """Return the folders of a kind below a folder, at any depth, without those in one another."""
    found = []
    for below in list_folders(folder):
        found += [below] if is_wanted(below) else _outermost(below, is_wanted)
    return found
