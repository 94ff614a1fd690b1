"""One image to judge or to learn: a file, or a frame of a video or camera."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets.base import DatasetError
from datasets.depth import Decoding
from datasets.notes import Notes


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
            notes: Collects remarks about the image.

        Raises:
            DatasetError: It cannot be read.
        """
        if self.fault:
            raise DatasetError(self.fault)
        from datasets.images import read_image

        if self.frame is not None:
            return self.frame
        return read_image(self.path, decoding, notes)
