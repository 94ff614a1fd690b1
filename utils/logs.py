"""The messages of a command: short on the terminal, complete in ``run.log`` of a result folder."""

import logging
import logging.handlers
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path

from utils.errors import UsageError, describe_end
from utils.output_names import LOG_FILE
from utils.printable import printable, printable_lines

PACKAGES = ("patchcore", "datasets", "utils")
# Text of records that are kept until the log file is open; a command writes some ten before.
MAX_EARLY = 10_000

log = logging.getLogger(__name__)


class Once(logging.Filter):
    """Passes each warning once: a repeated one with the same text is dropped."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record is to be written."""
        if record.levelno != logging.WARNING:
            return True
        text = record.getMessage()
        is_new = text not in self._seen
        self._seen.add(text)
        return is_new


class FileFormatter(logging.Formatter):
    """One line for each record, with time and level; a traceback follows in indented lines.

    Line breaks in names are escaped, so that no name can pass for a record.
    """

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", "%Y-%m-%dT%H:%M:%S%z")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Return the line of a record."""
        return printable(super().formatMessage(record).rstrip())

    def formatException(self, ei) -> str:  # noqa: N802 - logging's name
        """Return a traceback, indented."""
        return "\n".join(f"    {printable(s)}" for s in super().formatException(ei).split("\n"))


class TerminalFormatter(logging.Formatter):
    """The message alone; control characters of names, such as colours, are escaped."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the text of a record."""
        return printable_lines(record.getMessage().rstrip())


class Terminal(logging.StreamHandler):
    """Writes messages to standard error, above the progress bars.

    Args:
        level: Level of the messages that are shown.
    """

    def __init__(self, level: int):
        super().__init__(sys.stderr)
        self.setLevel(level)
        self.setFormatter(TerminalFormatter())
        self.addFilter(Once())

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        progress = sys.modules.get("tqdm")  # without it there is no bar
        bars = getattr(progress, "tqdm", None)
        with nullcontext() if bars is None else bars.external_write_mode(file=self.stream):
            super().emit(record)


class LogFile(logging.FileHandler):
    """Appends all messages to a file; one that can no longer be written is reported once."""

    def __init__(self, path: Path):
        super().__init__(path, encoding="utf-8", errors="backslashreplace")
        self.setFormatter(FileFormatter())
        self.addFilter(Once())

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Report the error that has just occurred, and write nothing more to the file."""
        logging.getLogger().removeHandler(self)
        error = sys.exc_info()[1]
        reason = getattr(error, "strerror", None) or error
        log.warning("can no longer write %s: %s", self.baseFilename, reason)

    def close(self) -> None:
        """Close the file; what a full disk has not taken is lost."""
        with suppress(OSError):
            super().close()


class _Early(logging.handlers.MemoryHandler):
    """Keeps the messages of a command until its log file is open."""

    def __init__(self) -> None:
        super().__init__(MAX_EARLY, flushLevel=logging.CRITICAL + 1)

    def shouldFlush(self, record: logging.LogRecord) -> bool:  # noqa: N802 - logging's name
        """Return whether there are too many: the oldest is dropped then."""
        if len(self.buffer) > self.capacity:
            del self.buffer[0]
        return False


@contextmanager
def command_log(level: int) -> Iterator[None]:
    """Show the messages of a command on the terminal, also Python's warnings, within a block.

    Where another program has set up logging, it decides what is shown.

    Args:
        level: Level of the messages that are shown.
    """
    root, early = logging.getLogger(), _Early()
    handlers = [early] if root.handlers else [Terminal(level), early]
    for package in PACKAGES:  # other packages log only warnings
        logging.getLogger(package).setLevel(logging.DEBUG)
    logging.captureWarnings(True)
    for handler in handlers:
        root.addHandler(handler)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        for handler in handlers:
            root.removeHandler(handler)


def is_quiet() -> bool:
    """Return whether the terminal shows warnings alone."""
    terminals = [one for one in logging.getLogger().handlers if isinstance(one, Terminal)]
    return any(one.level >= logging.WARNING for one in terminals)


class RunLog(AbstractContextManager):
    """The file ``run.log`` of a result folder, with all messages of a command.

    It is complete at the end of the block. An error that ends the block is written with its
    traceback.

    Args:
        folder: The result folder.
    """

    def __init__(self, folder: Path):
        self._path = folder / LOG_FILE
        self._file: LogFile | None = None

    def begin(self) -> None:
        """Open the file, after an earlier run's has been moved, and write what came before.

        Raises:
            UsageError: The file cannot be written.
        """
        try:
            self._file = LogFile(self._path)
        except OSError as error:
            raise UsageError(
                f"cannot write {self._path}: {error.strerror or error} (--path_result)"
            ) from error
        root = logging.getLogger()
        for early in [one for one in root.handlers if isinstance(one, _Early)]:
            early.setTarget(self._file)
            early.flush()
            root.removeHandler(early)
        root.addHandler(self._file)

    def __exit__(self, kind, error: BaseException | None, trace) -> None:
        if self._file is None:
            return
        if error is not None:
            is_crash = isinstance(error, Exception)
            level = logging.ERROR if is_crash else logging.WARNING
            cause = (kind, error, trace) if is_crash else None
            self._file.handle(
                logging.LogRecord(__name__, level, __file__, 0, describe_end(error), (), cause)
            )
        logging.getLogger().removeHandler(self._file)
        self._file.close()
