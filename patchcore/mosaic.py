"""Many small pictures in one JPEG file, side by side: coreset patches beside a saved model."""

import cv2
import numpy as np

from patchcore.errors import PatchCoreError

# Bytes of all tiles before compression; where there would be more, they are kept smaller.
MOST_BYTES = 64_000_000
# JPEG compresses blocks of 8x8 pixels by themselves: tiles that start at blocks do not mix.
BLOCK = 8
TILES_PER_ROW = 128
QUALITY = 92


def encode_mosaic(tiles: np.ndarray) -> bytes:
    """Compress tiles, (n, ph, pw, 3) uint8 RGB, n > 0, to a JPEG file's content."""
    side = _stored_side(len(tiles), tiles.shape[1:3])
    if side != tiles.shape[1:3]:
        tiles = np.stack([_resize(tile, side) for tile in tiles])
    height, width = (-(-length // BLOCK) * BLOCK for length in side)
    rows = -(-len(tiles) // TILES_PER_ROW)
    columns = min(len(tiles), TILES_PER_ROW)
    # What fills a tile up to whole blocks repeats its border: no edge, few bytes.
    padding = (0, 0), (0, height - side[0]), (0, width - side[1]), (0, 0)
    padded = np.pad(tiles, padding, mode="edge")
    canvas = np.zeros((rows * columns, height, width, 3), dtype=np.uint8)
    canvas[: len(tiles)] = padded
    grid = canvas.reshape(rows, columns, height, width, 3).transpose(0, 2, 1, 3, 4)
    picture = grid.reshape(rows * height, columns * width, 3)
    parameters = [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
    # Colours in full resolution: halved, their blocks would span neighbouring tiles.
    parameters += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    _, data = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), parameters)
    return data.tobytes()


def decode_mosaic(data: bytes, count: int, size: tuple[int, int]) -> np.ndarray:
    """Read tiles back.

    Args:
        data: What `encode_mosaic` gave.
        count: How many tiles, n.
        size: (ph, pw) of each.

    Returns:
        (n, ph, pw, 3) uint8 RGB, a little changed by the compression.

    Raises:
        PatchCoreError: this is no mosaic of such tiles.
    """
    picture = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_COLOR_RGB)
    side = _stored_side(count, size)
    height, width = (-(-length // BLOCK) * BLOCK for length in side)
    rows, columns = -(-count // TILES_PER_ROW), min(count, TILES_PER_ROW)
    if picture is None or picture.shape != (rows * height, columns * width, 3):
        found = "a damaged file" if picture is None else f"a picture of {picture.shape}"
        raise PatchCoreError(f"expected a mosaic of {count} patches, found {found}")
    grid = picture.reshape(rows, height, columns, width, 3).transpose(0, 2, 1, 3, 4)
    tiles = grid.reshape(-1, height, width, 3)[:count, : side[0], : side[1]]
    if side != size:
        tiles = np.stack([_resize(tile, size) for tile in tiles])
    return np.ascontiguousarray(tiles)


def _stored_side(count: int, size: tuple[int, int]) -> tuple[int, int]:
    """Return the size in which tiles are kept: theirs, or smaller where they are many."""
    share = (MOST_BYTES / (3 * count * size[0] * size[1])) ** 0.5
    if share >= 1:
        return tuple(size)
    return max(1, int(size[0] * share)), max(1, int(size[1] * share))


def _resize(tile: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    shrinks = size[0] < tile.shape[0]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(np.ascontiguousarray(tile), size[::-1], interpolation=method)
