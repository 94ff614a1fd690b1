"""Completeness of JPEG files: decoders fill what is missing with grey, without an error.

A progressive file that ends exactly between two of its scans, and is closed by a marker of the
image's end, cannot be distinguished from a complete file; neither can a file that lacks the last
details of its last block.
"""

import io

import numpy as np
from PIL import Image

START_OF_SCAN, END_OF_IMAGE = 0xDA, 0xD9
RESTARTS = range(0xD0, 0xD8)
# Without a length: TEM, the restart markers, and the end of an image.
BARE = frozenset({0x01, *RESTARTS, END_OF_IMAGE})
# Frames of arithmetic, lossless and differential coding: table B.1 of ITU-T T.81.
OTHER_FRAMES = frozenset(range(0xC3, 0xD0)) - {0xC4, 0xC8, 0xCC}
# Any bytes but 255, in which no run of bits repeats.
FILLING = bytes(np.random.default_rng(0).integers(0, 255, 64, dtype=np.uint8))


def is_complete(data: bytes) -> bool:
    """Return whether a JPEG file holds all of its pixels.

    Further bytes are added at the end of the coded pixels. A decoder skips what follows the last
    pixel. Only if pixels are missing does it decode these bytes in their place, and the image
    becomes another one.

    Args:
        data: The file.

    Raises:
        ValueError: The file has no marker of the image's end.
        OSError: The file cannot be decoded.
    """
    filled = with_filling(data)
    return filled is None or np.array_equal(_decode(data), _decode(filled))


def with_filling(data: bytes) -> bytes | None:
    """Return a JPEG file with further bytes at the end of its coded pixels.

    Args:
        data: The file.

    Returns:
        The file with further bytes before each marker that ends coded pixels; None for arithmetic
        and lossless coding, in which they could change a complete image.

    Raises:
        ValueError: The file has no marker of the image's end.
    """
    array = np.frombuffer(data, np.uint8)
    marks = np.flatnonzero(array[:-1] == 0xFF)
    codes = array[marks + 1]
    is_marker = (codes != 0) & (codes != 0xFF)
    marks, codes = marks[is_marker], codes[is_marker]
    pieces, written = [], 0
    position, is_coded, is_huffman, next_restart = 2, False, True, 0
    while True:
        number = np.searchsorted(marks, position)
        if number == len(marks):
            raise ValueError("it ends before the marker of the image's end")
        start, code = int(marks[number]), int(codes[number])
        if is_coded:
            # Any number of bytes of 255 may precede a marker, and belong to it.
            end = position + len(data[position:start].rstrip(b"\xff"))
            pieces += [data[written:end], FILLING]
            written = end
            if code not in RESTARTS:
                # The file may end where a restart is due. A decoder skips a marker that is not.
                pieces += [bytes([0xFF, RESTARTS[next_restart]]), FILLING]
        if code == END_OF_IMAGE:
            break
        is_huffman = is_huffman and code not in OTHER_FRAMES
        is_coded = code == START_OF_SCAN or code in RESTARTS
        next_restart = (code - RESTARTS[0] + 1) % len(RESTARTS) if code in RESTARTS else 0
        length = 0 if code in BARE else int.from_bytes(data[start + 2 : start + 4], "big")
        position = start + 2 + length
    return b"".join([*pieces, data[written:]]) if is_huffman else None


def _decode(data: bytes) -> np.ndarray:
    # By Pillow: OpenCV's decoder prints a warning about bytes that it skips.
    with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
        if not image.info.get("progressive"):
            # An eighth of the size needs half of the time. A missing block shows in its mean, but
            # the later scans of a progressive file hold no means.
            image.draft(None, (max(image.width // 8, 1), max(image.height // 8, 1)))
        return np.asarray(image)
