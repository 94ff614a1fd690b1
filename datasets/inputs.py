"""Images from files, folders, patterns, videos, cameras and lists of paths.

Everything is found lazily, one item at a time, so that a million files or hours of video need no
more memory than one image. OpenCV is imported where something is decoded, so that missing paths are
reported at once.
"""

import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import TextIO

from datasets.base import IMAGE_SUFFIXES
from datasets.content import HEAD_BYTES, IMAGE, OTHER, VIDEO, kind_of
from datasets.folders import FolderSearch, FoundFile, is_regular
from datasets.items import Item
from datasets.notes import Notes
from datasets.path_list import read_arrivals
from datasets.patterns import expand_pattern, has_match, has_pattern
from datasets.videos import read_camera, read_video

# Names of images and videos. A file with such a name is reported if its content is something else.
IMAGE_NAMES = IMAGE_SUFFIXES | {
    *(".gif", ".jp2", ".j2k", ".avif", ".heic", ".heif", ".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    *(".jfif", ".jpe", ".dib", ".tga", ".exr", ".hdr", ".jxl"),
}
VIDEO_NAMES = frozenset(
    {".mp4", ".avi", ".mov", ".mkv", ".m4v", ".webm", ".wmv", ".asf", ".mpg", ".mpeg", ".3gp"}
    | {".3g2", ".flv", ".ogv", ".vob", ".mxf"}
)
# Names of MPEG transport streams, and of texts in TypeScript.
AMBIGUOUS_NAMES = frozenset({".ts", ".mts"})
NEITHER = "skipped: neither an image nor a video"
NO_FILE = "skipped: a pipe or device"
UNREADABLE = "skipped: unreadable, and no image or video by its name"
# Stands for paths on standard input, one per line.
STANDARD_INPUT = "-"
# Pause between two scans of a watched folder; a file is read if it has not changed in between.
WATCH_SECONDS = 0.5


def find_items(
    paths: Iterable[str],
    *,
    frame_stride: int = 1,
    listed: TextIO | None = None,
    notes: Notes | None = None,
) -> Iterator[Item]:
    """Find images.

    Args:
        paths: Image files, video files, folders (searched recursively in order of names, without
            hidden files), patterns such as ``parts/*.png`` (``**`` for any depth), numbers of
            cameras, or ``-`` for paths of files and folders on standard input, one per line. An
            existing file takes precedence: ``a[1].png`` and ``0`` are read as files if they exist.
        frame_stride: Read every n-th frame of videos and cameras.
        listed: Stream that ``-`` reads from.
        notes: Collects what is skipped or assumed.

    Yields:
        Items; a missing or unreadable one has a fault, and the search continues.
    """
    for group in find_groups(paths, frame_stride=frame_stride, listed=listed, notes=notes):
        yield from group


def find_groups(
    paths: Iterable[str],
    *,
    frame_stride: int = 1,
    listed: TextIO | None = None,
    notes: Notes | None = None,
) -> Iterator[Iterator[Item]]:
    """Find images as `find_items`, in groups that need not wait for what is not listed yet.

    Yields:
        Items: those of the paths on standard input that have arrived by then, or of all paths up
        to the next ``-``. Each group has to be consumed before the next.
    """
    search = _Search(frame_stride, Notes() if notes is None else notes)
    for is_list, some in groupby(paths, STANDARD_INPUT.__eq__):
        if is_list:
            for arrived in read_arrivals(listed, search.notes):
                yield _find_each(arrived, search.find_path)
        else:
            yield _find_each(some, search.find)


def _find_each(texts: Iterable[str], find: Callable[[str], Iterator[Item]]) -> Iterator[Item]:
    for text in texts:
        yield from find(text)


def find_listed(path: str, notes: Notes) -> Iterator[Item]:
    """Find images at a path of a list: a file or folder, and no pattern or camera.

    Args:
        path: The path.
        notes: Collects what is skipped.

    Yields:
        Items, as `find_items`.
    """
    yield from _Search(1, notes).find_path(path)


def watch_folder(
    folder: Path, *, frame_stride: int = 1, notes: Notes | None = None
) -> Iterator[Item | None]:
    """Find images in a folder as they arrive, without end; existing files come first.

    A file is yielded once its size and time are the same in two scans, so that a file that is still
    being written is not read. It is yielded again if it is written again. Videos count as images.

    Args:
        folder: Folder, searched recursively at each scan.
        frame_stride: Read every n-th frame of videos.
        notes: Collects what is skipped.

    Yields:
        Items, and None after each scan, so that the items so far can be processed.
    """
    search = _Search(frame_stride, Notes() if notes is None else notes)
    taken: dict[Path, tuple[int, int]] = {}
    seen: dict[Path, tuple[int, int]] = {}
    while True:
        present: dict[Path, tuple[int, int]] = {}
        complete = True
        for found in FolderSearch(folder, search.notes).files():
            complete = complete and not found.fault
            try:
                status = found.path.stat()
            except OSError:  # deleted since it was listed, or a link that leads nowhere
                continue
            state = status.st_size, status.st_mtime_ns
            present[found.path] = state
            if taken.get(found.path) != state and seen.get(found.path) == state:
                taken[found.path] = state
                yield from search.open_found(found)
        # Forget deleted files, so that memory does not grow; but not if a folder could not be
        # read, since its files would be yielded again when it is back.
        if complete:
            taken = {path: state for path, state in taken.items() if path in present}
        seen = present
        yield None
        time.sleep(WATCH_SECONDS)


def path_fault(text: str) -> str:
    """Return the reason why a path names nothing; empty if it names something to read.

    Args:
        text: Path as `find_items` takes it.
    """
    if text == STANDARD_INPUT or is_camera(text):
        return ""
    if _is_pattern(text):
        return "" if has_match(text) else f"expected files that match {text}, found none"
    mode = _mode(text)
    return mode if isinstance(mode, str) else ""


class _Search:
    """Searches files, folders and patterns; notes what is skipped."""

    def __init__(self, frame_stride: int, notes: Notes):
        self.notes = notes
        self._frame_stride = frame_stride

    def find(self, text: str) -> Iterator[Item]:
        """Yield the items at a path, the matches of a pattern, or the frames of a camera."""
        if is_camera(text):
            return read_camera(int(text), self._frame_stride)
        return self.find_matches(text) if _is_pattern(text) else self.find_path(text)

    def find_path(self, text: str) -> Iterator[Item]:
        """Yield the items at a path, without interpreting it as a pattern or camera."""
        path, mode = Path(text), _mode(text)
        if isinstance(mode, str):
            yield Item(text, path, fault=mode)
        elif stat.S_ISDIR(mode):
            yield from self._find_in_folder(path, text)
        else:
            yield from self._open_named(path, text)

    def _find_in_folder(self, folder: Path, name: str) -> Iterator[Item]:
        found = False
        for file in FolderSearch(folder, self.notes).files():
            for item in self.open_found(file):
                found = True
                yield item
        if not found:
            yield Item(name, folder, fault=f"expected images or videos in {folder}, found none")

    def find_matches(self, pattern: str) -> Iterator[Item]:
        """Yield the items at the paths that a pattern matches; folders are searched recursively."""
        matches = expand_pattern(pattern, self.notes)
        if not matches:
            yield Item(pattern, fault=path_fault(pattern))
        searched: set[Path] = set()
        for match in matches:
            path, mode = Path(match), _mode(match)
            if not searched.isdisjoint(path.parents):  # ** matches a folder and its contents
                continue
            if isinstance(mode, str):
                yield Item(match, path, fault=mode)
            elif stat.S_ISDIR(mode):
                searched.add(path)
                yield from self._find_in_folder(path, match)
            else:
                yield from self.open_found(FoundFile(path))

    def _open_named(self, path: Path, name: str) -> Iterator[Item]:
        """Yield the image or the frames of a file that the user has named."""
        try:
            kind = kind_of(path)
            if kind == OTHER and not is_regular(path):
                fault = f"expected a file or folder, found a pipe or device: {name}"
                yield Item(name, path, fault=fault)
                return
        except OSError as error:
            yield Item(name, path, fault=_cannot_read(path, error))
            return
        yield from self._open(path, name, _kind_by_name(path) or IMAGE if kind == OTHER else kind)

    def open_found(self, found: FoundFile) -> Iterator[Item]:
        """Yield the image or the frames of a file that was found; leave out any other file."""
        path = found.path
        if found.fault:
            yield Item(str(path), path, fault=found.fault)
            return
        try:
            kind = kind_of(path)
            if kind == OTHER:
                kind = _kind_by_name(path) if is_regular(path) else OTHER
        except OSError as error:
            if path.suffix.lower() in IMAGE_NAMES | VIDEO_NAMES:
                yield Item(str(path), path, fault=_cannot_read(path, error))
            else:
                self.notes.add(UNREADABLE, path)
            return
        if kind in (IMAGE, VIDEO):
            yield from self._open(path, str(path), kind)
        else:
            self.notes.add(NO_FILE if kind == OTHER else NEITHER, path)

    def _open(self, path: Path, name: str, kind: str) -> Iterator[Item]:
        if kind == VIDEO:
            yield from read_video(path, name, self._frame_stride)
        else:
            yield Item(name, path)


def is_camera(text: str) -> bool:
    """Return whether a path is the number of a camera, and no file."""
    # OpenCV gives numbers from 100 on other meanings.
    is_number = text.isascii() and text.isdecimal() and len(text) <= 2
    return is_number and not os.path.lexists(text)


def _is_pattern(text: str) -> bool:
    return has_pattern(text) and not os.path.lexists(text)


def _mode(text: str) -> int | str:
    """Return the type and mode of the file at a path, or the reason why there is none."""
    try:
        if text:  # an empty path would be the current folder
            return Path(text).stat().st_mode
    except (FileNotFoundError, ValueError):  # a name with a null byte is a ValueError
        pass
    except OSError as error:
        return _cannot_read(text, error)
    return f"no such file or folder: {text or repr(text)}"


def _kind_by_name(path: Path) -> str:
    """Return the kind that a file's name states, or an empty text.

    Raises:
        OSError: The file cannot be read.
    """
    suffix = path.suffix.lower()
    if suffix in AMBIGUOUS_NAMES:
        with path.open("rb") as file:
            return VIDEO if b"\0" in file.read(HEAD_BYTES) else ""
    return IMAGE if suffix in IMAGE_NAMES else VIDEO if suffix in VIDEO_NAMES else ""


def _cannot_read(path: Path | str, error: OSError) -> str:
    return f"cannot read {path}: {error.strerror or error}"
