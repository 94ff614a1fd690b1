"""Polygons drawn with LabelMe: a JSON file next to each annotated image.

PATH/001.jpg, PATH/001.json, ..., also in folders ``train`` and ``test``, or in any other folders
PATH/<category>/001.jpg, ...

Images without shapes are good, except in a folder of defective images: one with a usual name, or
next to a folder of good images. The labels of the shapes are the defect types.
"""

import math
import os
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from datasets.base import GOOD, Category, DatasetError, Ellipse, LeftOut, MaskShapes, Polygon
from datasets.entries import UNSPLIT, Entry, ReadOptions, make_category, split_in
from datasets.json_files import MALFORMED, OTHER_LAYOUT, read_json, stated_size
from datasets.listing import (
    category_folder,
    category_folders,
    is_defective_name,
    is_good_name,
    list_below,
    list_folders,
    stem_of,
)

SUFFIX = ".json"
# JSON files of a folder that are read to recognise the layout; other programs also write some.
MAX_TRIED = 9
REASON = "shapes that enclose no area, or are none of polygon, rectangle and circle"


def match(path: Path) -> str | None:
    """Return an empty text if a folder is in this layout, else None.

    Raises:
        DatasetError: JSON files next to images cannot be read.
    """
    return "" if category_folders(path, is_category) else None


def find_categories(path: Path, options: ReadOptions) -> list[str]:
    """Return the names of the categories: folders with annotated images."""
    return sorted(category_folders(path, is_category))


def read_category(path: Path, name: str, options: ReadOptions) -> Category:
    """List the images of a category.

    Raises:
        DatasetError: There is no such category, or an annotation file is not as expected.
    """
    root = category_folder(path, name, is_category)
    listing = list_below(root)
    kinds = {file: _kind(file.relative_to(root).parent.parts) for file in listing.images}
    has_good = any(map(is_good_name, kinds.values()))
    entries, skipped, used = [], Counter(), set()
    sources = {_pair(f.path): f.path for f in listing.left_out if f.path.suffix.lower() == SUFFIX}
    for file in listing.images:
        split = next(filter(None, map(split_in, file.relative_to(root).parent.parts)), UNSPLIT)
        if not options.lists(split):
            continue
        source = sources.get(_pair(file))
        shapes, size = {}, None
        if source is not None:
            used.add(source)
            shapes, size = _read_shapes(source, skipped)
        labels = [label for label in shapes if not is_good_name(label)]
        if not labels:
            kind = kinds[file]
            is_good = not kind or is_good_name(kind) or not (has_good or is_defective_name(kind))
            entries.append(Entry(file, GOOD if is_good else kind, split))
            continue
        found = tuple(shape for label in labels for shape in shapes[label])
        mask = MaskShapes(source, found, size) if found else None
        entries.append(Entry(file, "+".join(sorted(labels)), split, mask))
    left_out: list[LeftOut] = [left for left in listing.left_out if left.path not in used]
    notes = [f"{count} {kind}: {REASON}" for kind, count in skipped.items()]
    return make_category(root, name, entries, options, left_out=left_out, notes=notes)


def is_category(folder: Path) -> bool:
    """Return whether a folder, or its subfolder of a split or of good or defective images, is.

    Next to a folder of good images, any other one is of defective images.
    """
    folders = list_folders(folder)
    has_good = any(is_good_name(f.name) for f in folders)
    below = [f for f in folders if has_good or split_in(f.name) or is_defective_name(f.name)]
    return any(map(_is_annotated, (folder, *below)))


def _kind(parts: tuple[str, ...]) -> str:
    """Return the first folder of an image that is none of a split; empty without."""
    return next((part for part in parts if not split_in(part)), "")


def _is_annotated(folder: Path) -> bool:
    """Return whether one of the first JSON files that are named as an image has shapes."""
    faults = []
    for source in islice(_sources(folder), MAX_TRIED):
        try:
            if "shapes" in _mapping(source):
                return True
        except DatasetError as error:
            faults.append(error)
    if faults:
        raise DatasetError(f"{faults[0]}; {OTHER_LAYOUT}") from faults[0]
    return False


def _sources(folder: Path) -> Iterator[Path]:
    """Yield the JSON files that are named as another file, in order of names."""
    if not folder.is_dir():
        return
    with os.scandir(folder) as entries:  # unlike Path.glob, fast for many files
        names = [entry.name for entry in entries if not entry.name.startswith(".")]
    if sources := sorted(name for name in names if name.lower().endswith(SUFFIX)):
        others = {stem_of(Path(name)) for name in names if not name.lower().endswith(SUFFIX)}
        yield from (folder / name for name in sources if stem_of(Path(name)) in others)


def _pair(file: Path) -> tuple[Path, str]:
    """Return what an image and its annotations have in common."""
    return file.parent, stem_of(file)


def _mapping(source: Path) -> dict:
    content = read_json(source)
    return content if isinstance(content, dict) else {}


def _read_shapes(
    source: Path, skipped: Counter[str]
) -> tuple[dict[str, list[Polygon | Ellipse]], tuple[int, int] | None]:
    """Return the shapes by label, and the size of the image that the file states.

    A label of shapes without an area has none.
    """
    found: dict[str, list[Polygon | Ellipse]] = {}
    try:
        content = _mapping(source)
        size = stated_size(content, "imageHeight", "imageWidth")
        for record in content["shapes"]:
            shapes = found.setdefault(str(record["label"]), [])
            kind = record.get("shape_type") or "polygon"
            shape = _shape(kind, [tuple(map(float, point)) for point in record["points"]])
            if shape is None:
                skipped[kind] += 1
            else:
                shapes.append(shape)
    except MALFORMED as error:
        raise DatasetError(
            f"expected shapes with label and points as in LabelMe in {source}, found something "
            f"else ({error!r})"
        ) from error
    return found, size


def _shape(kind: str, points: list[tuple[float, ...]]) -> Polygon | Ellipse | None:
    # Some programs write all corners of a rectangle.
    if kind in ("polygon", "rectangle", "rotation") and len(points) > 2:
        return Polygon(tuple(points))
    if kind == "rectangle" and len(points) == 2:
        (left, top), (right, bottom) = points
        return Polygon(((left, top), (right, top), (right, bottom), (left, bottom)))
    if kind == "circle" and len(points) == 2:
        radius = math.dist(*points)
        return Ellipse(points[0], (radius, radius))
    return None
