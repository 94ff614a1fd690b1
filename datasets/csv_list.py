"""A CSV file that lists images: ``path,label,mask,split``, in any order of columns.

``path`` is relative to the file's folder. ``label`` is ``good`` or another usual name, or 0, for a
good image, otherwise the name of the defect; ``mask`` may be empty; ``split`` is ``train``,
``test``, ``validation`` or empty. A column ``category`` divides the images into categories.
Only ``path`` is required: without ``label`` all images are good.
"""

from pathlib import Path

from datasets.base import GOOD, Category, DatasetError, MaskFiles
from datasets.csv_files import Rows, read_rows
from datasets.entries import Entry, ReadOptions, make_category, split_named
from datasets.listing import as_name, choose, is_good_name, listed_file

SUFFIXES = (".csv", ".tsv")
COLUMNS = frozenset({"path", "label", "mask", "split", "category"})


def match(path: Path) -> str | None:
    """Return an empty text if a file is a list, else None."""
    return "" if path.is_file() and path.suffix.lower() in SUFFIXES else None


def find_categories(path: Path, options: ReadOptions) -> list[str]:
    """Return the names of the categories; without a column, the name of the file.

    Raises:
        DatasetError: The file is not a list of images.
    """
    return sorted(_by_category(path, read_rows(path, ("path",))))


def read_category(path: Path, name: str, options: ReadOptions) -> Category:
    """List the images of a category.

    Raises:
        DatasetError: There is no such category, a listed file is missing or is listed twice, or a
            split has no known name.
    """
    listed = read_rows(path, ("path",))
    entries = []
    for row in choose(_by_category(path, listed), name, path):
        split = split_named(row.get("split", ""), path)
        if not options.lists(split):
            continue
        file = listed_file(path.parent, row["path"], path)
        label = row.get("label", "")
        if row.get("mask") and not label:
            raise DatasetError(
                f"expected a label of {file}, which has a mask, found none in {path}"
            )
        is_good = not label or label == "0" or is_good_name(label)
        is_drawn = bool(row.get("mask")) and not is_good
        mask = listed_file(path.parent, row["mask"], path) if is_drawn else None
        drawn = mask and MaskFiles((mask,))
        entries.append(Entry(file, GOOD if is_good else label, split, drawn))
    notes = list(listed.notes)
    if others := sorted({column for row in listed.rows for column in row} - COLUMNS):
        notes.append(f"columns of {path} that are not used: {', '.join(others)}")
    if listed.rows and "label" not in listed.rows[0]:
        notes.append(f"{path} has no column label: all images are taken as good")
    return make_category(path.parent, name, entries, options, notes=notes)


def _by_category(path: Path, listed: Rows) -> dict[str, list[dict[str, str]]]:
    rows: dict[str, list[dict[str, str]]] = {}
    texts: dict[str, str] = {}  # what the list calls each category
    for row in listed.rows:
        if not row["path"]:
            raise DatasetError(f"expected a path in each line of {path}, found a line without")
        text = (row.get("category") or path.stem).strip()
        name = as_name(text)
        if texts.setdefault(name, text) != text:
            raise DatasetError(
                f"expected categories with different file names, found {texts[name]!r} and "
                f"{text!r} in {path}, both {name!r} as a file name: rename one"
            )
        rows.setdefault(name, []).append(row)
    if not rows:
        raise DatasetError(f"expected images in the lines of {path}, found none (--path_data)")
    return rows
