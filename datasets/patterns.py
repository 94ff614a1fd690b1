"""Patterns such as ``parts/**/*.png`` and the paths that they match, as in a shell."""

import glob
import os
import re
from collections.abc import Iterator
from pathlib import Path

from datasets.folders import FolderSearch
from datasets.notes import Notes

# A whole name **, once or several times in a row; within a longer name, ** means the same as *.
ANY_DEPTH = re.compile(r"(?:^|(?<=[/SEP]))(?:\*\*(?:[/SEP]+|$))+".replace("SEP", re.escape(os.sep)))


def has_pattern(text: str) -> bool:
    """Return whether a path contains ``*``, ``?`` or ``[``."""
    return glob.has_magic(text)


def has_match(pattern: str) -> bool:
    """Return whether a pattern matches any path."""
    return next(_expand(pattern, Notes()), None) is not None


def expand_pattern(pattern: str, notes: Notes) -> list[str]:
    """Return the paths that a pattern matches, each once, in order of names.

    ``*``, ``?`` and ``[...]`` match characters of one name, ``**`` any number of folders. As in a
    shell, they do not match hidden names. ``**`` follows links to folders and reads each folder
    once, as `FolderSearch` does.

    Args:
        pattern: The pattern.
        notes: Collects the folders that are skipped.
    """
    matches = {str(Path(match)) for match in _expand(pattern, notes)}
    # By each name, so that a folder comes before what is in it: as text, "(a)" is before ".".
    return sorted(matches, key=lambda match: Path(match).parts)


def _expand(pattern: str, notes: Notes) -> Iterator[str]:
    head, *tail = ANY_DEPTH.split(pattern, maxsplit=1)
    if not tail:
        yield from glob.iglob(pattern)  # noqa: PTH207 - also absolute ones
        return
    for top in glob.iglob(head) if head else (os.curdir,):  # noqa: PTH207
        for folder in FolderSearch(Path(top), notes).folders():
            # A final ** matches the folders, and so everything in them.
            pattern = os.path.join(glob.escape(str(folder)), tail[0])  # noqa: PTH118
            yield from _expand(pattern, notes)
