"""The layout of Magnetic Tile Defects (Huang et al. 2020): one category, without a split.

PATH/MT_Free/Imgs/exp1_num_1.jpg, exp1_num_1.png (mask)
PATH/MT_Blowhole/Imgs/..., MT_Break, MT_Crack, MT_Fray, MT_Uneven
"""

from pathlib import Path

from datasets.base import GOOD, Category, DatasetError, MaskFiles
from datasets.entries import UNSPLIT, Entry, ReadOptions
from datasets.listing import choose, has_folder, index_masks, list_files, list_folders, stem_of
from datasets.type_folders import Found, spare_masks

NAME, PREFIX, FREE, INSIDE = "magnetic_tile", "MT_", "MT_Free", "Imgs"


def match(path: Path) -> str | None:
    """Return an empty text if a folder is in this layout, what it lacks, or None."""
    names = [folder.name for folder in _types(path)]
    if not names:
        return None
    return "" if FREE in names else f"{FREE}/{INSIDE}"


def find_categories(path: Path, options: ReadOptions) -> list[str]:
    """Return the name of the only category."""
    return [NAME]


def read_category(path: Path, name: str, options: ReadOptions) -> Category:
    """List the images; a share of the good ones is held out.

    Raises:
        DatasetError: There is no such category, or a mask is missing.
    """
    root = choose({NAME: path}, name, path)
    found = Found()
    for folder in _types(root):
        listing = list_files(folder / INSIDE, unique=False)
        entries = []
        masks = index_masks(file for file in listing.images if file.suffix.lower() == ".png")
        for file in listing.images:
            if file.suffix.lower() == ".png":
                continue
            if folder.name == FREE:
                entries.append(Entry(file, GOOD, UNSPLIT))
                continue
            mask = masks.pop(stem_of(file), None)
            if mask is None:
                raise DatasetError(f"expected the mask {file.with_suffix('.png')} of {file}")
            defect_type = folder.name.removeprefix(PREFIX)
            entries.append(Entry(file, defect_type, UNSPLIT, MaskFiles((mask,))))
        found += Found(tuple(entries), listing.left_out)
        if folder.name != FREE:
            found += spare_masks(masks.values())
    return found.category(root, name, options)


def _types(path: Path) -> list[Path]:
    folders = [folder for folder in list_folders(path) if folder.name.startswith(PREFIX)]
    return [folder for folder in folders if has_folder(folder, INSIDE)]
