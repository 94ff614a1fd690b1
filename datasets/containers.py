"""Completeness of video files: whether the file is as long as its container says.

Decoders end at the last whole frame of a file that was cut short, without an error.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from datasets.content import format_of

# Formats that store the number of frames; for the others, decoders estimate it.
COUNTED = frozenset({"MP4", "QuickTime", "AVI"})
# Formats that store the duration.
TIMED = frozenset({"Matroska or WebM", "Flash video", "ASF or WMV"})
EBML_SEGMENT = b"\x18\x53\x80\x67"
ASF_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
# Boxes of the ISO base media file format that contain the boxes needed here.
PARENTS = frozenset({b"moov", b"trak", b"edts", b"mdia"})


@dataclass(frozen=True)
class Box:
    """A box of the ISO base media file format (ISO 14496-12).

    Attributes:
        kind: Its type, 4 bytes.
        start: Position of its content.
        end: Position of its end; beyond the end of the file if the file was cut short.
    """

    kind: bytes
    start: int
    end: int


def is_cut_short(path: Path) -> bool:
    """Return whether a video file ends before the end that its container states.

    MPEG program streams, Flash and live recordings do not state it.

    Raises:
        OSError: The file cannot be read.
    """
    found = format_of(path)
    check = {
        "MP4": _is_cut_mp4,
        "QuickTime": _is_cut_mp4,
        "AVI": _is_cut_avi,
        "Matroska or WebM": _is_cut_matroska,
        "ASF or WMV": _is_cut_asf,
        "MPEG transport stream": _is_cut_transport_stream,
    }.get("" if found is None else found.name)
    if check is None:
        return False
    with path.open("rb") as file:
        length = file.seek(0, 2)
        file.seek(0)
        return check(file, length)


def is_trimmed(path: Path) -> bool:
    """Return whether an MP4 or QuickTime file shows only a part of the frames that it stores.

    Its edit list then selects a shorter time than that of the stored frames; the number of frames
    in the file is not the number of frames to show.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        length = file.seek(0, 2)
        boxes = list(_boxes(file, 0, length))
        scale = _movie_scale(file, boxes)
        tracks = [box for box in boxes if box.kind == b"trak"]
        for track in tracks:
            inner = {box.kind: box for box in _boxes(file, track.start, track.end)}
            if b"elst" not in inner or b"mdhd" not in inner or not scale:
                continue
            media_scale, media_duration = _scale_and_duration(file, inner[b"mdhd"])
            edited = _edited_duration(file, inner[b"elst"])
            # A tenth of a second covers rounding to the movie's time scale.
            if media_scale and edited / scale < media_duration / media_scale - 0.1:
                return True
    return False


def _boxes(file: BinaryIO, start: int, end: int) -> Iterator[Box]:
    """Yield the boxes between two positions, and those in `PARENTS`."""
    while start + 8 <= end:
        file.seek(start)
        head = file.read(16)
        size, kind, content = int.from_bytes(head[:4], "big"), head[4:8], start + 8
        if size == 1:
            size, content = int.from_bytes(head[8:16], "big"), start + 16
        if not kind.strip(b"\xa9 ").isalnum():  # no box: what fills up the file behind the last one
            return
        stop = end if size == 0 else start + size
        if stop < content:
            return
        yield Box(kind, content, stop)
        if kind in PARENTS:
            yield from _boxes(file, content, min(stop, end))
        start = stop


def _movie_scale(file: BinaryIO, boxes: list[Box]) -> int:
    heads = [box for box in boxes if box.kind == b"mvhd"]
    return _scale_and_duration(file, heads[0])[0] if heads else 0


def _scale_and_duration(file: BinaryIO, box: Box) -> tuple[int, int]:
    """Return the units per second, and the duration in these units, of ``mvhd`` or ``mdhd``."""
    file.seek(box.start)
    data = file.read(36)
    if data[:1] == b"\x01":
        return int.from_bytes(data[20:24], "big"), int.from_bytes(data[24:32], "big")
    return int.from_bytes(data[12:16], "big"), int.from_bytes(data[16:20], "big")


def _edited_duration(file: BinaryIO, box: Box) -> int:
    """Return the duration of all edits, in units of the movie, without empty edits."""
    file.seek(box.start)
    data = file.read(min(box.end - box.start, 1 << 20))
    wide = 8 if data[:1] == b"\x01" else 4
    edits = [
        (data[start : start + wide], data[start + wide : start + 2 * wide])
        for start in range(8, len(data), 2 * wide + 4)
    ]
    return sum(
        int.from_bytes(duration, "big")
        for duration, media_time in edits
        if int.from_bytes(media_time, "big", signed=True) >= 0
    )


def _is_cut_mp4(file: BinaryIO, length: int) -> bool:
    return any(box.end > length for box in _boxes(file, 0, length))


def _is_cut_avi(file: BinaryIO, length: int) -> bool:
    """Check the chunks of the whole file; files above 1 GB have several."""
    start = end = 0
    while start + 8 <= length:
        file.seek(start)
        head = file.read(8)
        size = int.from_bytes(head[4:], "little")
        if head[:4] != b"RIFF" or size in (0, 0xFFFFFFFF):  # not known when it was written
            return False
        end = start + 8 + size
        start = end + size % 2
    return end > length


def _is_cut_matroska(file: BinaryIO, length: int) -> bool:
    data = file.read(4096)
    place = data.find(EBML_SEGMENT)
    if place < 0:
        return False
    field = data[place + 4 : place + 12]
    width = 9 - field[0].bit_length() if field else 8  # the leading bit is a mark
    start = place + 4 + width
    if start > length:
        return True
    size = int.from_bytes(field[:width], "big") - (1 << 7 * width)
    is_unknown = size == (1 << 7 * width) - 1  # a live recording
    return not is_unknown and start + size > length


def _is_cut_asf(file: BinaryIO, length: int) -> bool:
    data = file.read(1 << 16)
    place = data.find(ASF_FILE_PROPERTIES)
    if place < 0:
        return False
    size = int.from_bytes(data[place + 40 : place + 48], "little")
    is_live = int.from_bytes(data[place + 88 : place + 92], "little") & 1
    return not is_live and size > length


def _is_cut_transport_stream(file: BinaryIO, length: int) -> bool:
    """Check that it ends with a whole packet: nothing else is stated."""
    head = file.read(189)
    has_no_times = head[:1] == head[188:] == b"\x47"  # otherwise 4 bytes of time precede a packet
    return length % (188 if has_no_times else 192) != 0
