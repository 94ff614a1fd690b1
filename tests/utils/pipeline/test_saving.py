"""What is said of saved models on test images, and which thresholds they keep of these."""

import logging
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from patchcore.thresholds import BestThresholds, Threshold, Thresholds
from tests.utils.report.pages import make_row
from utils.metrics import Metrics
from utils.pipeline.category_result import Measurement
from utils.pipeline.saving import _best, _log_test_verdicts

MEASURED = Measurement(make_row(), Metrics(threshold=2.5), Metrics(threshold=1.5))


@pytest.mark.parametrize(
    ("measurement", "expected"),
    [
        (MEASURED, BestThresholds(2.5, 1.5)),
        (replace(MEASURED, pixels=Metrics()), BestThresholds(2.5, None)),  # without masks
        (replace(MEASURED, images=Metrics()), BestThresholds(None, 1.5)),
    ],
)
def test_a_threshold_that_was_not_measured_is_none(measurement, expected):
    assert _best(measurement) == expected


def test_a_score_at_the_threshold_counts_as_found(caplog):
    caplog.set_level(logging.INFO)
    trained = SimpleNamespace(thresholds=Thresholds(Threshold(2.0, "given"), None), held_out=None)
    samples = [SimpleNamespace(is_defective=one) for one in (False, False, True, True, True)]
    category = SimpleNamespace(name="nut", test=samples)
    _log_test_verdicts(trained, MEASURED, np.float32([1, 2, 1, 2, 3]), category)
    (text,) = caplog.messages
    assert "finds 2 of 3 defective test images, and wrongly 1 of 2 good ones" in text
