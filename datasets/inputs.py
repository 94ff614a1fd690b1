"""Pictures that come from anywhere: files, folders, patterns, videos, cameras, lists of paths.

Everything is found lazily and one at a time, so that a million files or hours of video need no
more memory than one of them.
"""

import glob
import os
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

VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mov", ".mkv"})
# Stands for paths on standard input, one a line.
STANDARD_INPUT = "-"
# How often a watched folder is looked at; a file is taken when it did not grow in between.
WATCH_SECONDS = 0.5


@dataclass(frozen=True)
class Item:
    """One picture to come: a file still to be read, or a frame that has been read.

    Attributes:
        name: Its path; of a frame ``<video>#<number>``, counted from 0.
        path: The image or video file; None for a camera.
        frame: (H, W, 3) uint8 RGB of a frame; None for an image file.
        number: Of the frame; None for an image file.
        seconds: The frame's time from the start of the video or camera; None for an image file.
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
        paths: Each an image file, a video file, a folder (searched through, in order of names), a
            pattern such as ``parts/*.png`` (``**`` for any depth), a camera's number, or ``-`` for
            paths on standard input, one a line.
        every: Of videos and cameras, each n-th frame.
        listed: Where ``-`` reads from.

    Yields:
        Items. One that is missing, or no picture, is yielded with its fault: the rest goes on.
    """
    for path in paths:
        if path == STANDARD_INPUT:
            lines = (line.rstrip("\r\n") for line in listed or ())
            yield from find_items((line for line in lines if line), every=every)
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
        for path in _walk(folder):
            try:
                status = path.stat()
            except OSError:  # gone since it was listed
                continue
            state = status.st_size, status.st_mtime_ns
            present[path] = state
            if taken.get(path) != state and seen.get(path) == state:
                taken[path] = state
                yield from _find_file(path, every)
        # What was deleted is forgotten, so that memory does not grow for ever.
        taken = {path: state for path, state in taken.items() if path in present}
        seen = present
        yield None
        time.sleep(WATCH_SECONDS)


def video_format(path: Path) -> VideoFormat | None:
    """Return what a video's frames are like; None where it cannot be read."""
    capture = cv2.VideoCapture(str(path))
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
    path = Path(text)
    if path.is_dir():
        found = False
        for file in _walk(path):
            found = True
            yield from _find_file(file, every)
        if not found:
            yield Item(text, path, fault=f"expected images or videos in {path}, found none")
    elif path.exists():
        yield from _find_file(path, every)
    elif text.isdecimal():
        yield from _frames(int(text), f"camera {text}", None, every)
    elif glob.has_magic(text):
        matches = False
        for match in sorted(glob.iglob(text, recursive=True)):  # noqa: PTH207 - also absolute ones
            matches = True
            # A folder that the pattern meets is searched through, unless ** meets its files too.
            if "**" not in text or Path(match).is_file():
                yield from _find(match, every)
        if not matches:
            yield Item(text, fault=f"expected files that match {text}, found none")
    else:
        yield Item(text, path, fault=f"no such file or folder: {text}")


def _find_file(path: Path, every: int) -> Iterator[Item]:
    if is_video(path):
        yield from _frames(str(path), str(path), path, every)
    else:  # whatever its name: decoding tells whether it is a picture
        yield Item(str(path), path)


def _walk(folder: Path) -> Iterator[Path]:
    """Yield pictures and videos of a folder and the folders in it, in order of names."""
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208 - a name needs a fifth of a path's memory
    except OSError:  # gone, or not ours to read
        return
    for name in names:
        if name.startswith("."):
            continue
        path = folder / name
        if path.is_dir() and not path.is_symlink():  # a link may lead back to where we are
            yield from _walk(path)
        elif is_image(path) or is_video(path):
            yield path


def _frames(source: str | int, name: str, path: Path | None, every: int) -> Iterator[Item]:
    capture = cv2.VideoCapture(source)
    try:
        if not capture.isOpened():
            what = "a camera" if path is None else "a video"
            yield Item(name, path, fault=f"expected {what}, cannot open {name}")
            return
        rate = _format(capture).frames_per_second
        number = 0
        while capture.grab():  # decoded only where it is wanted
            if number % every == 0:
                readable, frame = capture.retrieve()
                if not readable:
                    yield Item(f"{name}#{number}", path, fault=f"damaged frame {number} of {name}")
                else:
                    rgb = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
                    yield Item(f"{name}#{number}", path, rgb, number, number / rate)
            number += 1
        if number == 0:
            yield Item(name, path, fault=f"expected a video, found no frame in {name}")
    finally:
        capture.release()


def _format(capture: cv2.VideoCapture) -> VideoFormat:
    rate = capture.get(cv2.CAP_PROP_FPS)
    size = (
        int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)),
        int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)),
    )
    return VideoFormat(rate if 0 < rate < 1000 else 25.0, size)
