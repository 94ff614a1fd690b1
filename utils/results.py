"""What a run leaves behind: a folder in which nothing is lost and nothing is half-written."""

import csv
import io
import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from utils.errors import UsageError

RESULTS_FILE = "results.csv"
TABLES_FILE = "tables.md"
RUN_FILE = "run.json"
EARLIER_FOLDER = "earlier"
PICTURE_PATTERNS = ("roc-curve_*.png", "roc_curve.png", "pred-dist_*.png", "localization_*.png")
# Level 1 of 9: the pictures become a tenth larger, and are written in a third of the time.
PNG_LEVEL = 1


@dataclass(frozen=True)
class ResultRow:
    """What was measured of one category with one percentage and seed.

    Attributes:
        category: Its name.
        percentage_coreset: In (0, 1].
        k: Nearest neighbours.
        seed: Of the selection.
        num_train: Training images.
        num_test: Test images.
        metrics: By name, as fractions; NaN where there was nothing to measure.
        seconds: By stage, what this percentage alone needs: stages that several percentages share
            count in full for each.
    """

    category: str
    percentage_coreset: float
    k: int
    seed: int
    num_train: int
    num_test: int
    metrics: Mapping[str, float]
    seconds: Mapping[str, float]

    @property
    def seconds_total(self) -> float:
        """From reading the first image until the metrics are known, without pictures."""
        return sum(self.seconds.values())

    def to_record(self) -> dict[str, str]:
        """Return the columns of ``results.csv`` as text; empty where nothing was measured."""
        head = {
            "category": self.category,
            "percentage_coreset": f"{self.percentage_coreset:g}",
            "k": str(self.k),
            "seed": str(self.seed),
            "num_train": str(self.num_train),
            "num_test": str(self.num_test),
        }
        metrics = {n: "" if math.isnan(v) else f"{v:.6f}" for n, v in self.metrics.items()}
        seconds = {"seconds_total": self.seconds_total}
        seconds |= {f"seconds_{name}": value for name, value in self.seconds.items()}
        return head | metrics | {name: f"{value:.3f}" for name, value in seconds.items()}


class ResultFolder:
    """The folder of a run's results.

    Every file gets its final name only when it is complete.

    Attributes:
        path: Where it is.

    Args:
        path: Made where it is missing. Results of an earlier run in it are moved to
            ``earlier/<start of that run>/``, so that what lies in it is of one run.

    Raises:
        UsageError: the folder cannot be made or written to.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            self.write_bytes(".writable", b"")
            (path / ".writable").unlink()
            self._move_earlier_run()
        except OSError as error:
            raise UsageError(
                f"expected a folder to write results to, found {path} ({error.strerror or error}; "
                "--path_result)"
            ) from error

    def write_bytes(self, name: str, data: bytes) -> Path:
        """Write a file; under its name there is the former or the whole new content, never less."""
        target = self.path / name
        partial = target.with_name(f".{name}.{os.getpid()}.partial")
        try:
            partial.write_bytes(data)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
        return target

    def write_text(self, name: str, text: str) -> Path:
        """Write a text file, as `write_bytes`."""
        return self.write_bytes(name, text.encode())

    def write_picture(self, name: str, picture: np.ndarray) -> Path:
        """Write a PNG from (H, W, 3) uint8 RGB, as `write_bytes`."""
        bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
        _, data = cv2.imencode(".png", bgr, [cv2.IMWRITE_PNG_COMPRESSION, PNG_LEVEL])
        return self.write_bytes(name, data.tobytes())

    def write_rows(self, rows: Sequence[ResultRow]) -> Path:
        """Write ``results.csv``."""
        records = [row.to_record() for row in rows]
        columns = list(dict.fromkeys(name for record in records for name in record))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)
        return self.write_text(RESULTS_FILE, text.getvalue())

    def write_run(self, record: Mapping[str, object]) -> Path:
        """Write ``run.json``."""
        return self.write_text(RUN_FILE, json.dumps(record, indent=2, default=str) + "\n")

    def _move_earlier_run(self) -> None:
        names = [RESULTS_FILE, TABLES_FILE, RUN_FILE]
        files = [self.path / name for name in names if (self.path / name).is_file()]
        for pattern in PICTURE_PATTERNS:
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
        target.mkdir(parents=True)
        for file in files:
            file.rename(target / file.name)


def picture_tag(percentage_coreset: float, k: int) -> str:
    """Return what picture names say of a setting: per mille of the coreset, and k."""
    return f"p{round(percentage_coreset * 1000):04d}_k{k:02d}"


def per_mille(value: float) -> str:
    """Return a fraction for a picture's name: 0.9912 as ``0991``, ``none`` where not measured."""
    return "none" if math.isnan(value) else f"{round(value * 1000):04d}"
