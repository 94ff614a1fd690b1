"""Values above 8 bits: the range that is mapped to 0..255.

Cameras store 10, 12 or 14 bits in files of 16. The upper 8 bits of such values would be almost
black, so the range is a property of the data, and is the same for all images of a model.
"""

from dataclasses import dataclass

import numpy as np

# Depths of cameras and files, smallest first.
BIT_DEPTHS = (8, 10, 12, 14, 16)


@dataclass(frozen=True)
class ValueRange:
    """Range of values above 8 bits that is mapped to 0..255; values beyond it are clipped.

    Images of 8 bits are not affected.

    Attributes:
        low: Value that becomes 0.
        high: Largest value that becomes 255.
        is_float: Whether the values are floats or 32-bit integers, with no depth of their own.
    """

    low: float
    high: float
    is_float: bool

    @classmethod
    def of_bits(cls, bits: int) -> "ValueRange":
        """Return the range of unsigned integers of a number of bits."""
        return cls(0, 2**bits - 1, is_float=False)

    @classmethod
    def from_json(cls, record: dict | None) -> "ValueRange | None":
        """Return the range of a record of `as_json`; None for None.

        Raises:
            KeyError, TypeError, ValueError: The record is not one of a range.
        """
        if record is None:
            return None
        low, high = float(record["low"]), float(record["high"])
        if not low < high or not np.isfinite([low, high]).all():
            raise ValueError(f"expected a range of values, found {low:g} to {high:g}")
        return cls(low, high, bool(record["is_float"]))

    def __str__(self) -> str:
        if self.is_float:
            return f"{self.low:.4g} to {self.high:.4g}"
        return f"{(int(self.high) + 1).bit_length() - 1} bits"

    def clips(self, values: np.ndarray) -> bool:
        """Return whether values lie beyond the range."""
        return bool(values.min() < self.low or values.max() > self.high)

    def to_8_bits(self, values: np.ndarray) -> np.ndarray:
        """Map values to 0..255.

        Integers of n bits keep their upper 8 bits.

        Args:
            values: Any shape and number type, without NaN.

        Returns:
            uint8 of the same shape.
        """
        if not self.is_float and values.dtype == np.uint16:
            bits = (int(self.high) + 1).bit_length() - 1
            return np.minimum(values >> (bits - 8), 255).astype(np.uint8)
        span = self.high - self.low + (0 if self.is_float else 1)
        scaled = (values.astype(np.float64) - self.low) * (256 / span)
        return np.clip(scaled, 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Decoding:
    """How image files become 8-bit RGB.

    Attributes:
        max_megapixels: Largest image that is decoded, in millions of pixels.
        value_range: Range of values above 8 bits; None for the whole range of 16 bits.
    """

    max_megapixels: float = 250.0
    value_range: ValueRange | None = None


class RangeFinder:
    """Finds the range of values above 8 bits over images."""

    def __init__(self) -> None:
        self._low, self._high = np.inf, -np.inf
        self._kinds: set[bool] = set()

    def add(self, values: np.ndarray) -> None:
        """Add the values of an image of any shape and number type; 8-bit images are ignored."""
        if values.dtype == np.uint8:
            return
        self._kinds.add(has_no_depth(values))
        self._low = min(self._low, float(values.min()))
        self._high = max(self._high, float(values.max()))

    def range(self) -> ValueRange | None:
        """Return the range of all images; None if all had 8 bits.

        Raises:
            ValueError: Integers of 16 bits and numbers without a depth are mixed.
        """
        if len(self._kinds) > 1:
            raise ValueError("values of 16 bits and floats (or 32-bit integers)")
        if not self._kinds:
            return None
        if self._kinds == {True}:
            # A constant image has no range; any of them shows it as black.
            return ValueRange(self._low, max(self._high, np.nextafter(self._low, np.inf)), True)
        return ValueRange.of_bits(next(bits for bits in BIT_DEPTHS if self._high < 2**bits))


def has_no_depth(values: np.ndarray) -> bool:
    """Return whether the type of values says nothing about their largest one."""
    return values.dtype not in (np.uint8, np.uint16)
