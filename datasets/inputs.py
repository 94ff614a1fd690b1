"""Images from files, folders, patterns, videos, cameras and lists of paths.

Everything is found lazily, one item at a time, so that a million files or hours of video need no
more memory than one image. OpenCV is imported where something is decoded, so that missing paths are
reported at once.
"""

import io
import os
import stat
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np

from datasets.base import DatasetError, is_image
from datasets.depth import Decoding
from datasets.notes import Notes
from datasets.patterns import expand_pattern, has_match, has_pattern

VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mov", ".mkv"})
# Stands for paths on standard input, one per line.
STANDARD_INPUT = "-"
# Pause between two scans of a watched folder; a file is read if it has not changed in between.
WATCH_SECONDS = 0.5


@dataclass(frozen=True)
class Item:
    """One image: a file still to be read, or a frame that has been read.

    Attributes:
        name: Path as it was given; ``<video>#<number>`` for a frame, counted from 0.
        path: Image or video file; None for a camera.
        frame: (H, W, 3) uint8 RGB of a frame; None for an image file.
        number: Number of the frame; None for an image file.
        seconds: Time of the frame since the start of the video or camera; None for an image file.
        fault: Reason why it cannot be read, if already known.
    """

    name: str
    path: Path | None = None
    frame: np.ndarray | None = None
    number: int | None = None
    seconds: float | None = None
    fault: str = ""

    @property
    def file(self) -> Path | None:
        """The image file that `read` decodes; None for a frame and for an item with a fault."""
        return self.path if self.frame is None and not self.fault else None

    def read(self, decoding: Decoding | None = None, notes: Notes | None = None) -> np.ndarray:
        """Return the image, (H, W, 3) uint8 RGB.

        Args:
            decoding: Largest size, and range of values above 8 bits.
            notes: Collects what is remarkable about the image.

        Raises:
            DatasetError: It cannot be read.
        """
        if self.fault:
            raise DatasetError(self.fault)
        from datasets.images import read_image

        if self.frame is not None:
            return self.frame
        return read_image(self.path, decoding, notes)


@dataclass(frozen=True)
class VideoFormat:
    """Format of a video's frames.

    Attributes:
        frames_per_second: Frame rate; 25 if the source does not state it.
        size: (height, width) in pixels.
    """

    frames_per_second: float
    size: tuple[int, int]


def find_items(
    paths: Iterable[str], *, frame_stride: int = 1, listed: TextIO | None = None
) -> Iterator[Item]:
    """Find images.

    Args:
        paths: Image files, video files, folders (searched recursively in order of names, without
            hidden files and links to folders), patterns such as ``parts/*.png`` (``**`` for any
            depth), numbers of cameras, or ``-`` for paths of files and folders on standard input,
            one per line. An existing file takes precedence: ``a[1].png`` and ``0`` are read as
            files if they exist.
        frame_stride: Read every n-th frame of videos and cameras.
        listed: Stream that ``-`` reads from.

    Yields:
        Items; a missing or unreadable one has a fault, and the search continues.
    """
    for path in paths:
        if path == STANDARD_INPUT:
            yield from _find_listed(listed, frame_stride)
        else:
            yield from _find(path, frame_stride)


def watch_folder(folder: Path, *, frame_stride: int = 1) -> Iterator[Item | None]:
    """Find images in a folder as they arrive, without end; existing files come first.

    A file is yielded once its size and time are the same in two scans, so that a file that is still
    being written is not read. It is yielded again if it is written again. Videos count as images.

    Args:
        folder: Folder, searched recursively at each scan.
        frame_stride: Read every n-th frame of videos.

    Yields:
        Items, and None after each scan, so that the items so far can be processed.
    """
    taken: dict[Path, tuple[int, int]] = {}
    seen: dict[Path, tuple[int, int]] = {}
    while True:
        present: dict[Path, tuple[int, int]] = {}
        complete = True
        for item in _walk(folder):
            complete = complete and not item.fault
            try:
                status = item.path.stat()
            except OSError:  # deleted since it was listed
                continue
            state = status.st_size, status.st_mtime_ns
            present[item.path] = state
            if taken.get(item.path) != state and seen.get(item.path) == state:
                taken[item.path] = state
                yield from _open(item, frame_stride)
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
    if text == STANDARD_INPUT or _is_camera(text):
        return ""
    if _is_pattern(text):
        return "" if has_match(text) else f"expected files that match {text}, found none"
    mode = _mode(text)
    return mode if isinstance(mode, str) else ""


def video_format(path: Path) -> VideoFormat | None:
    """Return the format of a video's frames; None if it cannot be read."""
    import cv2

    capture = cv2.VideoCapture(os.fsencode(path))  # bytes: it crashes on text that is not UTF-8
    try:
        return _format(capture) if capture.isOpened() else None
    finally:
        capture.release()


