"""Errors that a user can fix: flags and the result folder."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

# Exit status of a run that skipped images or categories (--on_error skip).
LEFT_OUT = 3


class UsageError(Exception):
    """A flag or a result folder that cannot be used; the message says which and why."""


@contextmanager
def named_flag(flag: str) -> Iterator[None]:
    """Raise UsageError with the flag of a path that the operating system refuses within a block."""
    try:
        yield
    except OSError as error:  # such as a name that is too long, or a folder without permission
        where = "it" if error.filename is None else os.fsdecode(error.filename)
        raise UsageError(f"cannot use {where}: {error.strerror or error} ({flag})") from error


def describe_end(error: BaseException) -> str:
    """Return the state of a run that an error or a signal has ended, for ``run.json``."""
    if isinstance(error, KeyboardInterrupt):  # its argument is the number of the signal
        return "interrupted"
    return f"stopped: {str(error) or type(error).__name__}"


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether the memory of the host or of a GPU is exhausted."""
    if isinstance(error, ImportError):  # of a library for which ulimit -v leaves no room
        return "failed to map segment" in str(error)
    # torch, which is not imported for this, has its own error for a GPU, and none for the host.
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & {"MemoryError", "OutOfMemoryError"}) or "allocate memory" in str(error)


def describe_out_of_memory(error: BaseException) -> str:
    """Return an out-of-memory error in one line, with the flags to change."""
    return f"out of memory (--batch_size, --memory_budget): {first_line(error)}"


def first_line(error: object) -> str:
    """Return the first line of an error, or of its text; empty if it has none."""
    return str(error).strip().partition("\n")[0]
