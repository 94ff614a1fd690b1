"""What inference says of each picture, written line by line while it goes on."""

import csv
import hashlib
import io
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from utils.errors import UsageError

ANOMALY, NORMAL, ERROR = "anomaly", "normal", "error"
CSV_FILE, JSON_FILE = "predictions.csv", "predictions.jsonl"
# What a run leaves in its folder beside its record; the last five are folders.
OUTPUTS = (CSV_FILE, JSON_FILE, "pictures", "explanations", "masks", "maps", "annotated")
COLUMNS = ("path", "score", "threshold", "verdict", "regions", "seconds", "error")


@dataclass(frozen=True)
class Outcome:
    """What is said of one picture.

    Attributes:
        path: Its name; of a video's frame ``<video>#<number>``.
        verdict: ``anomaly``, ``normal`` or ``error``.
        score: The anomaly score; None where it could not be read.
        threshold: From which score on it is an anomaly.
        regions: The largest anomalous ones: ``box`` (left, top, right, bottom in pixels of the
            picture, the last two exclusive), ``area`` in such pixels, ``score``.
        seconds: Of computing, its share of its batch, without reading and writing.
        details: What else is known, for the JSON lines: frame, time, map_box, files.
        error: Why it could not be read.
    """

    path: str
    verdict: str
    score: float | None = None
    threshold: float | None = None
    regions: Sequence[Mapping[str, object]] = ()
    seconds: float | None = None
    details: Mapping[str, object] = field(default_factory=dict)
    error: str = ""

    def to_json(self) -> str:
        """Return one line of JSON, in ASCII: a name that is no text comes back from it."""
        record = {
            "path": self.path,
            "verdict": self.verdict,
            "score": self.score,
            "threshold": self.threshold,
            "regions": list(self.regions),
            "seconds": None if self.seconds is None else round(self.seconds, 6),
            **self.details,
        }
        if self.error:
            record["error"] = self.error
        return json.dumps(record)

    def to_row(self) -> dict[str, object]:
        """Return the columns of the CSV file; a region is ``left top right bottom area``."""
        regions = (" ".join(map(str, (*r["box"], r["area"]))) for r in self.regions)
        return {
            "path": self.path,
            "score": "" if self.score is None else f"{self.score:.9g}",
            "threshold": "" if self.threshold is None else f"{self.threshold:.9g}",
            "verdict": self.verdict,
            "regions": "; ".join(regions),
            "seconds": "" if self.seconds is None else f"{self.seconds:.6f}",
            "error": self.error,
        }

    def to_line(self) -> str:
        """Return a line for a person, which any name leaves one line."""
        if self.verdict == ERROR:
            return f"{ERROR:<8} {'':8}  {_printable(self.path)}: {_printable(self.error)}"
        return f"{self.verdict:<8} {self.score:8.4g}  {_printable(self.path)}"


class PredictionFiles:
    r"""``predictions.csv`` and ``predictions.jsonl``: always whole lines, also while it runs.

    Bytes of a file's name that are no text stand in the CSV file as ``\udcff``, so that others can
    read it; the JSON lines have them exactly.

    Args:
        folder: Where they are written; what bears their names is written anew.

    Raises:
        UsageError: they cannot be written.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        try:
            # A byte at a time would be flushed within a line: each line is written at once.
            self._csv = (folder / CSV_FILE).open(
                "w", encoding="utf-8", errors="backslashreplace", newline=""
            )
            self._json = (folder / JSON_FILE).open("w", encoding="ascii", newline="\n")
        except OSError as error:
            raise self._cannot_write(error) from error
        self._write(self._csv, ",".join(COLUMNS) + "\n")

    def add(self, outcome: Outcome) -> None:
        """Write one picture's lines.

        Raises:
            UsageError: they cannot be written, for example because the disk is full.
        """
        text = io.StringIO()
        # By the module's own line end it quotes names that hold either of its letters.
        csv.DictWriter(text, COLUMNS).writerow(outcome.to_row())
        self._write(self._csv, text.getvalue().removesuffix("\r\n") + "\n")
        self._write(self._json, outcome.to_json() + "\n")

    def close(self) -> None:
        """End both files."""
        for file in (self._csv, self._json):
            with suppress(OSError):  # what could not be written, `add` has told
                file.close()

    def _write(self, file: io.TextIOBase, line: str) -> None:
        try:
            file.write(line)
            file.flush()
        except OSError as error:
            raise self._cannot_write(error) from error

    def _cannot_write(self, error: OSError) -> UsageError:
        reason = error.strerror or error
        return UsageError(f"cannot write predictions to {self._folder}: {reason} (--path_result)")


def file_stem(name: str) -> str:
    """Return a file name for what belongs to a picture: readable, and no other picture's.

    Args:
        name: Of the picture: its path, or a frame's.
    """
    path = Path(name)
    # The picture's own suffix goes; a frame's number, which is no suffix, stays.
    words = f"{path.parent.name}_{path.name if '#' in path.name else path.stem}"
    # No dot nor dash in front: it would be hidden, or taken for a flag.
    readable = re.sub(r"[^A-Za-z0-9.-]+", "_", words)[-80:].strip("_.-")
    digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:12]
    return f"{readable}_{digest}" if readable else digest


def _printable(text: str) -> str:
    """Return text with its line breaks, controls and what is no text written as escapes."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in text
    )
