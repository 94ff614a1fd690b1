"""Folders with one subfolder per defect type, as in MVTec AD and datasets like it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from datasets.base import GOOD, Category, DatasetError, LeftOut, MaskFiles
from datasets.entries import TRAIN, Entry, ReadOptions, make_category
from datasets.listing import (
    Listing,
    composed,
    find_mask,
    images_below,
    index_masks,
    is_good_name,
    is_ground_truth,
    list_files,
    list_folders,
    split_masks,
    stem_of,
)

INNER = "images in folders that are too deep for this layout"


@dataclass(frozen=True)
class Found:
    """What was found in folders.

    Attributes:
        entries: Images.
        left_out: Files that are not used.
        notes: What was assumed.
        facts: What is to be known about the images.
    """

    entries: tuple[Entry, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()
    facts: tuple[str, ...] = ()

    def __add__(self, other: "Found") -> "Found":
        return Found(
            self.entries + other.entries,
            self.left_out + other.left_out,
            self.notes + other.notes,
            self.facts + other.facts,
        )

    def category(self, root: Path, name: str, options: ReadOptions) -> Category:
        """Make a category of what was found, as `make_category` does."""
        return make_category(
            root,
            name,
            self.entries,
            options,
            left_out=self.left_out,
            notes=self.notes,
            facts=self.facts,
        )


def read_training(folder: Path, *, inside: str = "") -> Found:
    """List the training images: those of the good folder, or images without subfolders.

    Defective training images are listed too, as such.

    Args:
        folder: Folder with one subfolder per type.
        inside: Path from the subfolder of a type to its images.

    Raises:
        DatasetError: There is no good training image.
    """
    found = Found()
    for subfolder in list_folders(folder):
        found += _read_type(subfolder, TRAIN, subfolder / inside)
    direct = list_files(folder)
    if direct.images and not any(entry.defect_type == GOOD for entry in found.entries):
        note = f"the images in {folder} are taken as good: it has no subfolder {GOOD}"
        entries = tuple(Entry(file, GOOD, TRAIN) for file in direct.images)
        return found + Found(entries, direct.left_out, (note,))
    if not any(entry.defect_type == GOOD for entry in found.entries):
        raise DatasetError(
            f"expected training images without defects in {folder / GOOD / inside}, found none"
        )
    return found + leave_out(direct)


def leave_out(direct: Listing) -> Found:
    """Leave out the files that lie next to the folder of good images."""
    images = tuple(
        LeftOut(file, "images outside the folder of good images") for file in direct.images
    )
    return Found(left_out=images + direct.left_out)


def good_entries(folder: Path, files: tuple[Path, ...], split: str) -> tuple[Entry, ...]:
    """Return the entries of good images.

    Raises:
        DatasetError: Some are the masks of others.
    """
    images, masks = split_masks(files)
    if masks:
        image, mask = next(iter(masks.items()))
        raise DatasetError(
            f"expected good images in {folder}, found {len(masks)} with a mask, such as "
            f"{mask.name} of {image.name}: move defective images to a folder of their own, or list "
            "the images in a CSV file (path,label,mask,split)"
        )
    return tuple(Entry(file, GOOD, split) for file in images)


def read_types(
    folder: Path,
    split: str,
    masks_of: Callable[[Path], Path | None] = lambda _: None,
    *,
    inside: str = "",
) -> Found:
    """List the images of all types, each with its mask.

    Args:
        folder: Folder with one subfolder per type.
        split: Split of these images.
        masks_of: Returns the folder of the masks of a type, given the type's folder; None if there
            are no masks. It contains ``<stem>_mask`` or ``<stem>`` with any ending, or a folder
            ``<stem>`` of one or several masks.
        inside: Path from the subfolder of a type to its images.

    Raises:
        DatasetError: There is no type, a type has no image, or a mask is missing.
    """
    found = Found()
    folders = [f for f in list_folders(folder) if not is_ground_truth(f)]
    if not folders:
        raise DatasetError(f"expected one folder per defect type in {folder}, found none")
    for subfolder in folders:
        below = _read_type(subfolder, split, subfolder / inside, masks_of(subfolder))
        if not below.entries:
            raise DatasetError(f"expected test images in {subfolder / inside}, found none")
        found += below
    good = [subfolder.name for subfolder in folders if is_good_name(subfolder.name)]
    if len(good) > 1:
        found += Found(notes=(f"{' and '.join(good)} in {folder} are both taken as good images",))
    return found


def _read_type(folder: Path, split: str, images: Path, masks: Path | None = None) -> Found:
    """List the images of one type."""
    listing = list_files(images)
    deeper = [file for f in list_folders(images) if f != masks for file in images_below(f)]
    left_out = (*(LeftOut(file, INNER) for file in deeper), *listing.left_out)
    if is_good_name(folder.name):
        return Found(good_entries(images, listing.images, split), left_out)
    files, beside = split_masks(listing.images)
    single = index_masks(list_files(masks).images) if masks else {}
    several = {composed(f.name): list_files(f).images for f in list_folders(masks)} if masks else {}
    entries = []
    for file in files:
        mask = beside.get(file) or find_mask(stem_of(file), single)
        paths = several.get(stem_of(file)) or (() if mask is None else (mask,))
        if masks is not None and not paths:
            raise DatasetError(
                f"expected the mask {masks / file.stem}_mask.png of the defective image {file}"
            )
        entries.append(Entry(file, folder.name, split, MaskFiles(paths) if paths else None))
    used = {path for entry in entries if entry.mask for path in entry.mask.paths}
    spare = [file for file in (*single.values(), *chain(*several.values())) if file not in used]
    return Found(tuple(entries), left_out) + spare_masks(spare)


def spare_masks(files: Iterable[Path]) -> Found:
    """Leave out the masks that belong to no image."""
    return Found(left_out=tuple(LeftOut(file, "masks of no image") for file in files))
