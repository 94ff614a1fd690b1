"""Frames of videos and cameras, with their times; a video that ends early is reported.

OpenCV is imported where a video is opened, so that other mistakes are reported at once.
"""

import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from datasets.containers import COUNTED, TIMED, is_cut_short, is_trimmed
from datasets.content import format_of
from datasets.items import Item

# A container's duration is that of its longest stream, often the sound.
TOLERATED_SECONDS, TOLERATED_SHARE = 1.0, 0.05


@dataclass(frozen=True)
class VideoFormat:
    """Format of a video's frames.

    Attributes:
        frames_per_second: Frame rate; 25 if the source does not state it.
        size: (height, width) in pixels.
        num_frames: Number of frames that the source states, or that follows from its duration; 0
            if it is unknown.
    """

    frames_per_second: float
    size: tuple[int, int]
    num_frames: int = 0


def video_format(path: Path) -> VideoFormat | None:
    """Return the format of a video's frames; None if it cannot be read."""
    import cv2

    capture = cv2.VideoCapture(os.fsencode(path))  # bytes: it crashes on text that is not UTF-8
    try:
        return _format(capture) if capture.isOpened() else None
    finally:
        capture.release()


def read_video(path: Path, name: str, frame_stride: int) -> Iterator[Item]:
    """Yield every n-th frame of a video, then a fault if frames are missing.

    The time of a frame is the one that the container states; where it states none or a smaller one
    than before, one frame later than the frame before.
    """
    import cv2

    capture = cv2.VideoCapture(os.fsencode(path))
    try:
        if not capture.isOpened():
            yield Item(name, path, fault=f"expected a video, cannot open {name}")
            return
        known = _format(capture)
        number, seconds = 0, 0.0
        while capture.grab():  # decodes nothing yet
            stated = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            if number == 0:
                seconds = stated if 0 <= stated < math.inf else 0.0
            else:
                is_later = seconds < stated < math.inf
                seconds = stated if is_later else seconds + 1 / known.frames_per_second
            if number % frame_stride == 0:
                yield _decode(capture, f"{name}#{number}", path, number, seconds)
            number += 1
    finally:
        capture.release()
    if number == 0:
        yield Item(name, path, fault=f"expected a video, found no frame in {name}")
    elif fault := _missing(path, name, known, number, seconds):
        yield Item(name, path, fault=fault)


def read_camera(camera: int, frame_stride: int) -> Iterator[Item]:
    """Yield every n-th frame of a camera, then a fault if it has no further one.

    The time of a frame is the clock's: frames arrive at any time, and some are lost during
    computation.
    """
    import cv2

    name = f"camera {camera}"
    capture = cv2.VideoCapture(camera)
    try:
        if not capture.isOpened():
            fault = f"expected a camera, cannot open {name}, and there is no file of its number"
            yield Item(name, fault=fault)
            return
        start, number = time.monotonic(), 0
        while capture.grab():
            seconds = time.monotonic() - start
            if number % frame_stride == 0:
                yield _decode(capture, f"{name}#{number}", None, number, seconds)
            number += 1
        # Only the user ends a camera: without a further frame it has failed.
        yield Item(name, fault=f"expected frames of {name} without end, found {number}")
    finally:
        capture.release()


def _decode(capture, name: str, path: Path | None, number: int, seconds: float) -> Item:
    """Return the frame that a `cv2.VideoCapture` has grabbed."""
    import cv2

    readable, frame = capture.retrieve()
    if not readable:
        source = name.rpartition("#")[0]
        return Item(name, path, fault=f"damaged frame {number} of {source}")
    return Item(name, path, cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), number, seconds)


def _missing(path: Path, name: str, known: VideoFormat, found: int, seconds: float) -> str:
    """Return what is missing at the end of a video; empty if nothing is.

    Args:
        path: The video file.
        name: Its name in the message.
        known: Its format.
        found: Number of frames found.
        seconds: Time of the last frame.
    """
    try:
        container = format_of(path)
        is_cut = is_cut_short(path)
        is_counted = container is not None and container.name in COUNTED and not is_trimmed(path)
    except OSError as error:
        return f"cannot read {name} to its end: {error.strerror or error}"
    expected = known.num_frames
    if is_counted and found < expected:
        cause = "cut short" if is_cut else "damaged"
        return f"expected {expected} frames in {name}, found {found}: the file is {cause}"
    if is_cut:
        return f"expected a complete video, found {found} frames in {name}: the file is cut short"
    duration = expected / known.frames_per_second
    shown = seconds + 1 / known.frames_per_second
    tolerance = max(TOLERATED_SECONDS, TOLERATED_SHARE * duration)
    if container is not None and container.name in TIMED and shown < duration - tolerance:
        return (
            f"expected {duration:.1f} s of frames in {name}, found {shown:.1f} s ({found} frames): "
            "the file is cut short or damaged"
        )
    return ""


def _format(capture) -> VideoFormat:
    """Return the format of the frames of a `cv2.VideoCapture`."""
    import cv2

    rate = capture.get(cv2.CAP_PROP_FPS)
    count = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    size = (
        int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)),
        int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)),
    )
    # Without a duration FFmpeg gives a number of frames far below 0.
    num_frames = int(count) if 0 < count < 1e9 else 0
    return VideoFormat(rate if 0 < rate < 1000 else 25.0, size, num_frames)
