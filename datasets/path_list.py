"""A list of paths, one per line, in the encodings and forms that programs write."""

import codecs
import io
import os
import sys
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import BinaryIO

from datasets.notes import Notes

UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
# Bytes that are read at a time, if there are as many.
MAX_PART = 1 << 20
# Encoding of Windows programs that do not write UTF-8; it has Latin-1 as a part.
WINDOWS = "cp1252"
OTHER_ENCODING = f"path in the list read as {WINDOWS}, since it is not UTF-8"
QUOTED = "path in the list read without the quotes or spaces around it"


def read_paths(lines: Iterable[str] | None, notes: Notes) -> Iterator[str]:
    """Yield the paths of a list; arguments as for `read_arrivals`."""
    return chain.from_iterable(read_arrivals(lines, notes))


def read_arrivals(lines: Iterable[str] | None, notes: Notes) -> Iterator[list[str]]:
    """Yield the paths of a list: each time those that can be read without waiting for more.

    A list in UTF-16 or with a byte-order mark is decoded. Null characters separate paths as lines
    do; in a stream that begins with a path and one of them (``find -print0``), they alone do. If a
    path does not exist as it is written, but without the quotes or spaces around it, or in the
    encoding of Windows programs, then this one is taken, and noted.

    Args:
        lines: The list; of a text stream, the bytes are read. None for an empty list.
        notes: Collects what was assumed.
    """
    is_stream = isinstance(lines, io.TextIOWrapper)
    for arrived in _decode(lines.buffer) if is_stream else ([line] for line in lines or ()):
        texts = (text for line in arrived for text in line.rstrip("\r\n").split("\0"))
        if paths := [_find(text, notes) for text in texts if text]:
            yield paths


def _decode(buffer: BinaryIO) -> Iterator[list[str]]:
    """Yield the paths of a binary stream with what ends them; names need not be valid text."""
    reader = buffer if isinstance(buffer, io.BufferedReader) else io.BufferedReader(buffer)
    head, end = reader.peek(), "\n"
    if head.startswith(UTF16_MARKS):
        decoder = codecs.getincrementaldecoder("utf-16")("replace")
    else:
        decoder = codecs.getincrementaldecoder(sys.getfilesystemencoding())(
            sys.getfilesystemencodeerrors()
        )
        if head.startswith(codecs.BOM_UTF8):
            reader.read(len(codecs.BOM_UTF8))
        if b"\0" in head:  # names may contain line breaks then
            end = "\0"
    rest = ""
    while part := reader.read1(MAX_PART):  # parts need not end at the ends of characters
        *paths, rest = (rest + decoder.decode(part)).split(end)
        yield [path + end for path in paths]
    yield [rest + decoder.decode(b"", final=True)]


def _find(text: str, notes: Notes) -> str:
    """Return a path that exists, if the text is one in another form; otherwise the text."""
    if os.path.lexists(text):
        return text
    bare = text.strip()
    if len(bare) > 1 and bare[0] == bare[-1] and bare[0] in "\"'":
        bare = bare[1:-1]
    for reason, path in (
        (QUOTED, bare),
        (OTHER_ENCODING, os.fsencode(text).decode(WINDOWS, errors="replace")),
    ):
        if path and os.path.lexists(path):
            notes.add(reason, path)
            return path
    return text
