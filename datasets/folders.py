"""Files in a folder and its subfolders: links are followed, and each folder is read once."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from datasets.base import is_hidden
from datasets.notes import Notes

HIDDEN = "skipped: hidden; name it to read it"
LINK = "skipped: link to a folder that is read under its own name"
LOOP = "skipped: link to a folder that contains it"
TWICE = "skipped: folder that has been read under another name"
RESULTS = "skipped: results of this program; name the folder to read it"
# Names of files in a folder of results of `infer` or `evaluate`, and of a trained model. A test
# compares them with those that are written, since modules of `datasets` do not import `utils`.
RESULT_FILES = (
    ("run.json", "predictions.csv"),
    ("run.json", "results.csv"),
    ("model.json", "model.safetensors"),
)


@dataclass(frozen=True)
class FoundFile:
    """A file, or a folder that cannot be read.

    Attributes:
        path: Its path, which begins as that of the searched folder.
        fault: Reason why a folder cannot be read; empty for a file.
    """

    path: Path
    fault: str = ""


@dataclass(frozen=True)
class _Entry:
    """An entry of a folder; ``is_link`` is set for links to folders only."""

    name: str
    is_folder: bool
    is_link: bool


class FolderSearch:
    """Searches a folder and its subfolders, in order of names.

    Links to folders are followed unless they lead to a folder that is read anyway or contains the
    link. Hidden files and folders, and folders with results of this program, are skipped. Whatever
    is skipped is noted.

    Args:
        root: The folder; it is searched even if it is hidden or has results.
        notes: Collects what is skipped.
    """

    def __init__(self, root: Path, notes: Notes):
        self._root = root
        self._real_root = os.path.realpath(root)
        self._notes = notes
        self._read: set[tuple[int, int]] = set()

    def files(self) -> Iterator[FoundFile]:
        """Yield the files, and the folders that cannot be read."""
        yield from self._files(self._root)

    def folders(self) -> Iterator[Path]:
        """Yield the folders, the searched one first; those that cannot be read are skipped."""
        yield from self._folders(self._root)

    def _files(self, folder: Path) -> Iterator[FoundFile]:
        try:
            entries = self._enter(folder)
        except OSError as error:
            yield FoundFile(folder, f"cannot read {folder}: {error.strerror or error}")
            return
        for entry in entries:
            path = folder / entry.name
            if is_hidden(entry.name):
                self._notes.add(HIDDEN, path)
            elif not entry.is_folder:
                yield FoundFile(path)
            elif self._is_entered(path, entry):
                yield from self._files(path)

    def _folders(self, folder: Path) -> Iterator[Path]:
        try:
            entries = self._enter(folder)
        except OSError:
            return
        yield folder
        for entry in entries:
            path = folder / entry.name
            is_visible = entry.is_folder and not is_hidden(entry.name)
            if is_visible and self._is_entered(path, entry):
                yield from self._folders(path)

    def _enter(self, folder: Path) -> list[_Entry]:
        """Return the entries of a folder, in order of names; none if it has been read before."""
        status = folder.stat()
        identity = status.st_dev, status.st_ino
        if identity in self._read:
            self._notes.add(TWICE, folder)
            return []
        self._read.add(identity)
        names, folders, links = [], set(), set()
        with os.scandir(folder) as found:
            for entry in found:
                names.append(entry.name)  # a Path needs five times the memory
                if is_folder(entry):
                    folders.add(entry.name)
                    if entry.is_symlink():
                        links.add(entry.name)
        if folder != self._root and any(map(set(names).issuperset, RESULT_FILES)):
            self._notes.add(RESULTS, folder)
            return []
        return [_Entry(name, name in folders, name in links) for name in sorted(names)]

    def _is_entered(self, path: Path, entry: _Entry) -> bool:
        """Return whether to read a subfolder; note why not."""
        if not entry.is_link:
            return True
        real = os.path.realpath(path)
        if is_within(self._real_root, real):
            self._notes.add(LOOP, path)
            return False
        if is_within(real, self._real_root):
            below = Path(real).relative_to(self._real_root)
            if not any(map(is_hidden, below.parts)):
                self._notes.add(LINK, path)
                return False
        return True


def has_results(folder: Path) -> bool:
    """Return whether a folder has results of this program; one that cannot be read has none."""
    try:
        return any(all((folder / name).is_file() for name in names) for names in RESULT_FILES)
    except OSError:
        return False


def is_within(path: str, folder: str) -> bool:
    """Return whether a real path is that of a folder, or lies in it."""
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def is_regular(path: Path) -> bool:
    """Return whether a path is a file; a pipe or a device would block.

    Raises:
        OSError: There is none, or it cannot be read.
    """
    return stat.S_ISREG(path.stat().st_mode)


def is_folder(entry: os.DirEntry) -> bool:
    """Return whether an entry is a folder or a link to one."""
    try:
        return entry.is_dir()
    except OSError:  # reported when it is read
        return False
