"""Flags for the thresholds of images and pixels."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import ClassVar

from patchcore.errors import did_you_mean
from patchcore.setting_values import SHARE
from patchcore.settings import F1_MAX, IMAGE_RATE, PIXEL_RATE, TRAIN_QUANTILE
from utils.errors import UsageError
from utils.options.flags import Flags, flag, refuse

METHODS = (TRAIN_QUANTILE, F1_MAX)
# Of infer: the threshold that is stored with the model.
AS_TRAINED = "trained"
# The flag of each threshold.
THRESHOLD_FLAGS = {"image": "threshold", "pixel": "threshold_pixel"}
# The flag of the rate of each threshold.
RATE_FLAGS = {"threshold": "nominal_fpr", "threshold_pixel": "nominal_fpr_pixel"}


@dataclass(frozen=True)
class ThresholdOptions(Flags):
    """Thresholds, each as a method or a number."""

    THRESHOLD_METHODS: ClassVar[tuple[str, ...]] = METHODS

    threshold: str = flag(
        TRAIN_QUANTILE,
        "thresholds",
        "image threshold of saved models: train_quantile (computed from training images only, for "
        "the rate --nominal_fpr on normal images), f1_max (largest F1 on labelled test images), or "
        "a number",
        metavar="METHOD|NUMBER",
    )
    threshold_pixel: str = flag(
        TRAIN_QUANTILE,
        "thresholds",
        "pixel threshold of saved models, for anomaly maps; train_quantile as for images, for the "
        "rate --nominal_fpr_pixel",
        metavar="METHOD|NUMBER",
    )
    nominal_fpr: float = flag(
        IMAGE_RATE,
        "thresholds",
        "nominal false-positive rate of normal images for train_quantile, in (0, 1]; at least 1 / "
        "(n + 1), where n is the number of scored training images (all of them up to 100 images, "
        "otherwise 100 to 198)",
        metavar="R",
        bounds=SHARE,
    )
    nominal_fpr_pixel: float = flag(
        PIXEL_RATE,
        "thresholds",
        "nominal false-positive rate of the pixels of normal images for train_quantile, in (0, 1]",
        metavar="R",
        bounds=SHARE,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.methods()

    def check_given(self, given: Collection[str]) -> None:
        """Check that no rate is given for a threshold that does not depend on one."""
        super().check_given(given)
        for name, rate in RATE_FLAGS.items():
            if rate in given and getattr(self, name) not in (AS_TRAINED, TRAIN_QUANTILE):
                refuse([rate], f"with --{name} {getattr(self, name)}: it sets {TRAIN_QUANTILE}")

    def methods(self) -> dict[str, str | float]:
        """Return the method or the number of the ``image`` and the ``pixel`` threshold.

        Raises:
            UsageError: A flag is neither.
        """
        return {
            kind: read_threshold(getattr(self, name), name, self.THRESHOLD_METHODS)
            for kind, name in THRESHOLD_FLAGS.items()
        }


def read_threshold(text: str, name: str, methods: Sequence[str] = METHODS) -> str | float:
    """Return the method or the number of a threshold.

    Args:
        text: Value of the flag.
        name: Name of the flag.
        methods: Allowed methods.

    Raises:
        UsageError: It is neither.
    """
    if text in methods:
        return text
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UsageError(
            f"expected --{name} {', '.join(methods)} or a number, found {text!r}"
            f"{did_you_mean(text, methods)}"
        )
    return number
