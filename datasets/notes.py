"""Remarks about files that are listed and read: reasons, each with a count and an example."""

import hashlib
import threading
from dataclasses import dataclass


@dataclass(frozen=True)
class Note:
    """A remark about files, reported once for all files.

    Attributes:
        reason: What was found, what was done, and which flag or file changes it.
        count: Number of files.
        example: One of the files: the first in alphabetical order.
    """

    reason: str
    count: int
    example: str

    def __str__(self) -> str:
        files = "1 file" if self.count == 1 else f"{self.count} files"
        return f"{files}: {self.reason} (for example {self.example})"


class Notes:
    """Collects notes; several threads may add at the same time.

    A file counts once for each reason, however often it is read, and in however many processes.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._examples: dict[str, str] = {}
        # Digests, since the names of a million files would take hundreds of megabytes.
        self._counted: dict[str, set[int]] = {}

    def __getstate__(self) -> dict[str, object]:
        """Return what another process needs: everything but the lock."""
        return {name: value for name, value in vars(self).items() if name != "_lock"}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state, _lock=threading.Lock())

    def add(self, reason: str, file: object) -> None:
        """Count a file.

        Args:
            reason: Text that is the same for all files of this kind.
            file: Path or name of the file.
        """
        name = str(file)
        with self._lock:
            self._examples[reason] = min(name, self._examples.get(reason, name))
            self._counted.setdefault(reason, set()).add(_digest(name))

    def merge(self, other: "Notes") -> None:
        """Add the remarks of another process."""
        with self._lock:
            for reason, example in other._examples.items():
                self._examples[reason] = min(example, self._examples.get(reason, example))
                self._counted.setdefault(reason, set()).update(other._counted[reason])

    def all(self) -> list[Note]:
        """Return the notes, in alphabetical order of their reasons."""
        with self._lock:
            return [
                Note(reason, len(self._counted[reason]), example)
                for reason, example in sorted(self._examples.items())
            ]

    def as_json(self) -> dict[str, dict[str, object]]:
        """Return ``count`` and ``example`` of each reason."""
        return {n.reason: {"count": n.count, "example": n.example} for n in self.all()}


def _digest(name: str) -> int:
    """Return a number that is the same in each process, unlike the hash of Python."""
    return int.from_bytes(
        hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big"
    )
