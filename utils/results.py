"""Result rows: the measurements of a category, and their CSV files."""

import csv
import hashlib
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from utils.errors import UsageError
from utils.output_names import DEFECTS_FILE, RESULTS_FILE

FIXED_COLUMNS = frozenset(
    {"category", "percentage_coreset", "k", "seed", "shots", "num_train", "num_test", "model"}
)
SECONDS = "seconds_"
# Columns with names that come from the data.
_NAMES = ("category", "model", "defect_type")
# A name that begins so would be a formula in a spreadsheet; "'" is quoted so that it can be read.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "'")
# Column of the images of a row, or of those of a defect type.
NUM_TEST = "num_test"
SECONDS_TOTAL = "seconds_total"


@dataclass(frozen=True)
class Setting:
    """Coreset percentage and number of training images, which figures and tables distinguish.

    Attributes:
        percentage: Coreset size as a fraction of the training patches, in (0, 1].
        shots: Number of training images of a few-shot run; None for all.
    """

    percentage: float
    shots: int | None = None

    @property
    def order(self) -> tuple[float, float]:
        """Sort key: by ascending shots, all images last, then by ascending percentage."""
        return math.inf if self.shots is None else self.shots, self.percentage

    @property
    def key(self) -> str:
        """Text that no other setting shares, without spaces."""
        return f"{self.percentage!r}" + ("" if self.shots is None else f"_shots{self.shots}")

    def __str__(self) -> str:
        few = "" if self.shots is None else f", {shots_text(self.shots)}"
        return f"{100 * self.percentage:g} %{few}"


@dataclass(frozen=True)
class ResultRow:
    """Measurements of one category with one model, coreset percentage, seed and number of shots.

    Attributes:
        category: The category's name.
        percentage_coreset: Coreset size as a fraction of the training patches, in (0, 1].
        k: Number of nearest neighbours.
        seed: Seed of the coreset selection and of the choice of training images.
        num_train: Number of training images.
        num_test: Number of test images.
        metrics: Metrics by the keys of `utils.metric_columns`: fractions, counts and scores; NaN if
            not measured.
        seconds: Seconds by stage that this percentage and seed would take alone: a shared stage
            counts in full for each.
        model: Name of the backbone, or ``ensemble``.
        defects: Image metrics by defect type (its images against the good images).
        shots: Number of training images that was asked for; None for all.
    """

    category: str
    percentage_coreset: float
    k: int
    seed: int
    num_train: int
    num_test: int
    metrics: Mapping[str, float]
    seconds: Mapping[str, float]
    model: str
    defects: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    shots: int | None = None

    @property
    def seconds_total(self) -> float:
        """Seconds from reading the first image to the metrics, without drawing."""
        return sum(self.seconds.values())

    @property
    def setting(self) -> Setting:
        """Coreset percentage and number of shots."""
        return Setting(self.percentage_coreset, self.shots)

    @property
    def key(self) -> tuple:
        """Model, category, percentage, k, seed and shots, which no other row of a run shares."""
        setting = self.percentage_coreset, self.k, self.seed, self.shots
        return self.model, self.category, *setting

    def value(self, column: str) -> float:
        """Return the metric of a column of ``results.csv``, or the total time; NaN if missing."""
        if column == SECONDS_TOTAL:
            return self.seconds_total
        return self.metrics.get(column, math.nan)

    def to_record(self) -> dict[str, str]:
        """Return the columns of ``results.csv`` as text; empty if not measured."""
        seconds = {SECONDS_TOTAL: self.seconds_total}
        seconds |= {SECONDS + stage: value for stage, value in self.seconds.items()}
        return {
            **self._setting(),
            "num_train": str(self.num_train),
            "num_test": str(self.num_test),
            **{name: _number(value) for name, value in self.metrics.items()},
            **{name: f"{value:.3f}" for name, value in seconds.items()},
            "model": self.model,
        }

    def to_defect_records(self) -> list[dict[str, str]]:
        """Return this row's part of ``results_defects.csv``."""
        return [
            {
                **self._setting(),
                "defect_type": defect_type,
                **{name: _number(value) for name, value in metrics.items()},
                "model": self.model,
            }
            for defect_type, metrics in self.defects.items()
        ]

    @classmethod
    def from_record(cls, record: Mapping[str, str]) -> "ResultRow":
        """Make a row from a record of ``results.csv``; without defect types.

        Raises:
            KeyError, ValueError: a column is missing or is not a number.
        """
        times = [name for name in record if name.startswith(SECONDS)]
        stages = [name for name in times if name != SECONDS_TOTAL and record[name]]
        return cls(
            category=record["category"],
            percentage_coreset=float(record["percentage_coreset"]),
            k=int(record["k"]),
            seed=int(record["seed"]),
            shots=_read_shots(record),
            num_train=int(record["num_train"]),
            num_test=int(record["num_test"]),
            metrics=_read_metrics(record, FIXED_COLUMNS.union(times)),
            seconds={name.removeprefix(SECONDS): float(record[name]) for name in stages},
            model=record["model"],
        )

    def _setting(self) -> dict[str, str]:
        return {
            "category": self.category,
            "percentage_coreset": str(self.percentage_coreset),
            "k": str(self.k),
            "seed": str(self.seed),
            "shots": "" if self.shots is None else str(self.shots),
        }


