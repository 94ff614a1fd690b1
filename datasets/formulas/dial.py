"""The numbers that make one class of textures what it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

Item = TypeVar("Item")

SIBLINGS = 4
"""Classes that share their structure and differ a little in every number: these are hard to tell
apart, and make a network look closely."""

NUMBERS = 64
NUDGE = 0.09


class Dial:
    """Numbers drawn once for a class, read one after another by what makes its textures.

    Classes ``4 n`` to ``4 n + 3`` are siblings: every choice is the same, every amount is near.

    Args:
        seed: Of all classes.
        index: Of this class.
    """

    def __init__(self, seed: int, index: int):
        group, member = divmod(index, SIBLINGS)
        self._shared = np.random.default_rng([seed, 1, group]).random(NUMBERS)
        nudge = np.random.default_rng([seed, 2, index]).uniform(-NUDGE, NUDGE, NUMBERS)
        # Reflected at 0 and 1, so that amounts stay in their range.
        near = np.abs(self._shared + (nudge if member else 0))
        self._own = np.where(near > 1, 2 - near, near)
        self._next = 0

    def between(self, low: float, high: float) -> float:
        """Return an amount, evenly distributed."""
        return float(low + (high - low) * self._own[self._step()])

    def scale(self, low: float, high: float) -> float:
        """Return an amount whose logarithm is evenly distributed: a length or a ratio."""
        return math.exp(self.between(math.log(low), math.log(high)))

    def chance(self, share: float) -> bool:
        """Return True in this share of the groups; siblings agree."""
        return bool(self._shared[self._step()] < share)

    def choose(self, options: Sequence[Item]) -> Item:
        """Return one of several; siblings agree."""
        return options[int(self._shared[self._step()] * len(options))]

    def whole(self, low: int, high: int) -> int:
        """Return a whole number from low to high, both included; siblings agree."""
        return low + int(self._shared[self._step()] * (high - low + 1))

    def generator(self) -> np.random.Generator:
        """Return random numbers, where there are too many to read one by one; siblings agree."""
        return np.random.default_rng(int(self._shared[self._step()] * 2**32))

    def _step(self) -> int:
        self._next += 1
        return (self._next - 1) % NUMBERS
