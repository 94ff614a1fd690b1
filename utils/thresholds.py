"""What ``--threshold`` and ``--threshold_pixel`` may say."""

import math
from collections.abc import Sequence

from utils.errors import UsageError

TRAIN_QUANTILE, F1_MAX = "train_quantile", "f1_max"
METHODS = (TRAIN_QUANTILE, F1_MAX)


def read_threshold(text: str, name: str, methods: Sequence[str] = METHODS) -> str | float:
    """Return a threshold's method, or its number.

    Args:
        text: What the user gave.
        name: The flag's.
        methods: The words that it may be.

    Raises:
        UsageError: it is neither.
    """
    if text in methods:
        return text
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UsageError(f"expected --{name} {', '.join(methods)} or a number, found {text!r}")
    return number
