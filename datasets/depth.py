"""Values above 8 bits: the range that is mapped to 0..255.

Cameras store 10, 12 or 14 bits in files of 16. The upper 8 bits of such values would be almost
black, so the range is a property of the data, and is the same for all images of a model.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from datasets.base import DatasetError

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
        return f"{int(self.high).bit_length()} bits"

    def as_json(self) -> dict[str, object]:
        """Return the range as a record."""
        return asdict(self)

    def clips(self, values: np.ndarray) -> bool:
        """Return whether values lie beyond the range."""
        return bool(values.min() < self.low or values.max() > self.high)

    def to_8_bits(self, values: np.ndarray) -> np.ndarray:
        """Map values to 0..255.

        Integers of n bits keep their upper 8 bits.

        Args:
            values: Any shape, without NaN: of 16 bits if the range is one of integers.

        Returns:
            uint8 of the same shape.
        """
        if not self.is_float:
            bits = int(self.high).bit_length()
            return np.minimum(values >> (bits - 8), 255).astype(np.uint8)
        scaled = (values.astype(np.float64) - self.low) * (256 / (self.high - self.low))
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
        # An example of each kind: integers of 16 bits, and numbers without a depth.
        self._examples: dict[bool, Path] = {}

    def add(self, path: Path, values: np.ndarray) -> None:
        """Add the values of an image, of any shape and number type; 8-bit images are ignored."""
        if values.dtype == np.uint8:
            return
        self._examples.setdefault(has_no_depth(values), path)
        self._low = min(self._low, float(values.min()))
        self._high = max(self._high, float(values.max()))

    def range(self) -> ValueRange | None:
        """Return the range of all images; None if all have 8 bits.

        Raises:
            DatasetError: Integers of 16 bits are mixed with floats or 32-bit integers.
        """
        if not self._examples:
            return None
        if len(self._examples) > 1:
            raise DatasetError(
                "expected training images of one kind, found 16-bit integers and floats (or 32-bit "
                f"integers): {self._examples[False]} and {self._examples[True]}"
            )
        if True in self._examples:
            # A constant image has no range: it becomes black.
            high = self._high if self._high > self._low else self._low + 1
            # From 2^53 on, the next number is farther away than 1.
            high = max(high, float(np.nextafter(self._low, np.inf)))
            return ValueRange(self._low, high, is_float=True)
        return ValueRange.of_bits(next(bits for bits in BIT_DEPTHS if self._high < 2**bits))


def has_no_depth(values: np.ndarray) -> bool:
    """Return whether the type of values says nothing about their largest one."""
    return values.dtype not in (np.uint8, np.uint16)
