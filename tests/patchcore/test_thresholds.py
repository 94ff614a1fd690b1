"""Which threshold is taken, for images and for pixels apart."""

import numpy as np
import pytest

from patchcore import PatchCoreError
from patchcore.held_out import PIXEL_RATES, HeldOutScores
from patchcore.thresholds import BestThresholds, Threshold, Thresholds, choose_thresholds

HELD_OUT = HeldOutScores(np.float32([1, 2, 3, 4]), np.float32(10 * (1 - PIXEL_RATES)), np.arange(4))
BEST = BestThresholds(image=7.0, pixel=3.0)


def test_training_images_set_both_by_default():
    chosen = choose_thresholds(HELD_OUT, BEST)
    assert chosen.image.method == chosen.pixel.method == "train_quantile"
    assert chosen.image.value == pytest.approx(4, abs=1e-5)
    assert chosen.image.rate == 0.2  # four images keep no smaller one
    assert chosen.pixel == Threshold(pytest.approx(9.99, abs=1e-3), "train_quantile", 0.001)


def test_rates_move_their_own_threshold_only():
    chosen = choose_thresholds(HELD_OUT, BEST, image_rate=0.4, pixel_rate=0.5)
    assert (chosen.image.value, chosen.image.rate) == (pytest.approx(3, abs=1e-5), 0.4)
    assert (chosen.pixel.value, chosen.pixel.rate) == (pytest.approx(5, abs=1e-3), 0.5)


def test_the_largest_rate_is_1():
    """The smallest score of four images is reached by four of five new ones."""
    chosen = choose_thresholds(HELD_OUT, BEST, image_rate=1, pixel_rate=1)
    assert (chosen.image.value, chosen.image.rate) == (pytest.approx(1, abs=1e-5), 0.8)
    assert (chosen.pixel.value, chosen.pixel.rate) == (pytest.approx(0, abs=1e-3), 1)


def test_labelled_images_or_numbers_set_them_where_asked():
    chosen = choose_thresholds(HELD_OUT, BEST, image="f1_max", pixel=2)
    assert chosen == Thresholds(Threshold(7.0, "f1_max"), Threshold(2.0, "given"))
    chosen = choose_thresholds(None, BEST, image=0.5, pixel="f1_max")
    assert chosen == Thresholds(Threshold(0.5, "given"), Threshold(3.0, "f1_max"))


def test_without_anything_to_set_them_by_there_are_none():
    assert choose_thresholds(None, BestThresholds()) == Thresholds(None, None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image": "f1_max"}, "labelled test images .* to set threshold f1_max"),
        ({"pixel": "f1_max"}, "with masks for pixels.* to set threshold_pixel f1_max"),
        ({"image": "best"}, "expected threshold train_quantile, f1_max or a number, found 'best'"),
        ({"pixel": float("nan")}, "expected threshold_pixel .* found nan"),
        ({"image_rate": 0}, r"expected nominal_fpr in \(0, 1\], found 0"),
        ({"pixel_rate": 1.5}, r"expected nominal_fpr_pixel in \(0, 1\], found 1.5"),
        ({"image_rate": 1.001}, r"expected nominal_fpr in \(0, 1\], found 1.001"),
    ],
)
def test_refuses_what_cannot_be(arguments, message):
    with pytest.raises(PatchCoreError, match=message):
        choose_thresholds(HELD_OUT, BestThresholds(), **arguments)


@pytest.mark.parametrize(
    ("threshold", "score", "ratio"),
    [(2.0, 3.0, 1.5), (0.5, 0.25, 0.5), (2.0, 0.0, 0.0), (0.0, 1.0, None), (-1, 1, None)],
)
def test_a_score_is_compared_with_a_threshold_above_0_only(threshold, score, ratio):
    assert Threshold(threshold, "given").ratio(score) == ratio
