"""CSV files of datasets, in the encodings and with the separators that spreadsheets write."""

import csv
import io
from collections import Counter
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
    separator = max(SEPARATORS, key=next(_lines(text), "").count)
    reader = csv.DictReader(_lines(text), delimiter=separator)
    try:
        return Rows(_read_rows(reader, path, required), notes)
    except csv.Error as error:
        raise DatasetError(f"cannot read line {reader.line_num + 1} of {path}: {error}") from error


def _lines(text: str) -> io.StringIO:
    """Return the lines of a text with their ends, which values in quotes may contain."""
    return io.StringIO(text, newline="")


def _read_rows(reader: csv.DictReader, path: Path, required: Sequence[str]) -> list[dict[str, str]]:
    names = [name.strip().lower() for name in reader.fieldnames or ()]
    reader.fieldnames = names
    if missing := [name for name in required if name not in names]:
        found = ", ".join(names) or "an empty file"
        raise DatasetError(
            f"expected columns {', '.join(missing)} in the first line of {path}, found {found}"
        )
    if double := [name for name, count in Counter(filter(None, names)).items() if count > 1]:
        raise DatasetError(f"expected each column once in {path}, found {double[0]} twice")
    rows = []
    for row in reader:
        if None in row:
            raise DatasetError(
                f"expected {len(names)} values, found {len(names) + len(row[None])} in line "
                f"{reader.line_num} of {path}"
            )
        values = {name: (value or "").strip() for name, value in row.items()}
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
