"""Annotations in COCO's format: one JSON file, or a folder with one file per split.

FILE.json, with images in the same folder, in ``images/`` or in the folder above
PATH/annotations/instances_train.json, instances_test.json, ..., PATH/train/..., PATH/test/...
PATH/train/_annotations.coco.json, PATH/test/_annotations.coco.json

Images without annotations are good. The names of the annotations' classes are the defect types.
"""

import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from datasets.base import GOOD, Category, DatasetError, MaskShapes, Polygon, RunLengths
from datasets.entries import UNSPLIT, Entry, ReadOptions, make_category, split_in
from datasets.json_files import MALFORMED, OTHER_LAYOUT, read_json, stated_size
from datasets.listing import as_name, choose, find_file, has_images, is_good_name, list_folders

ANNOTATIONS, IMAGES = "annotations", "images"

# A folder with more JSON files than these has one per image.
MAX_FILES = 9

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """A JSON file of annotations, and the split of its images."""

    path: Path
    split: str


def match(path: Path) -> str | None:
    """Return an empty text if a file or folder is in this layout, else None.

    Raises:
        DatasetError: A JSON file that may annotate images cannot be read.
    """
    return "" if _find_files(path) else None


def find_categories(path: Path, options: ReadOptions) -> list[str]:
    """Return the name of the only category: that of the file or folder."""
    return [_name(path)]


def read_category(path: Path, name: str, options: ReadOptions) -> Category:
    """List the annotated images.

    Raises:
        DatasetError: There is no such category, splits are unclear, or an image is missing.
    """
    choose({_name(path): path}, name, path)
    entries: list[Entry] = []
    notes: list[str] = []
    for source in _sources(path):
        if options.lists(source.split):
            entries += _read(source, notes)
    return make_category(
        path if path.is_dir() else path.parent, name, entries, options, notes=notes
    )


def _read(source: Source, notes: list[str]) -> list[Entry]:
    content = read_json(source.path)
    try:
        # Some programs write an identifier as a number in one place, and as a text in another.
        classes = {str(r["id"]): str(r["name"]) for r in content.get("categories", ())}
        annotations: dict[str, list[dict]] = {}
        for record in content["annotations"]:
            if not is_good_name(classes.get(str(record["category_id"]), "")):
                annotations.setdefault(str(record["image_id"]), []).append(record)
        entries = [
            _entry(source, record, annotations.get(str(record["id"]), []), classes)
            for record in content["images"]
        ]
        listed = Counter(str(record["id"]) for record in content["images"])
    except MALFORMED as error:
        raise DatasetError(
            f"expected annotations in COCO's format in {source.path}, found something else "
            f"({error!r})"
        ) from error
    if double := [image for image, count in listed.items() if count > 1]:
        raise DatasetError(
            f"expected each id of an image once in {source.path}, found {double[0]!r} twice"
        )
    if spare := sum(len(found) for image, found in annotations.items() if image not in listed):
        notes.append(
            f"{spare} annotations in {source.path} are of no image that it lists, not used"
        )
    boxes = sum(not a.get("segmentation") for found in annotations.values() for a in found)
    if boxes:
        notes.append(f"{boxes} annotations in {source.path} have only a box, used as their mask")
    return entries


def _entry(source: Source, record: dict, annotations: list[dict], classes: dict[str, str]) -> Entry:
    path = _find_image(source, record["file_name"])
    if not annotations:
        return Entry(path, GOOD, source.split)
    names = sorted({classes.get(str(a["category_id"]), "defect") for a in annotations})
    shapes = tuple(shape for annotation in annotations for shape in _shapes(annotation))
    mask = MaskShapes(source.path, shapes, stated_size(record, "height", "width"))
    return Entry(path, "+".join(names), source.split, mask)


def _shapes(annotation: dict) -> list[Polygon | RunLengths]:
    """Return the shapes of an annotation; without a segmentation its box."""
    segmentation = annotation.get("segmentation")
    if isinstance(segmentation, dict):
        counts = segmentation["counts"]
        height, width = segmentation["size"]
        return [RunLengths((height, width), counts if isinstance(counts, str) else tuple(counts))]
    if segmentation:
        return [Polygon(tuple(zip(line[::2], line[1::2], strict=True))) for line in segmentation]
    x, y, width, height = annotation["bbox"]
    return [Polygon(((x, y), (x + width, y), (x + width, y + height), (x, y + height)))]


def _find_image(source: Source, file_name: str) -> Path:
    """Return an image's file: in the JSON file's folder, in ``images``, or in the folder above."""
    here, above = source.path.parent, source.path.parent.parent
    of_split = [f for f in list_folders(above) if source.split and split_in(f.name) == source.split]
    for folder in (here, here / IMAGES, above, above / IMAGES, *of_split):
        if (file := find_file(folder, file_name)) is not None:
            return file
    raise DatasetError(
        f"expected the image {file_name}, which {source.path} lists, in {here}, {here / IMAGES} "
        f"or {above}, found none"
    )


def _sources(path: Path) -> list[Source]:
    """Return the files of annotations with their splits."""
    files = _find_files(path)
    sources = [
        Source(f, split_in(f.stem) or (UNSPLIT if f.parent == path else split_in(f.parent.name)))
        for f in files
    ]
    if len(sources) == 1:
        return [Source(sources[0].path, UNSPLIT)]
    if unclear := [source.path for source in sources if not source.split]:
        raise DatasetError(
            f"expected train, test or val in the name of each annotation file, found {unclear[0]}; "
            "give one file as --path_data"
        )
    return sources


def _find_files(path: Path) -> list[Path]:
    """Return the JSON files in COCO's format: the path, or those in a folder of a usual place."""
    if path.is_file():
        return [path] if path.suffix.lower() == ".json" and _is_coco(path) else []
    folders = [path, path / ANNOTATIONS]
    folders += [folder for folder in list_folders(path) if split_in(folder.name)]
    found = []
    for folder in folders:
        files = sorted(f for f in folder.glob("*.json") if not f.name.startswith("."))
        found += [f for f in files if _is_source(f)] if len(files) <= MAX_FILES else []
    return found


def _is_source(path: Path) -> bool:
    """Return whether a JSON file has annotations; one that cannot be read has none.

    Raises:
        DatasetError: It cannot be read, and images lie where its images would be.
    """
    try:
        return _is_coco(path)
    except DatasetError as error:
        if _may_annotate(path.parent):
            raise DatasetError(f"{error}; {OTHER_LAYOUT}") from error
        log.warning("not read as annotations: %s", error)
        return False


def _is_coco(path: Path) -> bool:
    content = read_json(path)
    return isinstance(content, dict) and {"images", "annotations"} <= set(content)


def _may_annotate(folder: Path) -> bool:
    return folder.name == ANNOTATIONS or has_images(folder) or has_images(folder / IMAGES)


def _name(path: Path) -> str:
    return as_name(path.stem if path.is_file() else path.resolve().name)
