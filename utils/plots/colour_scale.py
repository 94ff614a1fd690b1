"""The colour scale of anomaly scores."""

import math
from dataclasses import dataclass
from functools import lru_cache

import matplotlib
import numpy as np

# Its lightness rises evenly from black to pale yellow, so that the order of two values is visible
# in grey print and to colour-blind readers.
COLOUR_MAP = "inferno"


@dataclass(frozen=True, slots=True)
class ColourScale:
    """Colours for scores from `low` to `high`; scores outside get the colour of the nearer end.

    Attributes:
        low: The score of the darkest colour.
        high: The score of the lightest colour.

    Raises:
        ValueError: an end is not finite, or `low` is above `high`.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high)):
            raise ValueError(f"expected a finite score range, found ({self.low}, {self.high})")
        if self.low > self.high:
            raise ValueError(f"expected a rising score range, found ({self.low}, {self.high})")

    @property
    def is_flat(self) -> bool:
        """Whether the two ends are equal within the precision of float32."""
        largest = max(abs(self.low), abs(self.high))
        return self.high - self.low <= max(1e-6 * largest, float(np.finfo(np.float32).tiny))

    def fraction(self, scores: np.ndarray) -> np.ndarray:
        """Return the positions of `scores` (any shape) between the ends, float32 in [0, 1].

        On a flat scale, scores up to the ends give 0 and higher scores give 1.
        """
        if self.is_flat:
            return (np.asarray(scores) > self.high).astype(np.float32)
        # Clipped first, so that very large scores cannot overflow in the division.
        inside = np.clip(np.asarray(scores, np.float32), self.low, self.high)
        # Clipped again: rounding to float32 may leave a value slightly outside.
        return np.clip((inside - self.low) / (self.high - self.low), 0, 1).astype(np.float32)

    def colours(self, fractions: np.ndarray) -> np.ndarray:
        """Return the RGB colours, (..., 3) uint8, of `fractions` in [0, 1]."""
        return colour_table().take(np.rint(fractions * 255).astype(np.intp), axis=0)

    def ticks(self, intervals: int = 5) -> list[tuple[float, str]]:
        """Return round scores from low to high, at most `intervals` steps, each with its text."""
        if self.is_flat:
            return [(self.low, f"{self.low:.4g}")]
        step, decimals = _round_step((self.high - self.low) / intervals)
        # The tolerance keeps an end that is itself round, despite rounding in the division.
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        scores = [number * step for number in range(first, last + 1)]
        largest = max(abs(self.low), abs(self.high))
        if decimals > 4 or largest >= 1e5:
            # As many as neighbours need to differ.
            digits = max(3, math.floor(math.log10(largest)) - math.floor(math.log10(step)) + 1)
            return [(score, f"{score:.{digits}g}") for score in scores]
        return [(score, f"{score:.{decimals}f}") for score in scores]


@lru_cache(maxsize=1)
def colour_table() -> np.ndarray:
    """Return the RGB colours from low to high, (256, 3) uint8, read-only."""
    table = matplotlib.colormaps[COLOUR_MAP](np.arange(256), bytes=True)[:, :3].copy()
    table.flags.writeable = False
    return table


def _round_step(at_least: float) -> tuple[float, int]:
    """Return the smallest of 1, 2, 5 times a power of ten >= `at_least`, and its decimals."""
    exponent = math.floor(math.log10(at_least))
    for digit in (1, 2, 5):
        step = digit * 10.0**exponent
        if step >= at_least:
            return step, max(0, -exponent)
    return 10.0 ** (exponent + 1), max(0, -exponent - 1)
