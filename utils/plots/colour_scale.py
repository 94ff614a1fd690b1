"""The scale on which anomaly scores become colours, and the bar that explains it."""

import math
from dataclasses import dataclass
from functools import lru_cache

import matplotlib
import numpy as np

# Lightness rises evenly from black to pale yellow, so the order of two values stays visible in
# grey print and to colour-blind readers.
COLOUR_MAP = "inferno"


@dataclass(frozen=True, slots=True)
class ColourScale:
    """Colours for scores from `low` to `high`; scores outside take the colour of the nearer end.

    Raises:
        ValueError: an end is not finite, or `low` is above `high`.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high)):
            raise ValueError(f"score range must be finite, got ({self.low}, {self.high})")
        if self.low > self.high:
            raise ValueError(f"score range must rise, got ({self.low}, {self.high})")

    @property
    def is_flat(self) -> bool:
        """Whether float32 maps cannot tell the two ends apart."""
        largest = max(abs(self.low), abs(self.high))
        return self.high - self.low <= max(1e-6 * largest, float(np.finfo(np.float32).tiny))

    def fraction(self, scores: np.ndarray) -> np.ndarray:
        """Return where `scores` (any shape) lie between the ends, as float32 in [0, 1].

        On a flat scale nothing lies between: scores up to the ends give 0, higher ones give 1.
        """
        if self.is_flat:
            return (np.asarray(scores) > self.high).astype(np.float32)
        # Clipping comes first so that far-off scores cannot overflow in the division.
        inside = np.clip(np.asarray(scores, np.float32), self.low, self.high)
        # Rounding to float32 may leave a score a hair outside.
        return np.clip((inside - self.low) / (self.high - self.low), 0, 1).astype(np.float32)

    def colours(self, fractions: np.ndarray) -> np.ndarray:
        """Return the RGB colours, (..., 3) uint8, of `fractions` in [0, 1]."""
        return colour_table().take(np.rint(fractions * 255).astype(np.intp), axis=0)

    def ticks(self, intervals: int = 5) -> list[tuple[float, str]]:
        """Return round scores, at most `intervals` steps from low to high, each with its text."""
        if self.is_flat:
            return [(self.low, f"{self.low:.4g}")]
        step, decimals = _round_step((self.high - self.low) / intervals)
        # The allowance keeps an end that is itself round, whatever the division made of it.
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        scores = [number * step for number in range(first, last + 1)]
        if decimals > 4 or max(abs(self.low), abs(self.high)) >= 1e5:
            return [(score, f"{score:.3g}") for score in scores]
        return [(score, f"{score:.{decimals}f}") for score in scores]


@lru_cache(maxsize=1)
def colour_table() -> np.ndarray:
    """Return the 256 RGB colours from low to high: (256, 3) uint8, read-only."""
    table = matplotlib.colormaps[COLOUR_MAP](np.arange(256), bytes=True)[:, :3].copy()
    table.flags.writeable = False
    return table


def _round_step(at_least: float) -> tuple[float, int]:
    """Return the least of 1, 2, 5 times a power of ten that is `at_least`, and its decimals."""
    exponent = math.floor(math.log10(at_least))
    for digit in (1, 2, 5):
        step = digit * 10.0**exponent
        if step >= at_least:
            return step, max(0, -exponent)
    return 10.0 ** (exponent + 1), max(0, -exponent - 1)
