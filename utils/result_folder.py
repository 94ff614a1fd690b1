"""The folder of a run's results: earlier results are kept, and files are written completely."""

import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from utils.errors import UsageError
from utils.files import make_writable, replace_file
from utils.output_names import (
    DEFECTS_FILE,
    EARLIER_FOLDER,
    OUTPUT_PATTERNS,
    RESULTS_FILE,
    RUN_FILE,
)
from utils.results import ResultRow, defects_csv, results_csv

# Files and videos while they are written.
PARTIAL_PATTERNS = (".*.[0-9]*.partial", ".*.partial.mp4")

log = logging.getLogger(__name__)


class ResultFolder:
    """The folder of a run's results.

    A file gets its final name only when it is complete.

    Attributes:
        path: The folder; created if it is missing.

    Raises:
        UsageError: the folder cannot be created or written to.
    """

    def __init__(self, path: Path):
        self.path = path
        self._new = make_writable(path, "results", "--path_result")

    @contextmanager
    def removed_on_error(self) -> Iterator[None]:
        """Remove the folders that are new if an error ends a block before they hold anything."""
        try:
            yield
        except BaseException:
            with suppress(OSError):  # one is not empty
                for folder in self._new:
                    folder.rmdir()
            raise

    def move_earlier_run(self, more: Sequence[str] = (), *, reason: str = "") -> None:
        """Move the files of an earlier run to ``earlier/<start of that run>/``.

        Args:
            more: Names of other files and folders of an earlier run.
            reason: Why the run does not resume from them, for the log.

        Raises:
            UsageError: a file cannot be moved.
        """
        files = self._files_of_earlier_run(more)
        if not files:
            return
        started = time.localtime(min(file.stat().st_mtime for file in files))
        target = _unused(self.path / EARLIER_FOLDER / time.strftime("%Y-%m-%dT%H-%M-%S", started))
        try:
            target.mkdir(parents=True)
            for file in files:
                file.rename(target / file.name)
        except OSError as error:
            raise UsageError(
                f"cannot move an earlier run's results to {target}: {error.strerror or error}"
            ) from error
        log.info(
            "the earlier run in %s moved to %s, %.1f MB%s",
            self.path,
            target,
            _num_bytes(target) / 1e6,
            f": {reason}" if reason else "",
        )

    def remove_partial_files(self) -> None:
        """Remove the incomplete files that a killed run has left."""
        for pattern in PARTIAL_PATTERNS:
            for path in self.path.rglob(pattern):
                if not path.is_dir():  # a folder is a model that is saved below this one
                    path.unlink(missing_ok=True)

    def _files_of_earlier_run(self, more: Sequence[str]) -> list[Path]:
        return [file for name in (*OUTPUT_PATTERNS, *more) for file in self.path.glob(name)]

    def write_bytes(self, name: str, data: bytes) -> Path:
        """Write a file, which always has the complete old or the complete new content.

        Args:
            name: The name in this folder; missing folders in it are created.
            data: The content.

        Raises:
            UsageError: the file cannot be written, for example because the disk is full.
        """
        path = self.path / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            return replace_file(path, data)
        except OSError as error:
            raise UsageError(
                f"cannot write {path}: {error.strerror or error} (--path_result)"
            ) from error

    def write_text(self, name: str, text: str) -> Path:
        """Write a text file in UTF-8, like `write_bytes`.

        Bytes of a file name that are not valid text are written as escapes.
        """
        return self.write_bytes(name, text.encode(errors="backslashreplace"))

    def write_rows(self, rows: Sequence[ResultRow]) -> None:
        """Write ``results.csv`` and ``results_defects.csv``."""
        self.write_text(RESULTS_FILE, results_csv(rows))
        self.write_text(DEFECTS_FILE, defects_csv(rows))

    def write_run(self, record: Mapping[str, object]) -> Path:
        """Write ``run.json``."""
        return self.write_text(RUN_FILE, json.dumps(record, indent=2, default=str) + "\n")


def _num_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _unused(path: Path) -> Path:
    """Return a path, with a number added if it exists already."""
    unused, count = path, 1
    while unused.exists():
        count += 1
        unused = path.with_name(f"{path.name}_{count}")
    return unused
