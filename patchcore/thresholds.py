"""Thresholds of anomaly scores and of anomaly maps."""

import math
from dataclasses import dataclass

from patchcore.errors import PatchCoreError
from patchcore.held_out import HeldOutScores
from patchcore.settings import F1_MAX, GIVEN, IMAGE_RATE, PIXEL_RATE, TRAIN_QUANTILE


@dataclass(frozen=True)
class Threshold:
    """A lower bound of anomalous scores.

    Attributes:
        value: In units of the anomaly score.
        method: ``train_quantile`` (of held-out training images), ``f1_max`` (of labelled test
            images) or ``given`` (a number by the user).
        rate: Nominal false-positive rate of ``train_quantile``; None for other methods.
    """

    value: float
    method: str
    rate: float | None = None

    def ratio(self, score: float) -> float | None:
        """Return score / threshold, from 1 for an anomaly; None if the threshold is not above 0."""
        return score / self.value if self.value > 0 else None


@dataclass(frozen=True)
class Thresholds:
    """The thresholds of images and of pixels.

    They are not interchangeable: the values of a smoothed map are lower than the patch scores from
    which the score of an image is computed.

    Attributes:
        image: Threshold of anomaly scores; None if it is unknown.
        pixel: Threshold of the values of anomaly maps; None if it is unknown.
    """

    image: Threshold | None
    pixel: Threshold | None


@dataclass(frozen=True)
class BestThresholds:
    """The thresholds with the largest F1 on labelled test images; None if not measured."""

    image: float | None = None
    pixel: float | None = None


def choose_thresholds(
    held_out: HeldOutScores | None,
    best: BestThresholds,
    *,
    image: str | float = TRAIN_QUANTILE,
    pixel: str | float = TRAIN_QUANTILE,
    image_rate: float = IMAGE_RATE,
    pixel_rate: float = PIXEL_RATE,
) -> Thresholds:
    """Set the thresholds.

    Args:
        held_out: Scores of normal images; None if there are too few.
        best: The thresholds with the largest F1 on labelled test images.
        image: ``train_quantile``, ``f1_max`` or a number, for images.
        pixel: ``train_quantile``, ``f1_max`` or a number, for pixels.
        image_rate: In (0, 1], nominal false-positive rate of ``train_quantile`` for images.
        pixel_rate: In (0, 1], the same for pixels.

    Raises:
        PatchCoreError: a method is unknown, a rate or number is out of range, or ``f1_max`` is
            requested without labelled test images.
    """
    for name, rate in (("nominal_fpr", image_rate), ("nominal_fpr_pixel", pixel_rate)):
        if not 0 < rate <= 1:
            raise PatchCoreError(f"expected {name} in (0, 1], found {rate:g}")
    quantiles: dict[str, Threshold | None] = {"image": None, "pixel": None}
    if held_out is not None:
        value, kept = held_out.image_threshold(image_rate)
        quantiles["image"] = Threshold(value, TRAIN_QUANTILE, kept)
        pixel_value = held_out.pixel_threshold(pixel_rate)
        quantiles["pixel"] = Threshold(pixel_value, TRAIN_QUANTILE, pixel_rate)
    return Thresholds(
        _choose("threshold", image, quantiles["image"], best.image),
        _choose("threshold_pixel", pixel, quantiles["pixel"], best.pixel),
    )


def _choose(
    name: str, method: str | float, quantile: Threshold | None, best: float | None
) -> Threshold | None:
    if method == TRAIN_QUANTILE:
        return quantile
    if method == F1_MAX:
        if best is None:
            raise PatchCoreError(
                f"expected labelled test images (with masks for pixels) to set {name} {F1_MAX}, "
                f"found none; choose {TRAIN_QUANTILE} or a number"
            )
        return Threshold(best, F1_MAX)
    if isinstance(method, str) or not math.isfinite(method):
        raise PatchCoreError(
            f"expected {name} {TRAIN_QUANTILE}, {F1_MAX} or a number, found {method!r}"
        )
    return Threshold(float(method), GIVEN)
