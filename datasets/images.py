"""Image and mask files: decoding, and reading ahead in threads."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np

from datasets.base import DatasetError, Sample

Item = TypeVar("Item")
Result = TypeVar("Result")


def read_image(path: Path) -> np.ndarray:
    """Decode an image file to (H, W, 3) uint8 RGB.

    Grey values are repeated in three channels, palettes are resolved, only the upper 8 of 16 bits
    are kept, transparency is dropped, and the EXIF orientation is applied.

    Raises:
        DatasetError: The file cannot be read, is not an image, or is truncated.
    """
    return _decode(path, cv2.IMREAD_COLOR_RGB, "an image")


def read_mask(path: Path) -> np.ndarray:
    """Decode a mask file to (H, W) bool: pixels above 0 in any colour channel are defective.

    Raises:
        DatasetError: The file cannot be read, is not an image, or is truncated.
    """
    # Unchanged values: conversion to grey or to 8 bits would turn small ones into 0.
    mask = _decode(path, cv2.IMREAD_UNCHANGED, "a mask")
    if mask.ndim == 2:
        return mask > 0
    colours = mask[:, :, : 1 if mask.shape[2] == 2 else 3]  # without transparency
    return (colours > 0).any(axis=2)


def read_sample(sample: Sample) -> tuple[np.ndarray, np.ndarray | None]:
    """Read a sample's image and its mask.

    Returns:
        The image (H, W, 3) uint8 RGB, and its mask (H, W) bool: all False for a good image, None
        for a defective image without ground truth.

    Raises:
        DatasetError: A file cannot be read, or image and mask differ in size.
    """
    image = read_image(sample.path)
    if not sample.is_defective:
        return image, np.zeros(image.shape[:2], dtype=bool)
    if sample.mask is None:
        return image, None
    joined = np.zeros(image.shape[:2], dtype=bool)
    for path in sample.mask.paths:
        mask = read_mask(path)
        if mask.shape != joined.shape:
            raise DatasetError(
                f"expected a mask of the size of its image, {_size(image)}, found {_size(mask)}: "
                f"{path}, mask of {sample.path}"
            )
        joined |= mask
    return image, joined


def map_ahead(
    function: Callable[[Item], Result], items: Iterable[Item], *, num_workers: int, ahead: int
) -> Iterator[Result]:
    """Yield ``function(item)`` in the order of the items, computed ahead by threads.

    Threads are sufficient because OpenCV releases the interpreter lock while it decodes.

    Args:
        function: Called once per item; an exception is raised in place of the result.
        items: Consumed lazily.
        num_workers: Number of threads; 0 to compute in the calling thread.
        ahead: Largest number of results that are computed or kept ahead, at least 1. It limits
            the memory.
    """
    if num_workers == 0:
        yield from map(function, items)
        return
    remaining = iter(items)
    with ThreadPoolExecutor(num_workers, thread_name_prefix="read") as pool:
        pending = deque(pool.submit(function, item) for item in islice(remaining, max(ahead, 1)))
        try:
            while pending:
                result = pending.popleft().result()
                pending.extend(pool.submit(function, item) for item in islice(remaining, 1))
                yield result
        finally:
            for future in pending:
                future.cancel()


def in_batches(items: Iterable[Item], batch_size: int) -> Iterator[list[Item]]:
    """Yield lists of ``batch_size`` items; the last list may be shorter."""
    remaining = iter(items)
    while batch := list(islice(remaining, batch_size)):
        yield batch


def _decode(path: Path, flags: int, meaning: str) -> np.ndarray:
    try:
        data = np.fromfile(path, dtype=np.uint8)  # on Windows imread cannot open all paths
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        image = cv2.imdecode(data, flags) if data.size else None
    except cv2.error:
        image = None
    if image is None:
        raise DatasetError(f"expected {meaning}, found a damaged or unknown file: {path}")
    return image


def _size(array: np.ndarray) -> str:
    height, width = array.shape[:2]
    return f"{width}x{height}"
