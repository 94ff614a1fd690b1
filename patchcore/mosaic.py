"""Many small pictures in one JPEG file, side by side: coreset patches beside a saved model."""

import math
from dataclasses import dataclass

import cv2
import numpy as np

from patchcore.errors import PatchCoreError

# Bytes of all tiles before compression; where there would be more, they are kept smaller.
MOST_BYTES = 64_000_000
# JPEG compresses blocks of 8x8 pixels by themselves: tiles that start at blocks do not mix.
BLOCK = 8
QUALITY = 92


@dataclass(frozen=True)
class _Layout:
    """Where the tiles of a mosaic lie: row by row, in about a square (JPEG ends at 65500 pixels).

    Attributes:
        side: (height, width) in which tiles are kept: theirs, or smaller where they are many.
        cell: (height, width) of a tile filled up to whole blocks.
        rows: Of tiles.
        columns: Of tiles.
    """

    side: tuple[int, int]
    cell: tuple[int, int]
    rows: int
    columns: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of the whole picture."""
        return self.rows * self.cell[0], self.columns * self.cell[1], 3


def encode_mosaic(tiles: np.ndarray) -> bytes:
    """Compress tiles, (n, ph, pw, 3) uint8 RGB, n > 0, to a JPEG file's content.

    Raises:
        PatchCoreError: they are too many for one picture: tens of millions.
    """
    layout = _lay_out(len(tiles), tiles.shape[1:3])
    side, cell = layout.side, layout.cell
    if side != tiles.shape[1:3]:
        tiles = np.stack([_resize(tile, side) for tile in tiles])
    # What fills a tile up to whole blocks repeats its border: no edge, few bytes.
    padding = (0, 0), (0, cell[0] - side[0]), (0, cell[1] - side[1]), (0, 0)
    padded = np.pad(tiles, padding, mode="edge")
    canvas = np.zeros((layout.rows * layout.columns, *cell, 3), dtype=np.uint8)
    canvas[: len(tiles)] = padded
    grid = canvas.reshape(layout.rows, layout.columns, *cell, 3).transpose(0, 2, 1, 3, 4)
    picture = grid.reshape(layout.shape)
    parameters = [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
    # Colours in full resolution: halved, their blocks would span neighbouring tiles.
    parameters += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    done, data = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), parameters)
    if not done:
        raise PatchCoreError(f"cannot keep the pictures of {len(tiles)} patches: they are too many")
    return data.tobytes()


def decode_mosaic(data: bytes, count: int, size: tuple[int, int]) -> np.ndarray:
    """Read tiles back.

    Args:
        data: What `encode_mosaic` gave.
        count: How many tiles, n > 0.
        size: (ph, pw) of each.

    Returns:
        (n, ph, pw, 3) uint8 RGB, a little changed by the compression.

    Raises:
        PatchCoreError: this is no mosaic of such tiles.
    """
    layout = _lay_out(count, size)
    try:
        picture = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error:  # nothing at all, or a size beyond all measure
        picture = None
    if picture is None or picture.shape != layout.shape:
        found = "a damaged file" if picture is None else f"a picture of {picture.shape}"
        raise PatchCoreError(f"expected a mosaic of {count} patches, found {found}")
    side, cell = layout.side, layout.cell
    grid = picture.reshape(layout.rows, cell[0], layout.columns, cell[1], 3)
    tiles = grid.transpose(0, 2, 1, 3, 4).reshape(-1, *cell, 3)[:count, : side[0], : side[1]]
    if side != tuple(size):
        tiles = np.stack([_resize(tile, size) for tile in tiles])
    return np.ascontiguousarray(tiles)


def _lay_out(count: int, size: tuple[int, int]) -> _Layout:
    # sqrt, unlike a power, is the same to the last bit everywhere: who reads lays out again.
    share = math.sqrt(MOST_BYTES / (3 * count * size[0] * size[1]))
    height, width = size if share >= 1 else (max(1, int(length * share)) for length in size)
    cell = tuple(-(-length // BLOCK) * BLOCK for length in (height, width))
    columns = min(count, max(1, round(math.sqrt(count * cell[0] / cell[1]))))
    return _Layout((height, width), cell, -(-count // columns), columns)


def _resize(tile: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    shrinks = tuple(size) < tile.shape[:2]  # both sides do, or neither
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(np.ascontiguousarray(tile), size[::-1], interpolation=method)
