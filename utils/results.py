"""What a run leaves behind: a folder in which nothing is lost and nothing is half-written."""

import csv
import io
import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from utils.errors import UsageError

RESULTS_FILE = "results.csv"
DEFECTS_FILE = "results_defects.csv"
TABLES_FILE = "tables.md"
RUN_FILE = "run.json"
REPORT_FILE = "index.html"
THUMBNAIL_FOLDER = "thumbnails"
EARLIER_FOLDER = "earlier"
OUTPUT_PATTERNS = (
    *("roc-curve_*.png", "roc_curve.png", "pr-curve_*.png", "pro-curve_*.png"),
    *("pred-dist_*.png", "localization_*.png", "explanation_*.png", "explanation_*.json"),
    "maps_*.npz",
)
FIXED_COLUMNS = frozenset(
    {"category", "percentage_coreset", "k", "seed", "num_train", "num_test", "model"}
)
# Sufficient for thumbnails.
JPEG_QUALITY = 82


@dataclass(frozen=True)
class ResultRow:
    """What was measured of one category with one model, percentage and seed.

    Attributes:
        category: Its name.
        percentage_coreset: In (0, 1].
        k: Nearest neighbours.
        seed: Of the selection.
        num_train: Training images.
        num_test: Test images.
        metrics: By name, as fractions or counts; NaN where there was nothing to measure.
        seconds: By stage, what this percentage and seed alone need: stages that several share
            count in full for each.
        model: The backbone's name, or ``ensemble``.
        defects: Image metrics of each defect type (its images against the good ones).
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

    @property
    def seconds_total(self) -> float:
        """From reading the first image until the metrics are known, without pictures."""
        return sum(self.seconds.values())

    @property
    def key(self) -> tuple:
        """What tells a row from all others: model, category, percentage, k, seed."""
        return self.model, self.category, self.percentage_coreset, self.k, self.seed

    def to_record(self) -> dict[str, str]:
        """Return the columns of ``results.csv`` as text; empty where nothing was measured."""
        seconds = {"seconds_total": self.seconds_total}
        seconds |= {f"seconds_{name}": value for name, value in self.seconds.items()}
        return {
            **self._setting(),
            "num_train": str(self.num_train),
            "num_test": str(self.num_test),
            **{name: _number(value) for name, value in self.metrics.items()},
            **{name: f"{value:.3f}" for name, value in seconds.items()},
            "model": self.model,
        }

    def to_defect_records(self) -> list[dict[str, str]]:
        """Return the rows of ``results_defects.csv``."""
        return [
            {
                **self._setting(),
                "defect_type": name,
                **{metric: _number(value) for metric, value in metrics.items()},
                "model": self.model,
            }
            for name, metrics in self.defects.items()
        ]

    @classmethod
    def from_record(cls, record: Mapping[str, str]) -> "ResultRow":
        """Read a row of ``results.csv`` back.

        Raises:
            KeyError, ValueError: a column is missing or is no number.
        """
        rest = {name: value for name, value in record.items() if name not in FIXED_COLUMNS}
        times = {name for name in rest if name.startswith("seconds_")}
        return cls(
            category=record["category"],
            percentage_coreset=float(record["percentage_coreset"]),
            k=int(record["k"]),
            seed=int(record["seed"]),
            num_train=int(record["num_train"]),
            num_test=int(record["num_test"]),
            metrics={name: float(rest[name] or "nan") for name in rest if name not in times},
            seconds={
                name.removeprefix("seconds_"): float(rest[name])
                for name in rest
                if name in times - {"seconds_total"} and rest[name]
            },
            model=record["model"],
        )

    def _setting(self) -> dict[str, str]:
        return {
            "category": self.category,
            "percentage_coreset": str(self.percentage_coreset),
            "k": str(self.k),
            "seed": str(self.seed),
        }


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.9g}"


def _read_defects(path: Path) -> dict[tuple, dict[str, dict[str, float]]]:
    """Return the metrics of defect types by the keys of their rows; empty without the file."""
    found: dict[tuple, dict[str, dict[str, float]]] = {}
    if not path.is_file():
        return found
    with path.open(newline="", encoding="utf-8") as file:
        for record in csv.DictReader(file):
            metrics = {
                name: float(value or "nan")
                for name, value in record.items()
                if name not in FIXED_COLUMNS - {"num_test"} | {"defect_type"}
            }
            key = (record["model"], record["category"], float(record["percentage_coreset"]))
            key += (int(record["k"]), int(record["seed"]))
            found.setdefault(key, {})[record["defect_type"]] = metrics
    return found


def read_rows(folder: Path) -> list[ResultRow]:
    """Read ``results.csv`` of a result folder.

    Raises:
        UsageError: there is none, or it is not one that this program wrote.
    """
    path = folder / RESULTS_FILE
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [ResultRow.from_record(record) for record in csv.DictReader(file)]
        defects = _read_defects(folder / DEFECTS_FILE)
        return [replace(row, defects=defects.get(row.key, {})) for row in rows]
    except OSError as error:
        raise UsageError(
            f"expected a result folder with {RESULTS_FILE}, found none at {path} ({error.strerror})"
        ) from error
    except (KeyError, ValueError, TypeError) as error:
        raise UsageError(
            f"expected results of this program in {path}, cannot read {error}"
        ) from error


class ResultFolder:
    """The folder of a run's results.

    Every file gets its final name only when it is complete.

    Attributes:
        path: Where it is.

    Args:
        path: Made where it is missing.

    Raises:
        UsageError: the folder cannot be made or written to.
    """

    def __init__(self, path: Path):
        self.path = path
        make_writable(path, "results", "--path_result")

    def move_earlier_run(self, more: Sequence[str] = ()) -> None:
        """Move an earlier run's files to ``earlier/<its start>/``: what lies here is of one run.

        Args:
            more: Names of further files and folders that a run may have left.

        Raises:
            UsageError: they cannot be moved.
        """
        names = [RESULTS_FILE, DEFECTS_FILE, TABLES_FILE, "tables.csv", "tables.tex", RUN_FILE]
        names += [REPORT_FILE, THUMBNAIL_FOLDER, *more]
        files = [self.path / name for name in names if (self.path / name).exists()]
        for pattern in OUTPUT_PATTERNS:
            files.extend(self.path.glob(pattern))
        if not files:
            return
        started = time.localtime(min(file.stat().st_mtime for file in files))
        stamp = time.strftime("%Y-%m-%dT%H-%M-%S", started)
        target = self.path / EARLIER_FOLDER / stamp
        count = 1
        while target.exists():
            count += 1
            target = target.with_name(f"{stamp}_{count}")
        try:
            target.mkdir(parents=True)
            for file in files:
                file.rename(target / file.name)
        except OSError as error:
            raise UsageError(
                f"cannot move an earlier run's results to {target}: {error.strerror or error}"
            ) from error

    def write_bytes(self, name: str, data: bytes) -> Path:
        """Write a file; under its name there is the former or the whole new content, never less.

        Raises:
            UsageError: it cannot be written, for example because the disk is full.
        """
        try:
            return replace_file(self.path / name, data)
        except OSError as error:
            raise UsageError(
                f"cannot write {self.path / name}: {error.strerror or error} (--path_result)"
            ) from error

    def write_text(self, name: str, text: str) -> Path:
        """Write a text file, as `write_bytes`."""
        return self.write_bytes(name, text.encode())

    def write_picture(self, name: str, picture: np.ndarray) -> Path:
        """Write a picture, (H, W, 3) uint8 RGB, as PNG or JPEG as its name ends, as `write_bytes`.

        The folder of a name with ``/`` is made where it is missing.
        """
        path = self.path / name
        if not path.parent.is_dir():
            path.parent.mkdir(parents=True, exist_ok=True)
        return self.write_bytes(name, encode_picture(picture, path.suffix))

    def write_rows(self, rows: Sequence[ResultRow]) -> None:
        """Write ``results.csv`` and ``results_defects.csv``."""
        self._write_csv(RESULTS_FILE, [row.to_record() for row in rows])
        self._write_csv(
            DEFECTS_FILE, [record for row in rows for record in row.to_defect_records()]
        )

    def write_arrays(self, name: str, **arrays: np.ndarray) -> Path:
        """Write arrays as a compressed ``.npz``, as `write_bytes`."""
        data = io.BytesIO()
        np.savez_compressed(data, **arrays)
        return self.write_bytes(name, data.getvalue())

    def write_run(self, record: Mapping[str, object]) -> Path:
        """Write ``run.json``."""
        return self.write_text(RUN_FILE, json.dumps(record, indent=2, default=str) + "\n")

    def _write_csv(self, name: str, records: Sequence[Mapping[str, str]]) -> None:
        columns = list(dict.fromkeys(column for record in records for column in record))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)
        self.write_text(name, text.getvalue())


def encode_picture(picture: np.ndarray, suffix: str = ".png") -> bytes:
    """Encode (H, W, 3) uint8 RGB as ``.png`` or ``.jpg``."""
    import cv2  # not at the top: tables are made without it

    flags = (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY)
    if suffix == ".png":
        # Level 1 of 9 and one filter for all rows: files a tenth larger in a sixth of the time.
        flags = (cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP)
    _, data = cv2.imencode(suffix, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), flags)
    return data.tobytes()


def replace_file(target: Path, data: bytes) -> Path:
    """Write a file so that its name bears the former or the whole new content, never less."""
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(data)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return target


def picture_tag(percentage_coreset: float, k: int) -> str:
    """Return what picture names say of a setting: per mille of the coreset, and k."""
    whole, _, rest = f"{percentage_coreset * 1000:.6f}".partition(".")
    rest = rest.rstrip("0")  # 0.0125 is p0012.5: no other percentage has its name
    return f"p{int(whole):04d}{'.' if rest else ''}{rest}_k{k:02d}"


def per_mille(value: float) -> str:
    """Return a fraction for a picture's name: 0.9912 as ``0991``, ``none`` where not measured."""
    return "none" if math.isnan(value) else f"{round(value * 1000):04d}"


def make_writable(path: Path, what: str, flag: str) -> None:
    """Make a folder where it is missing, and see that it can be written to.

    Args:
        path: Of the folder.
        what: Will be written.
        flag: Names the folder.

    Raises:
        UsageError: it cannot be made or written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        replace_file(path / ".writable", b"").unlink()
    except OSError as error:
        reason = f"{error.strerror or error}; {flag}"
        raise UsageError(
            f"expected a folder to write {what} to, found {path} ({reason})"
        ) from error
