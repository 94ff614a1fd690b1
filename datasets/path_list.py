"""A list of paths, one per line, in the encodings and forms that programs write."""

import codecs
import io
import os
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from datasets.notes import Notes

UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
# Encoding of Windows programs that do not write UTF-8; it has Latin-1 as a part.
WINDOWS = "cp1252"
OTHER_ENCODING = f"path in the list read as {WINDOWS}, since it is not UTF-8"
QUOTED = "path in the list read without the quotes or spaces around it"


def read_paths(lines: Iterable[str] | None, notes: Notes) -> Iterator[str]:
    """Yield the paths of a list, one line at a time.

    A list in UTF-16 or with a byte-order mark is decoded. Null characters separate paths as lines
    do; in a stream that begins with a path and one of them (``find -print0``), they alone do. If a
    path does not exist as it is written, but without the quotes or spaces around it, or in the
    encoding of Windows programs, then this one is taken, and noted.

    Args:
        lines: The list; of a text stream, the bytes are read. None for an empty list.
        notes: Collects what was assumed.
    """
    if isinstance(lines, io.TextIOWrapper):
        lines = _decode(lines.buffer)
    for line in lines or ():
        for text in line.rstrip("\r\n").split("\0"):
            if text:
                yield _find(text, notes)


def _decode(buffer: BinaryIO) -> Iterator[str]:
    """Yield the paths of a binary stream with what ends them; names need not be valid text."""
    reader = buffer if isinstance(buffer, io.BufferedReader) else io.BufferedReader(buffer)
    head = reader.peek()
    if head.startswith(UTF16_MARKS):
        yield from _decode_utf16(reader)
        return
    if head.startswith(codecs.BOM_UTF8):
        reader.read(len(codecs.BOM_UTF8))
    # Names may contain line breaks if null characters separate them.
    yield from map(os.fsdecode, _split_at_nulls(reader) if b"\0" in head else reader)


def _decode_utf16(reader: io.BufferedReader) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-16")(errors="replace")
    text = ""
    for part in reader:  # parts need not end at the ends of characters
        *lines, text = (text + decoder.decode(part)).split("\n")
        yield from lines
    yield text


def _split_at_nulls(reader: io.BufferedReader) -> Iterator[bytes]:
    rest = b""
    while part := reader.read1():
        *paths, rest = (rest + part).split(b"\0")
        yield from (path + b"\0" for path in paths)
    yield rest


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
