"""Locks of the folders that one run at a time may write to."""

import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from utils.errors import UsageError
from utils.machine import now


@contextmanager
def lock_folder(path: Path, flag: str) -> Iterator[None]:
    """Lock a folder within a block, or until this process ends, even if it is killed.

    Args:
        path: An existing folder.
        flag: The flag that names the folder, for the error.

    Raises:
        UsageError: Another run has locked the folder, or it cannot be written to.
    """
    lock, owner = FileLock(path / ".lock", timeout=0), path / ".lock.owner"
    try:
        lock.acquire()
        owner.write_text(
            json.dumps({"process": os.getpid(), "host": platform.node(), "start": now()})
        )
    except Timeout as error:
        raise UsageError(
            f"expected a folder that no other run writes to, found {path} in use by "
            f"{_describe(owner)}: wait for its end, or give another folder ({flag})"
        ) from error
    except OSError as error:
        raise UsageError(f"cannot lock {path}: {error.strerror or error} ({flag})") from error
    try:
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()


def _describe(owner: Path) -> str:
    try:
        record = json.loads(owner.read_text())
        return "process {process} on {host} since {start}".format_map(record)
    except (OSError, ValueError, RecursionError, KeyError, TypeError):  # it is being written
        return "another process"
