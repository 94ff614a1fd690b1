"""Patterns such as ``parts/**/*.png`` -> the paths that they match, as a shell expands them."""

import glob
import os
import re
from collections.abc import Iterator
from pathlib import Path

# A name that is ** and nothing else: within a longer name it is no more than *.
ANY_DEPTH = re.compile(r"(?:^|(?<=[/SEP]))\*\*(?:[/SEP]+|$)".replace("SEP", re.escape(os.sep)))


def has_pattern(text: str) -> bool:
    """Tell whether there is ``*``, ``?`` or ``[`` in a path."""
    return glob.has_magic(text)


def expand_pattern(pattern: str) -> list[str]:
    """Return the paths that a pattern matches, each once, in order of names.

    ``*``, ``?`` and ``[...]`` stand for letters of one name, ``**`` for any number of folders. As
    in a shell, hidden names must be written out, and ``**`` follows no link to a folder: it may
    lead back to where it is, and the search would not end.
    """
    return sorted({str(Path(match)) for match in _expand(pattern)})


def _expand(pattern: str) -> Iterator[str]:
    head, *tail = ANY_DEPTH.split(pattern, maxsplit=1)
    if not tail:
        yield from glob.iglob(pattern)  # noqa: PTH207 - also absolute ones
        return
    for top in glob.iglob(head) if head else (os.curdir,):  # noqa: PTH207
        for folder, below, _ in os.walk(top):
            below[:] = (name for name in below if not name.startswith("."))
            # Without anything after it, ** means the folders, and so what is in them.
            yield from _expand(os.path.join(glob.escape(folder), tail[0]))  # noqa: PTH118
