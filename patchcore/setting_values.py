"""How a setting is declared, and how its value is converted and checked.

This module imports neither torch nor NumPy, since the command line reads the declarations.
"""

import dataclasses
import math
import numbers
import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass

from patchcore.errors import PatchCoreError, did_you_mean

# A setting's declared type -> the values that are accepted for it.
_ACCEPTED = {int: numbers.Integral, float: numbers.Real, str: str, bool: bool}


@dataclass(frozen=True)
class Bounds:
    """Interval of allowed numbers.

    Attributes:
        low: Smallest allowed value.
        high: Largest allowed value; any finite number by default.
        open_low: Whether ``low`` itself is excluded.
        example: Example of an allowed value, for the error message.
    """

    low: float
    high: float = math.inf
    open_low: bool = False
    example: str = ""

    def __contains__(self, value: float) -> bool:
        above_low = value > self.low if self.open_low else value >= self.low
        return above_low and value <= self.high and math.isfinite(value)

    def __str__(self) -> str:
        example = f", for example {self.example}" if self.example else ""
        if math.isinf(self.high):
            return f"of at least {self.low}{example}"
        return f"in {'(' if self.open_low else '['}{self.low}, {self.high}]{example}"

    def check(self, name: str, values: object) -> None:
        """Check a number or a tuple of numbers.

        Args:
            name: Name of the setting, for the error message.
            values: Number, or tuple of at least one number.

        Raises:
            PatchCoreError: A number is outside the interval.
        """
        values = values if isinstance(values, tuple) else (values,)
        if not values or not all(value in self for value in values):
            shown = [f"{value:g}" if isinstance(value, float) else str(value) for value in values]
            is_infinite = any(isinstance(value, float) and math.isinf(value) for value in values)
            finite = "finite " if is_infinite else ""
            raise PatchCoreError(
                f"expected {finite}{name} {self}, found {' '.join(shown) or 'none'} ({name})"
            )


SHARE = Bounds(0, 1, open_low=True)
SEED = Bounds(0, 2**32 - 1)  # what all generators of random numbers accept


def setting(
    default: object,
    group: str,
    text: str,
    *,
    metavar: str | None = None,
    choices: tuple[str, ...] = (),
    bounds: Bounds | None = None,
    max_values: int = 0,
) -> typing.Any:
    """Declare a setting.

    Args:
        default: Value that applies if none is given.
        group: Heading under which ``--help`` lists it.
        text: Meaning, and reason for the default.
        metavar: Placeholder for the value in ``--help``.
        choices: Allowed values, if there is a fixed set.
        bounds: Allowed numbers.
        max_values: Largest number of values of a tuple; 0 for any number.
    """
    metadata = {"group": group, "text": text, "metavar": metavar, "choices": choices}
    metadata |= {"bounds": bounds, "max_values": max_values}
    return dataclasses.field(default=default, metadata=metadata)


def count_of(name: str, value: object) -> int:
    """Return an argument that counts something.

    Raises:
        PatchCoreError: it is not a whole number of at least 1. The message ends with its name.
    """
    count = _convert_item(name, value, int)
    Bounds(1).check(name, count)
    return count


def convert(name: str, value: object, kind: object) -> object:
    """Return a value in its declared type; a single value or a list becomes a tuple.

    Args:
        name: Name of the setting, for the error message.
        value: The value; True and False are no numbers.
        kind: The declared type: a number, text, bool, a tuple, or a tuple or None.

    Raises:
        PatchCoreError: It is of another type. The message ends with the name.
    """
    is_optional = isinstance(kind, types.UnionType)  # a tuple or None
    if is_optional:
        kind = typing.get_args(kind)[0]
        if value is None:
            return None
    if typing.get_origin(kind) is not tuple:
        return _convert_item(name, value, kind)
    item, length = typing.get_args(kind)
    is_single = isinstance(value, str) or not isinstance(value, Iterable)
    values = tuple(_convert_item(name, v, item) for v in ((value,) if is_single else value))
    if length is Ellipsis:
        return None if is_optional and not values else values
    if len(values) not in (1, 2):
        raise PatchCoreError(
            f"expected {name} as one number, or height and width, found {value!r} ({name})"
        )
    return values[0], values[-1]


def as_text(value: object) -> str:
    """Return a setting as a flag takes it."""
    return (" ".join(map(str, value)) or "none") if isinstance(value, tuple) else str(value)


def check_choices(entry: dataclasses.Field, value: object) -> None:
    """Check a value, or each value of a tuple, of a declared setting with a fixed set of values.

    Raises:
        PatchCoreError: A value is not one of the choices.
    """
    choices = entry.metadata["choices"]
    values = value if isinstance(value, tuple) else (value,)
    unknown = [value for value in values if value not in choices]
    if choices and unknown:
        raise PatchCoreError(
            f"expected {entry.name} {', '.join(choices)}, found {' '.join(map(repr, values))} "
            f"({entry.name}){did_you_mean(str(unknown[0]), choices)}"
        )


def _convert_item(name: str, value: object, kind: type) -> object:
    if isinstance(value, bool) != (kind is bool) or not isinstance(value, _ACCEPTED[kind]):
        raise PatchCoreError(f"expected {name} of type {kind.__name__}, found {value!r} ({name})")
    return kind(value)
