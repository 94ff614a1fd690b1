"""Which thresholds `infer` judges by."""

from types import SimpleNamespace

import numpy as np
import pytest

from patchcore.held_out import PIXEL_RATES, HeldOutScores
from patchcore.thresholds import BestThresholds, choose_thresholds
from utils.errors import UsageError
from utils.options.flags import parse_flags
from utils.options.infer import InferOptions
from utils.pipeline.inference import set_thresholds

HELD_OUT = HeldOutScores(
    np.arange(200, dtype=np.float32), np.float32(10 * (1 - PIXEL_RATES)), np.arange(200)
)
TRAINED = choose_thresholds(HELD_OUT, BestThresholds(), image_rate=0.5, pixel_rate=0.5)


def thresholds(text, held_out=HELD_OUT, trained=TRAINED):
    options = parse_flags(text.split(), InferOptions(), command="infer", description="Try.")
    model = SimpleNamespace(held_out=held_out, best=BestThresholds(), thresholds=trained)
    return set_thresholds(SimpleNamespace(trained=model), options)


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


@pytest.mark.parametrize(
    ("text", "kind", "name"),
    [
        ("", "image", "threshold"),
        ("--threshold 3", "pixel", "threshold_pixel"),
        ("--threshold_pixel 3", "image", "threshold"),
    ],
)
def test_a_model_of_too_few_images_needs_thresholds(text, kind, name):
    few = choose_thresholds(None, BestThresholds())
    message = f"expected a threshold for {kind}s, found none in the model.*: give --{name} NUMBER"
    with pytest.raises(UsageError, match=message):
        thresholds(text, None, few)
    found = thresholds("--threshold 3 --threshold_pixel 2", None, few)
    assert (found.image.value, found.pixel.value) == (3, 2)
