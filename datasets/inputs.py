"""Pictures that come from anywhere: files, folders, patterns, videos, cameras, lists of paths.

Everything is found lazily and one at a time, so that a million files or hours of video need no
more memory than one of them.
"""

import io
import os
import stat
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import cv2
import numpy as np

from datasets.base import DatasetError
from datasets.images import read_image
from datasets.mvtec import IMAGE_SUFFIXES
from datasets.patterns import expand_pattern, has_pattern

VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mov", ".mkv"})
# Stands for paths on standard input, one a line.
STANDARD_INPUT = "-"
# How often a watched folder is looked at; a file is taken when it did not grow in between.
WATCH_SECONDS = 0.5


@dataclass(frozen=True)
class Item:
    """One picture to come: a file still to be read, or a frame that has been read.

    Attributes:
        name: Its path, as it was given; of a frame ``<video>#<number>``, counted from 0.
        path: The image or video file; None for a camera.
        frame: (H, W, 3) uint8 RGB of a frame; None for an image file.
        number: Of the frame; None for an image file.
        seconds: When the frame comes in the video, or came from the camera, counted from its start;
            None for an image file.
        fault: Why it cannot be read, where that is known already.
    """

    name: str
    path: Path | None = None
    frame: np.ndarray | None = None
    number: int | None = None
    seconds: float | None = None
    fault: str = ""

    def read(self) -> np.ndarray:
        """Return the picture, (H, W, 3) uint8 RGB.

        Raises:
            DatasetError: it cannot be read.
        """
        if self.fault:
            raise DatasetError(self.fault)
        return read_image(self.path) if self.frame is None else self.frame


@dataclass(frozen=True)
class VideoFormat:
    """What a video's frames are like.

    Attributes:
        frames_per_second: 25 where the source does not say.
        size: (height, width) in pixels.
    """

    frames_per_second: float
    size: tuple[int, int]


def find_items(
    paths: Iterable[str], *, every: int = 1, listed: TextIO | None = None
) -> Iterator[Item]:
    """Find pictures.

    Args:
        paths: Each an image file, a video file, a folder (searched through, in order of names,
            without hidden files and without following links to folders), a pattern such as
            ``parts/*.png`` (``**`` for any depth), a camera's number, or ``-`` for paths of files
            and folders on standard input, one a line. What bears the very name comes first: a file
            ``a[1].png`` is that file, and one that is called ``0`` no camera.
        every: Of videos and cameras, each n-th frame.
        listed: Where ``-`` reads from.

    Yields:
        Items. One that is missing, or no picture, is yielded with its fault: the rest goes on.
    """
    for path in paths:
        if path == STANDARD_INPUT:
            yield from _find_listed(listed, every)
        else:
            yield from _find(path, every)


def watch_folder(folder: Path, *, every: int = 1) -> Iterator[Item | None]:
    """Find pictures in a folder as they come, without end, those that are there first.

    A file is taken when its size has stayed the same between two looks: one that is being written
    is left until it is whole. Videos count as pictures. A file that was taken and is written again
    is taken again.

    Args:
        folder: Searched through at each look.
        every: Of videos, each n-th frame.

    Yields:
        Items; None after each look, so that what has gathered can be worked on.
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
            except OSError:  # gone since it was listed
                continue
            state = status.st_size, status.st_mtime_ns
            present[item.path] = state
            if taken.get(item.path) != state and seen.get(item.path) == state:
                taken[item.path] = state
                yield from _open(item, every)
        # What was deleted is forgotten, so that memory does not grow for ever; not so where a
        # folder could not be looked into: its files would be taken again when it is back.
        if complete:
            taken = {path: state for path, state in taken.items() if path in present}
        seen = present
        yield None
        time.sleep(WATCH_SECONDS)


def video_format(path: Path) -> VideoFormat | None:
    """Return what a video's frames are like; None where it cannot be read."""
    capture = cv2.VideoCapture(os.fsencode(path))  # as text, a name that is none would crash it
    try:
        return _format(capture) if capture.isOpened() else None
    finally:
        capture.release()


