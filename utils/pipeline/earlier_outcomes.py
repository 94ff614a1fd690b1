"""Outcomes of an earlier run of `infer` in the same folder, which are not computed again."""

import re
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path

from datasets.items import Item
from utils.errors import UsageError
from utils.predictions import ANOMALY, EARLIER_FILE, JSON_FILE, NORMAL, Outcome
from utils.run_record import read_run

# Kinds of files that a line names.
FILES = ("map", "mask", "picture", "explanation")


def file_state(path: Path | None) -> list[int] | None:
    """Return the size in bytes and the time of the last change in nanoseconds of a file.

    Args:
        path: The file; None, for a frame, has no state. Neither has a file that cannot be read.
    """
    try:
        status = None if path is None else path.stat()
    except OSError:
        return None
    return None if status is None else [status.st_size, status.st_mtime_ns]


def difference(folder: Path, identity: Mapping[str, object]) -> str:
    """Return in what an earlier run differs from this one; empty if in nothing.

    Args:
        folder: Folder of the results.
        identity: All that outcomes depend on except the images, by name.
    """
    try:
        earlier = read_run(folder)["identity"]
        for name, value in identity.items():
            if earlier[name] != value:
                return f"{name} is {_shown(value)}, was {_shown(earlier[name])}"
    except (UsageError, KeyError, TypeError):
        return "its record does not say how images were judged"
    return ""


class EarlierOutcomes:
    """The outcomes of earlier runs, found by the names of the images.

    Only their positions in a file are in memory. The file remains until a run is complete, so a
    resumed run may be interrupted too.

    Args:
        folder: Folder of the results; the lines in it are moved to another file.

    Raises:
        OSError: A file cannot be read or written.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._path = folder / EARLIER_FILE
        self._lock = threading.Lock()
        self._places: dict[int, int] = {}
        written = folder / JSON_FILE
        if written.is_file():
            with self._path.open("ab") as lines, written.open("rb") as newer:
                shutil.copyfileobj(newer, lines)
                lines.write(b"\n")  # the last line may be incomplete
        self._path.touch()
        self._lines = self._path.open("rb")
        place = 0
        for line in self._lines:
            outcome = _parse(line)
            if outcome is not None:
                self._places[hash(outcome.path)] = place
            place += len(line)

    def __len__(self) -> int:
        return len(self._places)

    def find(self, item: Item) -> Outcome | None:
        """Return the outcome of an image file that has not changed; None if there is none."""
        place = self._places.get(hash(item.name))
        if item.file is None or place is None:
            return None
        with self._lock:  # several threads read
            self._lines.seek(place)
            outcome = _parse(self._lines.readline())
        if outcome is None or outcome.path != item.name:
            return None
        state = file_state(item.file)
        is_same = state is not None and outcome.details.get("file") == state
        return outcome if is_same and self._has_files(outcome) else None

    def close(self, *, is_complete: bool) -> None:
        """Close the file, and remove it if all images were judged."""
        self._lines.close()
        if is_complete:
            self._path.unlink(missing_ok=True)

    def _has_files(self, outcome: Outcome) -> bool:
        files = [str(outcome.details[kind]) for kind in FILES if kind in outcome.details]
        return all((self._folder / file).is_file() for file in files)


def _shown(value: object) -> str:
    """Return a value in short: a number with 6 digits, or the beginning of a digest."""
    if isinstance(value, float):
        return f"{value:.6g}"
    return f"{value:.12}" if re.fullmatch("[0-9a-f]{64}", str(value)) else str(value)


def _parse(line: bytes) -> Outcome | None:
    """Return the outcome of a line; None if it is damaged, or the image could not be judged."""
    try:
        outcome = Outcome.from_json(line)
        outcome.to_row()
        outcome.to_line()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return outcome if outcome.verdict in (NORMAL, ANOMALY) else None
