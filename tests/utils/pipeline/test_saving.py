"""What is logged and stored when an evaluation saves its models."""

import logging
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from datasets.base import GOOD, Category, Sample
from patchcore.thresholds import BestThresholds, Threshold
from tests.utils.report.pages import make_row
from utils.pipeline import saving


@pytest.mark.parametrize("images", [2.5, math.nan])
@pytest.mark.parametrize("pixels", [1.5, math.nan])
def test_a_threshold_that_was_not_measured_is_none(images, pixels):
    measurement = SimpleNamespace(
        images=SimpleNamespace(threshold=images), pixels=SimpleNamespace(threshold=pixels)
    )
    known = [None if math.isnan(value) else value for value in (images, pixels)]
    assert saving._best(measurement) == BestThresholds(*known)


def test_scores_from_the_threshold_on_are_verdicts_of_an_anomaly(caplog, monkeypatch):
    monkeypatch.setattr(saving, "describe_threshold", lambda threshold, _: f"{threshold.value:g}")
    types = [GOOD, GOOD, GOOD, "crack", "crack"]
    test = tuple(Sample(Path(f"{n}.png"), "cap", kind) for n, kind in enumerate(types))
    category = Category("cap", (), test, has_masks=False)
    scores = np.array([1.0, 2.0, 3.0, 2.0, 1.5], np.float32)
    measurement = SimpleNamespace(row=make_row("cap"))
    caplog.set_level(logging.INFO)
    for threshold in (Threshold(2.0, "given"), None):
        trained = SimpleNamespace(thresholds=SimpleNamespace(image=threshold))
        saving._log_test_verdicts(trained, measurement, scores, category)
    assert caplog.messages == [
        "cap, coreset 10 %: threshold 2 finds 1 of 2 defective test images, and wrongly 2 of 3 "
        "good ones",
        "cap: too few training images to set a threshold; infer needs --threshold NUMBER",
    ]
