"""From which score on an image, or a pixel, counts as anomalous."""

import math
from dataclasses import dataclass

from patchcore.errors import PatchCoreError
from patchcore.held_out import HeldOutScores

TRAIN_QUANTILE, F1_MAX, GIVEN = "train_quantile", "f1_max", "given"
# Share of new normal images that may be called anomalous, and of their pixels that may be marked.
IMAGE_RATE, PIXEL_RATE = 0.01, 0.001


@dataclass(frozen=True)
class Threshold:
    """A score from which on something is anomalous.

    Attributes:
        value: In units of the anomaly score.
        method: ``train_quantile`` (of held-out training images), ``f1_max`` (of labelled test
            images) or ``given`` (a number by the user).
        rate: The false-positive rate that a ``train_quantile`` is meant to keep; else None.
    """

    value: float
    method: str
    rate: float | None = None


@dataclass(frozen=True)
class Thresholds:
    """Those of images and of pixels, which are never used for one another.

    A smoothed map's values are lower than the patch scores that an image's score is made of.

    Attributes:
        image: For anomaly scores; None where there is nothing to set it by.
        pixel: For values of the anomaly map; None likewise.
    """

    image: Threshold | None
    pixel: Threshold | None


@dataclass(frozen=True)
class BestThresholds:
    """The thresholds with the largest F1 on labelled test images; None where not measured."""

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
        held_out: Scores of normal images; None where there were too few.
        best: What labelled test images said.
        image: ``train_quantile``, ``f1_max`` or a number.
        pixel: Likewise.
        image_rate: In (0, 1], nominal false-positive rate of ``train_quantile``.
        pixel_rate: Likewise.

    Raises:
        PatchCoreError: a method is unknown, a rate or number cannot be, or ``f1_max`` is asked
            for where no labelled test images were measured.
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
    name: str, asked: str | float, quantile: Threshold | None, best: float | None
) -> Threshold | None:
    if asked == TRAIN_QUANTILE:
        return quantile
    if asked == F1_MAX:
        if best is None:
            raise PatchCoreError(
                f"expected labelled test images (with masks for pixels) to set {name} {F1_MAX}, "
                f"found none; take {TRAIN_QUANTILE} or a number"
            )
        return Threshold(best, F1_MAX)
    if isinstance(asked, str) or not math.isfinite(asked):
        raise PatchCoreError(
            f"expected {name} {TRAIN_QUANTILE}, {F1_MAX} or a number, found {asked!r}"
        )
    return Threshold(float(asked), GIVEN)
