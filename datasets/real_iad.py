"""The layout of Real-IAD (Wang et al. 2024), with its lists of images.

PATH/realiad_jsons/<category>.json, or PATH/realiad_jsons/realiad_jsons/<category>.json:
    {"meta": {"normal_class": "OK", "prefix": "<category>/"}, "train": [...], "test": [...]}
    with image_path, mask_path, category and anomaly_class in each entry
PATH/realiad_1024/<category>/OK/..., NG/... (or realiad_512, realiad_256, realiad_raw)
"""

from pathlib import Path

from datasets.base import GOOD, Category, DatasetError, MaskFiles
from datasets.entries import TEST, TRAIN, Entry, ReadOptions, make_category
from datasets.json_files import MALFORMED, read_json
from datasets.listing import choose, has_folder, listed_file

LISTS = "realiad_jsons"
# The published results are those of the images of 1024 pixels.
SIZES = ("realiad_1024", "realiad_raw", "realiad_512", "realiad_256")


def match(path: Path) -> str | None:
    """Return an empty text if a folder is in this layout, what it lacks, or None."""
    has_lists, has_any = bool(_lists(path)), _images(path) is not None
    if not has_lists and not has_any:
        return None
    if not has_lists:
        return f"{LISTS}/<category>.json"
    return "" if has_any else SIZES[0]


def find_categories(path: Path, options: ReadOptions) -> list[str]:
    """Return the names of the categories: those of the lists that have images."""
    images = _images(path)
    return sorted(name for name in _lists(path) if images and (images / name).is_dir())


def read_category(path: Path, name: str, options: ReadOptions) -> Category:
    """List the images of a category as its list divides them.

    Raises:
        DatasetError: There is no such category, the list is not as expected, or a file is missing.
    """
    source = choose({n: _lists(path)[n] for n in find_categories(path, options)}, name, path)
    images = _images(path)
    content = read_json(source)
    try:
        normal = content["meta"]["normal_class"]
        root = images / content["meta"]["prefix"]
        entries = [
            _entry(root, record, normal, split, source)
            for split in ((TRAIN,) if options.training_only else (TRAIN, TEST))
            for record in content[split]
        ]
    except MALFORMED as error:
        raise DatasetError(
            f"expected meta, train and test as in Real-IAD in {source}, found something else "
            f"({error!r})"
        ) from error
    others = [size for size in SIZES if has_folder(path, size) and size != images.name]
    facts = [f"images of {images.name}; not used: {', '.join(others)}"] if others else []
    return make_category(root, name, entries, options, facts=facts)


def _entry(root: Path, record: dict[str, str], normal: str, split: str, source: Path) -> Entry:
    is_good = record["anomaly_class"] == normal
    image = listed_file(root, record["image_path"], source)
    is_drawn = not is_good and bool(record.get("mask_path"))
    mask = listed_file(root, record["mask_path"], source) if is_drawn else None
    defect_type = GOOD if is_good else str(record["anomaly_class"])
    return Entry(image, defect_type, split, None if mask is None else MaskFiles((mask,)))


def _lists(path: Path) -> dict[str, Path]:
    """Return the list of each category."""
    for folder in (path / LISTS / LISTS, path / LISTS):
        if files := sorted(folder.glob("*.json")):
            return {file.stem: file for file in files}
    return {}


def _images(path: Path) -> Path | None:
    return next((path / size for size in SIZES if has_folder(path, size)), None)
