"""The annotated copy of a video (--annotate)."""

from pathlib import Path

import cv2
import numpy as np

from datasets.videos import video_format
from utils.errors import UsageError


class AnnotatedVideo:
    """An annotated copy of a video; it gets its final name when it is complete.

    Args:
        source: The original video.
        target: The file of the copy.
        frame_stride: The copy has every n-th frame of the original.

    Raises:
        UsageError: the original cannot be read, or the copy cannot be written.
    """

    def __init__(self, source: Path, target: Path, frame_stride: int):
        self.source = source
        self._target = target
        self._partial = target.with_name(f".{target.stem}.partial{target.suffix}")
        self._num_frames = 0
        known = video_format(source)
        if known is None:
            raise UsageError(f"expected the video {source}, cannot read it again (--annotate)")
        target.parent.mkdir(exist_ok=True)
        height, width = known.size
        self._size = width - width % 2, height - height % 2  # codecs need even sides
        self._writer = cv2.VideoWriter(
            str(self._partial),
            cv2.VideoWriter_fourcc(*"mp4v"),
            known.frames_per_second / frame_stride,
            self._size,
        )
        if not self._writer.isOpened():
            raise UsageError(
                f"cannot write the video {target}: this OpenCV has no encoder for mp4 (--annotate)"
            )

    def add(self, frame: np.ndarray) -> None:
        """Add a frame, (H, W, 3) uint8 RGB."""
        width, height = self._size
        self._writer.write(cv2.cvtColor(frame[:height, :width], cv2.COLOR_RGB2BGR))
        self._num_frames += 1

    def finish(self) -> None:
        """Give the complete file its name.

        Raises:
            UsageError: frames are missing in it: OpenCV reports no error while it writes.
        """
        self._writer.release()
        written = video_format(self._partial)
        found = 0 if written is None else written.num_frames
        if found != self._num_frames:
            raise UsageError(
                f"expected {self._num_frames} frames in the annotated video {self._target}, found "
                f"{found}: the disk may be full (--path_result)"
            )
        self._partial.replace(self._target)

    def remove(self) -> None:
        """Remove the incomplete file."""
        self._writer.release()
        self._partial.unlink(missing_ok=True)
