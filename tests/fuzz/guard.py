"""Limits of a case: its time, the files that it may write, and what it must never do."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from datasets.base import DatasetError
from patchcore import PatchCoreError
from utils.errors import UsageError

# What `main` turns into one line and status 2.
USER_ERRORS = (DatasetError, PatchCoreError, UsageError, OSError)
# Seconds that a case may take, on a busy machine.
LIMIT = 20.0
FORBIDDEN = frozenset(
    {
        *("subprocess.Popen", "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.startfile"),
        *("socket.connect", "pickle.find_class", "webbrowser.open", "ctypes.dlopen"),
    }
)
# The events that change files, and the positions of their paths.
CHANGES = {
    **{f"os.{name}": (0,) for name in ("remove", "mkdir", "rmdir", "chmod", "truncate", "chown")},
    **{"os.rename": (0, 1), "os.link": (1,), "os.symlink": (1,), "shutil.rmtree": (0,)},
}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Violation(BaseException):
    """A case did what no input may cause; no handler of errors may swallow it."""


class _Watch:
    """An audit hook, which Python cannot remove; it is off but within a case."""

    def __init__(self) -> None:
        self.folder: Path | None = None
        self.found: list[str] = []
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple) -> None:
        if self.folder is None:
            return
        if event in FORBIDDEN:
            self.found.append(f"{event} {arguments!r:.200}")
        elif event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING:
            self._check(event, arguments[0])
        elif event in CHANGES:
            for place in CHANGES[event]:
                self._check(event, arguments[place])

    def _check(self, event: str, path: object) -> None:
        if isinstance(path, int):  # a descriptor that is open already
            return
        place = os.path.realpath(os.fsdecode(path))
        if place != os.devnull and not place.startswith(f"{self.folder}{os.sep}"):
            self.found.append(f"{event} {place}")


_WATCH = _Watch()


@contextmanager
def guarded(folder: Path) -> Iterator[None]:
    """Check that a block ends in time, and writes below a folder alone.

    Raises:
        Violation: It does not.
    """

    def stop(number: int, frame: object) -> None:
        raise Violation(f"not finished after {LIMIT:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    no_bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    signal.setitimer(signal.ITIMER_REAL, LIMIT)
    _WATCH.folder = Path(os.path.realpath(folder))
    try:
        yield
    finally:
        _WATCH.folder = None
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        sys.dont_write_bytecode = no_bytecode
        found = _WATCH.found[:]
        _WATCH.found.clear()
    if found:
        raise Violation("; ".join(found[:3]))