def is_video(path: Path) -> bool:
    """Return whether a file is a video, by its name."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def _find(text: str, frame_stride: int) -> Iterator[Item]:
    """Yield the items of one path: a file or folder of this name, else a camera or a pattern."""
    if _is_camera(text):
        yield from _frames(int(text), f"camera {text}", None, frame_stride)
    elif _is_pattern(text):
        yield from _find_matches(text, frame_stride)
    else:
        yield from _find_path(text, frame_stride)


def _is_camera(text: str) -> bool:
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
        return f"cannot read {text}: {error.strerror or error}"
    return f"no such file or folder: {text or repr(text)}"


def _find_path(text: str, frame_stride: int) -> Iterator[Item]:
    """Yield the items at a path, without interpreting it as a pattern or camera."""
    path, mode = Path(text), _mode(text)
    if isinstance(mode, str):
        yield Item(text, path, fault=mode)
        return
    if not stat.S_ISDIR(mode):
        yield from _open(Item(text, path), frame_stride)
        return
    found = False
    for item in _walk(path):
        found = True
        yield from _open(item, frame_stride)
    if not found:
        yield Item(text, path, fault=f"expected images or videos in {path}, found none")


def _find_matches(pattern: str, frame_stride: int) -> Iterator[Item]:
    """Yield the items at the paths that a pattern matches; folders are searched recursively."""
    matches = expand_pattern(pattern)
    if not matches:
        yield Item(pattern, fault=path_fault(pattern))
    searched: set[Path] = set()
    for match in matches:
        path = Path(match)
        if not searched.isdisjoint(path.parents):  # ** matches a folder and its contents
            continue
        if path.is_dir():
            searched.add(path)
        yield from _find_path(match, frame_stride)


def _find_listed(lines: TextIO | None, frame_stride: int) -> Iterator[Item]:
    """Yield the items at listed paths, one per line, which are not patterns."""
    if isinstance(lines, io.TextIOWrapper):  # file names need not be valid text
        lines.reconfigure(errors="surrogateescape")
    for line in lines or ():
        if path := line.rstrip("\r\n"):
            yield from _find_path(path, frame_stride)


def _open(item: Item, frame_stride: int) -> Iterator[Item]:
    """Yield the frames of a video; any other item as it is."""
    if item.fault or not is_video(item.path):  # decoding shows whether a file is an image
        yield item
    else:
        yield from _frames(os.fsencode(item.path), item.name, item.path, frame_stride)


def _walk(folder: Path) -> Iterator[Item]:
    """Yield the images and videos in a folder and its subfolders, in order of names.

    A folder that cannot be read is yielded with its fault.
    """
    names, folders = [], set()
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                names.append(entry.name)  # a Path needs five times the memory
                if entry.is_dir(follow_symlinks=False):  # a link may lead back here
                    folders.add(entry.name)
    except OSError as error:
        yield Item(str(folder), folder, fault=f"cannot read {folder}: {error.strerror or error}")
        return
    for name in sorted(names):
        path = folder / name
        if name.startswith("."):
            continue
        if name in folders:
            yield from _walk(path)
        elif is_image(path) or is_video(path):
            yield Item(str(path), path)


def _frames(source: bytes | int, name: str, path: Path | None, frame_stride: int) -> Iterator[Item]:
    """Yield every n-th frame of a video (its path as bytes) or of a camera (its number)."""
    import cv2

    what = "a camera" if path is None else "a video"
    capture = cv2.VideoCapture(source)
    try:
        if not capture.isOpened():
            hint = ", and there is no file of its number" if path is None else ""
            yield Item(name, path, fault=f"expected {what}, cannot open {name}{hint}")
            return
        rate = _format(capture).frames_per_second
        start = time.monotonic()
        number = 0
        while capture.grab():  # decodes nothing yet
            # A camera's frames arrive at any time, and some are lost during computation.
            seconds = time.monotonic() - start if path is None else number / rate
            if number % frame_stride == 0:
                readable, frame = capture.retrieve()
                if not readable:
                    yield Item(f"{name}#{number}", path, fault=f"damaged frame {number} of {name}")
                else:
                    rgb = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
                    yield Item(f"{name}#{number}", path, rgb, number, seconds)
            number += 1
        if number == 0:
            yield Item(name, path, fault=f"expected {what}, found no frame in {name}")
    finally:
        capture.release()


def _format(capture) -> VideoFormat:
    """Return the format of the frames of a `cv2.VideoCapture`."""
    import cv2

    rate = capture.get(cv2.CAP_PROP_FPS)
    size = (
        int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)),
        int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)),
    )
    return VideoFormat(rate if 0 < rate < 1000 else 25.0, size)
