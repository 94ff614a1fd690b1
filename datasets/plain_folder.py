"""Folders of one's own: good images, defective images by type, and masks, without a split.

PATH/good/a.png, or another usual name; or images directly in PATH
PATH/<defect type>/b.png, also several folders deep
PATH/ground_truth/<defect type>/b_mask.png, or masks/b.png, ... with or without the defect type

PATH is one category, or a folder of categories.
"""

from pathlib import Path

from datasets.base import GOOD, Category, DatasetError, LeftOut, MaskFiles
from datasets.entries import UNSPLIT, Entry, ReadOptions
from datasets.listing import (
    as_name,
    choose,
    find_mask,
    has_images,
    is_defective_name,
    is_good_name,
    is_mask_name,
    list_below,
    list_files,
    list_folders,
    split_masks,
)
from datasets.type_folders import Found, leave_out


def match(path: Path) -> str | None:
    """Return an empty text if a folder is in this layout, what it lacks, or None."""
    if find_categories(path, ReadOptions()):
        return ""
    lone = [folder.name for folder in list_folders(path) if is_defective_name(folder.name)]
    return f"folder of good images next to {lone[0]}" if lone else None


def find_categories(path: Path, options: ReadOptions) -> list[str]:
    """Return the names of the categories: of the folder itself, or of its subfolders."""
    return sorted(_categories(path, options))


def read_category(path: Path, name: str, options: ReadOptions) -> Category:
    """List the images of a category; a share of the good ones is held out.

    Raises:
        DatasetError: There is no such category, masks lie among good images, or two images would
            share a mask.
    """
    root = choose(_categories(path, options), name, path)
    good = _good_folders(root, options)
    found = _read_good(root, good)
    if not options.training_only:
        masks = [root / options.mask_dir] if options.mask_dir else _mask_folders(root)
        types = [f for f in _type_folders(root, options) if f not in (*good, *masks)]
        found += _read_defective(root, types, masks)
    return found.category(root, name, options)


def _read_good(root: Path, folders: list[Path]) -> Found:
    """List the images of the good folders; without any, those directly in the category."""
    direct = list_files(root)
    if not folders:
        note = f"the images in {root} are taken as good: it has no subfolder {GOOD}"
        return Found(_good_entries(root, direct.images), direct.left_out, (note,))
    found = leave_out(direct)
    for folder in folders:
        listing = list_below(folder)
        found += Found(_good_entries(folder, listing.images), listing.left_out)
    if len(folders) > 1:
        names = " and ".join(folder.name for folder in folders)
        found += Found(notes=(f"{names} in {root} are both taken as good images",))
    return found


def _good_entries(folder: Path, files: tuple[Path, ...]) -> tuple[Entry, ...]:
    images, masks = split_masks(files)
    if masks:
        image, mask = next(iter(masks.items()))
        raise DatasetError(
            f"expected good images in {folder}, found {len(masks)} with a mask, such as "
            f"{mask.name} of {image.name}: move defective images to a folder of their own, or list "
            "the images in a CSV file (path,label,mask,split)"
        )
    return tuple(Entry(file, GOOD, UNSPLIT) for file in images)


def _read_defective(root: Path, folders: list[Path], mask_folders: list[Path]) -> Found:
    """List the images of defect types, each with its mask if there is one."""
    for folder in (*folders, *mask_folders):
        if not folder.is_dir():
            raise DatasetError(
                f"expected the folder {folder}, found none (--abnormal_dir, --mask_dir)"
            )
    drawn = {folder: list_below(folder).images for folder in mask_folders}
    indexed = _index(drawn)
    found, used = Found(), dict[Path, Path]()
    for folder in folders:
        listing = list_below(folder)
        images, beside = split_masks(listing.images)
        entries = []
        for file in images:
            kind = file.parent.relative_to(root)
            mask = beside.get(file) or _find_mask(file.stem, kind, indexed)
            if mask in used:
                raise DatasetError(
                    f"expected a mask of its own for each image, found {mask} for {used[mask]} and "
                    f"{file}: put masks in folders of the defect types"
                )
            if mask is not None:
                used[mask] = file
            files = None if mask is None else MaskFiles((mask,))
            entries.append(Entry(file, as_name("_".join(kind.parts)), UNSPLIT, files))
        found += Found(tuple(entries), listing.left_out)
    spare = [file for files in drawn.values() for file in files if file not in used]
    if spare and found.entries and not used:
        raise DatasetError(
            f"expected masks named like the defective images, for example "
            f"{found.entries[0].path.stem}_mask.png, found {spare[0]} (--mask_dir)"
        )
    return found + Found(left_out=tuple(LeftOut(f, "masks of no defective image") for f in spare))


def _index(drawn: dict[Path, tuple[Path, ...]]) -> dict[tuple[str, ...], dict[str, Path]]:
    """Return mask files by the folders between the mask folder and the file, and by stem."""
    indexed: dict[tuple[str, ...], dict[str, Path]] = {}
    for folder, files in drawn.items():
        for file in files:
            indexed.setdefault(file.parent.relative_to(folder).parts, {})[file.stem] = file
    return indexed


def _find_mask(
    stem: str, kind: Path, indexed: dict[tuple[str, ...], dict[str, Path]]
) -> Path | None:
    """Return the mask of an image: from the folder of its defect type, or without this folder."""
    for parts in (kind.parts, kind.parts[-1:], ()):
        if (mask := find_mask(stem, indexed.get(parts, {}))) is not None:
            return mask
    return None


def _categories(path: Path, options: ReadOptions) -> dict[str, Path]:
    """Return the folders of the categories by name."""
    if _is_category(path, options):
        return {path.resolve().name: path}
    named = [folder for folder in list_folders(path) if not is_defective_name(folder.name)]
    return {folder.name: folder for folder in named if _is_category(folder, options)}


def _is_category(folder: Path, options: ReadOptions) -> bool:
    if options.normal_dir:
        return (folder / options.normal_dir).is_dir()
    return bool(_good_folders(folder, options)) or has_images(folder)


def _good_folders(root: Path, options: ReadOptions) -> list[Path]:
    if options.normal_dir:
        return [root / options.normal_dir]
    return [folder for folder in list_folders(root) if is_good_name(folder.name)]


def _type_folders(root: Path, options: ReadOptions) -> list[Path]:
    if options.abnormal_dir:
        return [root / name for name in options.abnormal_dir]
    return [f for f in list_folders(root) if not is_good_name(f.name) and not is_mask_name(f.name)]


def _mask_folders(root: Path) -> list[Path]:
    return [folder for folder in list_folders(root) if is_mask_name(folder.name)]
