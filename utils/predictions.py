"""Results of inference, written line by line for each image."""

import hashlib
import io
import json
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path

from utils.errors import UsageError
from utils.printable import printable
from utils.results import as_cell, csv_line

ANOMALY, NORMAL, ERROR = "anomaly", "normal", "error"
CSV_FILE, JSON_FILE = "predictions.csv", "predictions.jsonl"
# Lines of earlier runs, while a run resumes from them.
EARLIER_FILE = ".predictions_earlier.jsonl"
# Files and folders that a run writes in addition to run.json.
OUTPUTS = (
    *(CSV_FILE, JSON_FILE, EARLIER_FILE),
    *("pictures", "explanations", "masks", "maps", "annotated"),
)
COLUMNS = (
    *("path", "score", "threshold", "score_ratio", "p_value", "verdict", "regions", "seconds"),
    "error",
)


@dataclass(frozen=True)
class Outcome:
    """Result of one image.

    Attributes:
        path: Path of the image; ``<video>#<number>`` for a frame.
        verdict: ``anomaly``, ``normal`` or ``error``.
        score: Anomaly score; None if the image could not be read.
        threshold: Lowest score of an anomaly.
        regions: Largest anomalous regions, each with ``box`` (left, top, right, bottom in pixels of
            the image, the last two exclusive), ``area`` in pixels of the image, and ``score``.
        seconds: Share of the computing time of the batch, without reading and writing.
        details: Further entries of the JSON line: file, frame, time, map_box, files.
        error: Reason why the image could not be read.
        score_ratio: score / threshold; None unless the threshold is above 0.
        p_value: Conformal p-value of the score; None if the model has no held-out scores.
    """

    path: str
    verdict: str
    score: float | None = None
    threshold: float | None = None
    regions: Sequence[Mapping[str, object]] = ()
    seconds: float | None = None
    details: Mapping[str, object] = field(default_factory=dict)
    error: str = ""
    score_ratio: float | None = None
    p_value: float | None = None

    def to_json(self) -> str:
        """Return one line of JSON in ASCII; names that are not valid text are preserved."""
        record = {
            "path": self.path,
            "verdict": self.verdict,
            "score": self.score,
            "threshold": self.threshold,
            "score_ratio": self.score_ratio,
            "p_value": self.p_value,
            "regions": list(self.regions),
            "seconds": None if self.seconds is None else round(self.seconds, 6),
            **self.details,
        }
        if self.error:
            record["error"] = self.error
        return json.dumps(record)

    @classmethod
    def from_json(cls, line: str | bytes) -> "Outcome":
        """Return the outcome of a line that `to_json` has written.

        Raises:
            ValueError, KeyError, TypeError, AttributeError: It is no such line.
        """
        record = json.loads(line)
        names = [entry.name for entry in fields(cls) if entry.name in record]
        known = {name: record.pop(name) for name in names}
        return cls(**known, details=record)

    def to_row(self) -> dict[str, object]:
        """Return the columns of the CSV file; regions are ``left top right bottom area``.

        No spreadsheet takes the path for a formula; `utils.results.from_cell` restores it.
        """
        regions = (" ".join(map(str, (*r["box"], r["area"]))) for r in self.regions)
        return {
            "path": as_cell(self.path),
            "score": _number(self.score),
            "threshold": _number(self.threshold),
            "score_ratio": _number(self.score_ratio),
            "p_value": _number(self.p_value),
            "verdict": self.verdict,
            "regions": "; ".join(regions),
            "seconds": "" if self.seconds is None else f"{self.seconds:.6f}",
            "error": as_cell(self.error),
        }

    def to_line(self) -> str:
        """Return one readable line, even if the name contains line breaks."""
        if self.verdict == ERROR:
            return f"{ERROR:<8} {'':8}  {printable(self.path)}: {printable(self.error)}"
        return f"{self.verdict:<8} {self.score:8.4g}  {printable(self.path)}"


class PredictionFiles:
    r"""Writes ``predictions.csv`` and ``predictions.jsonl``, a complete line at a time.

    Bytes of a file name that are not valid text are written as ``\udcff`` in the CSV file, so that
    other programs can read it; the JSON lines preserve them.

    Args:
        folder: Folder of both files; existing ones are replaced.

    Raises:
        UsageError: The files cannot be written.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        try:
            # Each line is written at once: the files are complete up to a line at any time.
            self._csv = (folder / CSV_FILE).open(
                "w", encoding="utf-8", errors="backslashreplace", newline=""
            )
            self._json = (folder / JSON_FILE).open("w", encoding="ascii", newline="\n")
        except OSError as error:
            raise self._cannot_write(error) from error
        self._write(self._csv, ",".join(COLUMNS) + "\n")

    def add(self, outcome: Outcome) -> None:
        """Write the lines of one image.

        Raises:
            UsageError: They cannot be written, for example because the disk is full.
        """
        self._write(self._csv, csv_line(outcome.to_row(), COLUMNS))
        self._write(self._json, outcome.to_json() + "\n")

    def close(self) -> None:
        """Close both files."""
        for file in (self._csv, self._json):
            with suppress(OSError):  # `add` has reported what could not be written
                file.close()

    def _write(self, file: io.TextIOWrapper, line: str) -> None:
        try:
            # Otherwise the lines would go to a file that was moved or removed meanwhile.
            if not os.path.samestat(os.fstat(file.fileno()), Path(file.name).stat()):
                raise OSError(f"{file.name} was replaced during the run")
            file.write(line)
            file.flush()
        except OSError as error:
            raise self._cannot_write(error) from error

    def _cannot_write(self, error: OSError) -> UsageError:
        reason = error.strerror or error
        return UsageError(f"cannot write predictions to {self._folder}: {reason} (--path_result)")


def file_stem(name: str) -> str:
    """Return a readable and unique file name, without suffix, for the outputs of an image.

    Args:
        name: Path of the image, or name of the frame.
    """
    path = Path(name)
    # The suffix of an image is dropped; the number of a frame is kept.
    words = f"{path.parent.name}_{path.name if '#' in path.name else path.stem}"
    # A leading dot would hide the file; a leading dash would be read as a flag.
    readable = re.sub(r"[^A-Za-z0-9.-]+", "_", words)[-80:].strip("_.-")
    digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:12]
    return f"{readable}_{digest}" if readable else digest


def _number(value: float | None) -> str:
    """Return a number with the digits of a float32; nothing for None."""
    return "" if value is None else f"{value:.9g}"