def results_csv(rows: Sequence[ResultRow]) -> str:
    """Return the text of ``results.csv``."""
    return csv_text([row.to_record() for row in rows])


def defects_csv(rows: Sequence[ResultRow]) -> str:
    """Return the text of ``results_defects.csv``."""
    return csv_text([record for row in rows for record in row.to_defect_records()])


def measured(row: ResultRow) -> dict[str, str]:
    """Return the columns of ``results.csv`` that a repeated run has again: all but the times."""
    return {k: v for k, v in row.to_record().items() if not k.startswith(SECONDS)}


def results_digest(rows: Iterable[ResultRow]) -> str:
    """Return a digest of results without their times, in whatever order they are."""
    records = sorted(sorted(measured(row).items()) for row in rows)
    return hashlib.sha256(json.dumps(records).encode()).hexdigest()


def csv_text(records: Sequence[Mapping[str, str]], columns: Iterable[str] = ()) -> str:
    """Return records as CSV with a header.

    Args:
        records: The rows, possibly with different columns; missing values are left empty.
        columns: The columns; by default those of the records.
    """
    found = dict.fromkeys(column for record in records for column in record)
    names = list(columns or found)
    rows = [{k: as_cell(v) if k in _NAMES else v for k, v in record.items()} for record in records]
    return "".join(csv_line(row, names) for row in [dict(zip(names, names, strict=True)), *rows])


def csv_line(row: Mapping[str, str], names: Sequence[str]) -> str:
    """Return one line of CSV; missing values are left empty."""
    text = io.StringIO()
    # The default line terminator makes the module quote cells with \r or \n.
    csv.DictWriter(text, names, restval="").writerow(row)
    return text.getvalue().removesuffix("\r\n") + "\n"


def read_rows(folder: Path) -> list[ResultRow]:
    """Read ``results.csv`` and ``results_defects.csv`` of a result folder.

    Raises:
        UsageError: there is no ``results.csv``, it has no row, or this program did not write it.
    """
    path = folder / RESULTS_FILE
    try:
        rows = [ResultRow.from_record(record) for record in _read_csv(path)]
        if not rows:
            raise UsageError(f"expected rows of results in {path}, found none")
        defects = _read_defects(folder / DEFECTS_FILE)
        return [replace(row, defects=defects.get(row.key, {})) for row in rows]
    except OSError as error:
        raise UsageError(
            f"expected a result folder with {RESULTS_FILE}, found none at {path} ({error.strerror})"
        ) from error
    except (KeyError, ValueError, TypeError, AttributeError, OverflowError, csv.Error) as error:
        reason = f"find the column {error}" if isinstance(error, KeyError) else f"read {error}"
        raise UsageError(f"expected results of this program in {path}, cannot {reason}") from error


def as_cell(text: str) -> str:
    """Return a name for a CSV file, such that no spreadsheet takes it for a formula.

    A quote before the first character makes it text; `from_cell` removes it.
    """
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text


def from_cell(text: str) -> str:
    """Return a name that `as_cell` has written."""
    is_quoted = text.startswith("'") and text[1:].startswith(_FORMULA_STARTS)
    return text[1:] if is_quoted else text


def _read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8-sig") as file:  # spreadsheets add a mark
        records = list(csv.DictReader(file))
    for number, record in enumerate(records, start=1):
        if None in record or None in record.values():
            raise ValueError(f"row {number}: it has more or fewer cells than there are columns")
    return [{k: from_cell(v) if k in _NAMES else v for k, v in r.items()} for r in records]


def _read_defects(path: Path) -> dict[tuple, dict[str, dict[str, float]]]:
    """Return the metrics of defect types by the keys of their rows; empty without the file."""
    found: dict[tuple, dict[str, dict[str, float]]] = {}
    for record in _read_csv(path) if path.is_file() else ():
        key = (record["model"], record["category"], float(record["percentage_coreset"]))
        key += (int(record["k"]), int(record["seed"]), _read_shots(record))
        metrics = _read_metrics(record, FIXED_COLUMNS - {NUM_TEST} | {"defect_type"})
        if NUM_TEST not in metrics:
            raise KeyError(NUM_TEST)
        found.setdefault(key, {})[record["defect_type"]] = metrics
    return found


def _read_metrics(record: Mapping[str, str], others: frozenset[str]) -> dict[str, float]:
    """Return the metrics of a record, all columns except ``others``; NaN for an empty value."""
    return {name: float(text or "nan") for name, text in record.items() if name not in others}


def _read_shots(record: Mapping[str, str]) -> int | None:
    """Return the number of shots; None for all training images, and in files without the column."""
    return int(record["shots"]) if record.get("shots") else None


def shots_text(shots: int) -> str:
    """Return a number of training images in words, for example ``4 shots``."""
    return numbered(shots, "shot")


def numbered(number: int, noun: str) -> str:
    """Return a number with its noun, for example ``1 image`` or ``2 categories``."""
    plural = noun.removesuffix("y") + "ies" if noun.endswith("y") else f"{noun}s"
    return f"{number} {noun if number == 1 else plural}"


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.9g}"
