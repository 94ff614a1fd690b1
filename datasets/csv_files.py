"""CSV files of datasets, in the encodings and with the separators that spreadsheets write."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets.base import DatasetError

SEPARATORS = ",;\t"


@dataclass(frozen=True)
class Rows:
    """The rows of a CSV file.

    Attributes:
        rows: One dictionary per row, with column names in lower case.
        notes: What was assumed about the file.
    """

    rows: list[dict[str, str]]
    notes: tuple[str, ...] = ()


def read_rows(path: Path, required: Sequence[str] = ()) -> Rows:
    """Read a CSV file with a header; values without surrounding spaces, empty rows left out.

    Args:
        path: The file: UTF-8 with or without a byte-order mark, UTF-16 with one, else Latin-1.
            Values are separated by ``,``, ``;`` or tabs.
        required: Columns that it must have, in lower case.

    Raises:
        DatasetError: The file cannot be read, a column is missing, or a row has too many values.
    """
    text, notes = _read_text(path)
    lines = text.splitlines()
    header = lines[0] if lines else ""
    separator = max(SEPARATORS, key=header.count)
    reader = csv.DictReader(lines, delimiter=separator)
    try:
        return Rows(_read_rows(reader, path, required), notes)
    except csv.Error as error:
        raise DatasetError(f"cannot read line {reader.line_num + 1} of {path}: {error}") from error


def _read_rows(reader: csv.DictReader, path: Path, required: Sequence[str]) -> list[dict[str, str]]:
    names = {name: name.strip().lower() for name in reader.fieldnames or ()}
    if missing := [name for name in required if name not in names.values()]:
        found = ", ".join(names.values()) or "an empty file"
        raise DatasetError(
            f"expected columns {', '.join(missing)} in the first line of {path}, found {found}"
        )
    rows = []
    for row in reader:
        if None in row:
            raise DatasetError(
                f"expected {len(names)} values, found {len(names) + len(row[None])} in line "
                f"{reader.line_num} of {path}"
            )
        values = {names[name]: (value or "").strip() for name, value in row.items()}
        if any(values.values()):
            rows.append(values)
    return rows


def _read_text(path: Path) -> tuple[str, tuple[str, ...]]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        if data.startswith((b"\xff\xfe", b"\xfe\xff")):
            return data.decode("utf-16"), ()
        return data.decode("utf-8-sig"), ()
    except UnicodeDecodeError:
        return data.decode("latin-1"), (f"{path} is not UTF-8: read as Latin-1",)
