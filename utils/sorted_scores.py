"""Anomaly scores in descending order, each with its tag, in blocks that need little memory."""

from collections.abc import Iterator

import numpy as np
import torch

CPU = torch.device("cpu")
# Items per block, so that a block and its temporary arrays stay in the processor's cache.
BLOCK = 1 << 17


class SortedScores:
    """Scores in descending order, each with its tag.

    A float32 score and its tag are packed into one integer: sorting integers is many times faster
    than sorting indices.

    Args:
        scores: (n,) float.
        tags: (n,) uint32.
        device: Device that sorts float32 scores.

    Raises:
        ValueError: a score is NaN.
    """

    def __init__(self, scores: np.ndarray, tags: np.ndarray, device: torch.device = CPU):
        if any(np.isnan(scores[start : start + BLOCK]).any() for start in _starts(len(scores))):
            raise ValueError("expected scores without NaN")
        self._keys = self._scores = self._tags = None
        if scores.dtype == np.float32:
            self._keys = np.empty(len(scores), dtype=np.uint64)
            for start in _starts(len(scores)):
                block = slice(start, start + BLOCK)
                self._keys[block] = _pack(scores[block], tags[block])
            self._keys = _sorted(self._keys, device)
        else:
            order = np.argsort(-scores.astype(np.float64), kind="stable")
            self._scores, self._tags = scores[order], tags[order]

    def __len__(self) -> int:
        return len(self._scores if self._keys is None else self._keys)

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Yield for each block scores (m,), tags (m,), and (m,) bool, the last of equal scores.

        Items with equal scores share one threshold, which is reached at the last one.
        """
        for start in _starts(len(self)):
            stop = min(start + BLOCK, len(self))
            scores, tags = self._read(start, min(stop + 1, len(self)))
            ends = np.ones(stop - start, dtype=bool)
            ends[: len(scores) - 1] = scores[1:] != scores[:-1]
            yield scores[: stop - start], tags[: stop - start], ends

    def _read(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        if self._keys is None:
            return self._scores[start:stop], self._tags[start:stop]
        return _unpack(self._keys[start:stop])


def _sorted(keys: np.ndarray, device: torch.device) -> np.ndarray:
    """Return (n,) uint64 in ascending order; may sort in place."""
    if device.type != "cpu":
        return _sorted_by_torch(keys, device)
    keys.sort()
    return keys


def _sorted_by_torch(keys: np.ndarray, device: torch.device) -> np.ndarray:
    # torch cannot sort uint64. With the highest bit flipped, int64 has the same order.
    flip = np.uint64(1 << 63)
    keys ^= flip
    try:
        ordered = torch.from_numpy(keys.view(np.int64)).to(device).sort().values.cpu().numpy()
    except torch.OutOfMemoryError:  # the CPU needs a second longer
        keys.view(np.int64).sort()
        ordered = keys
    ordered = ordered.view(np.uint64)
    ordered ^= flip
    return ordered


def _starts(count: int) -> range:
    return range(0, count, BLOCK)


def _pack(scores: np.ndarray, tags: np.ndarray) -> np.ndarray:
    """Return (n,) uint64 keys in ascending order of descending scores; the low 32 bits are tags."""
    # The bits of float32 numbers are ordered like integers once those of negative numbers are
    # inverted and the sign bit of the others is set. All are inverted once more, to descend.
    bits = scores.view(np.uint32)  # -0.0 sorts right after 0.0: equal scores, one threshold
    descending = np.where(bits >> 31, bits, ~(bits | np.uint32(1 << 31)))
    return (descending.astype(np.uint64) << np.uint64(32)) | tags


def _unpack(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    descending = (keys >> np.uint64(32)).astype(np.uint32)
    bits = np.where(descending >> 31, descending, ~(descending | np.uint32(1 << 31)))
    return bits.view(np.float32), keys.astype(np.uint32)
