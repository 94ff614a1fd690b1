"""Which thresholds `infer` judges by."""

from types import SimpleNamespace

import numpy as np
import pytest

from patchcore.held_out import PIXEL_RATES, HeldOutScores
from patchcore.thresholds import BestThresholds, choose_thresholds
from utils.options.flags import parse_flags
from utils.options.infer import InferOptions
from utils.pipeline.inference import set_thresholds

HELD_OUT = HeldOutScores(
    np.arange(200, dtype=np.float32), np.float32(10 * (1 - PIXEL_RATES)), np.arange(200)
)
TRAINED = choose_thresholds(HELD_OUT, BestThresholds(), image_rate=0.5, pixel_rate=0.5)


def thresholds(text):
    options = parse_flags(text.split(), InferOptions(), command="infer", description="Try.")
    trained = SimpleNamespace(held_out=HELD_OUT, best=BestThresholds(), thresholds=TRAINED)
    return set_thresholds(SimpleNamespace(trained=trained), options)


def test_without_flags_they_are_those_of_the_model():
    assert thresholds("") == TRAINED


@pytest.mark.parametrize("rate", [0.001, 0.01, 0.5, 0.9])
@pytest.mark.parametrize("method", ["", "train_quantile"])
def test_a_rate_that_is_given_counts_whatever_the_default_is(rate, method):
    expected = choose_thresholds(HELD_OUT, BestThresholds(), image_rate=rate, pixel_rate=rate)
    flags = f"--threshold {method}" if method else ""
    found = thresholds(f"{flags} --nominal_fpr {rate}")
    assert (found.image, found.pixel) == (expected.image, TRAINED.pixel)
    flags = f"--threshold_pixel {method}" if method else ""
    found = thresholds(f"{flags} --nominal_fpr_pixel {rate}")
    assert (found.image, found.pixel) == (TRAINED.image, expected.pixel)


def test_the_method_alone_takes_the_usual_rates():
    usual = choose_thresholds(HELD_OUT, BestThresholds())
    assert thresholds("--threshold train_quantile --threshold_pixel train_quantile") == usual