def is_video(path: Path) -> bool:
    """Tell by its name whether a file is a video."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def is_image(path: Path) -> bool:
    """Tell by its name whether a file is a picture; hidden files are leftovers of systems."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def _find(text: str, every: int) -> Iterator[Item]:
    """Yield what a word of the command means: what bears this name, else a camera or a pattern."""
    if os.path.lexists(text):
        yield from _find_path(text, every)
    elif text.isascii() and text.isdecimal() and len(text) <= 2:  # 100 and up mean other things
        yield from _frames(int(text), f"camera {text}", None, every)
    elif has_pattern(text):
        yield from _find_matches(text, every)
    else:
        yield from _find_path(text, every)


def _find_path(text: str, every: int) -> Iterator[Item]:
    """Yield what lies at a path, whatever letters are in it."""
    path = Path(text)
    try:
        # An empty path would be the current folder, which nobody means by it.
        mode = path.stat().st_mode if text else 0
    except (FileNotFoundError, ValueError):  # no file's name has a zero byte
        mode = 0
    except OSError as error:
        yield Item(text, path, fault=f"cannot read {text}: {error.strerror or error}")
        return
    if not mode:
        yield Item(text, path, fault=f"no such file or folder: {text or repr(text)}")
    elif not stat.S_ISDIR(mode):
        yield from _open(Item(text, path), every)
    else:
        found = False
        for item in _walk(path):
            found = True
            yield from _open(item, every)
        if not found:
            yield Item(text, path, fault=f"expected images or videos in {path}, found none")


def _find_matches(pattern: str, every: int) -> Iterator[Item]:
    """Yield what a pattern meets; folders are searched through."""
    matches = expand_pattern(pattern)
    if not matches:
        yield Item(pattern, fault=f"expected files that match {pattern}, found none")
    searched: set[Path] = set()
    for match in matches:
        path = Path(match)
        if not searched.isdisjoint(path.parents):  # ** meets a folder and what is in it
            continue
        if path.is_dir():
            searched.add(path)
        yield from _find_path(match, every)


def _find_listed(lines: TextIO | None, every: int) -> Iterator[Item]:
    """Yield what lies at the paths of a list, one a line, taken as they stand: no patterns."""
    if isinstance(lines, io.TextIOWrapper):  # file names may be no text
        lines.reconfigure(errors="surrogateescape")
    for line in lines or ():
        if path := line.rstrip("\r\n"):
            yield from _find_path(path, every)


def _open(item: Item, every: int) -> Iterator[Item]:
    """Yield a video's frames; anything else as it is."""
    if item.fault or not is_video(item.path):  # decoding tells whether a file is a picture
        yield item
    else:
        yield from _frames(os.fsencode(item.path), item.name, item.path, every)


def _walk(folder: Path) -> Iterator[Item]:
    """Yield the pictures and videos of a folder and the folders in it, in order of names.

    A folder that cannot be looked into is yielded with this fault.
    """
    names, folders = [], set()
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                names.append(entry.name)  # a path would need five times the memory
                if entry.is_dir(follow_symlinks=False):  # a link may lead back to where we are
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


def _frames(source: bytes | int, name: str, path: Path | None, every: int) -> Iterator[Item]:
    """Yield each n-th frame of a video (its path as bytes) or of a camera (its number)."""
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
        while capture.grab():  # decoded only where it is wanted
            # A camera's frames come when they come, and some are lost while we compute.
            seconds = time.monotonic() - start if path is None else number / rate
            if number % every == 0:
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


def _format(capture: cv2.VideoCapture) -> VideoFormat:
    rate = capture.get(cv2.CAP_PROP_FPS)
    size = (
        int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)),
        int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)),
    )
    return VideoFormat(rate if 0 < rate < 1000 else 25.0, size)
