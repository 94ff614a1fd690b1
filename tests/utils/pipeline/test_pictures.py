"""The figures of a run name what they draw."""

from dataclasses import replace
from math import nan

import numpy as np
import pytest

from tests.utils.report.pages import make_row
from utils.metrics import measure
from utils.pipeline import pictures
from utils.pipeline.category_result import Measurement
from utils.result_folder import ResultFolder


@pytest.fixture
def titles(monkeypatch):
    """Return the titles of the figures, which are not drawn."""
    found = []

    def draw(*_, title, **__):
        found.append(title)
        return np.zeros((4, 4, 3), np.uint8)

    for name in ("draw_roc_curves", "draw_precision_recall_curves", "draw_pro_curves"):
        monkeypatch.setattr(pictures, name, draw)
    return found


@pytest.fixture
def measurement() -> Measurement:
    metrics = measure(np.arange(4, dtype=np.float32), np.array([False, True, False, True]))
    return Measurement(make_row(), metrics, replace(metrics, aupro=0.25))


def test_the_title_of_curves_has_the_seed_that_is_drawn(titles, measurement, tmp_path):
    other = replace(measurement, row=make_row(seed=7))
    pictures.draw_curves([other], ResultFolder(tmp_path), 0.3)
    assert titles == ["coreset 10 %, k = 1, seed 7"] * 3


def test_the_mean_in_a_file_name_is_that_of_known_measures(titles, measurement, tmp_path):
    other = replace(
        measurement,
        row=make_row("bolt"),
        pixels=replace(measurement.pixels, auroc=nan, average_precision=nan, aupro=nan),
    )
    pictures.draw_curves([measurement, other], ResultFolder(tmp_path), 0.3)
    names = {path.name for path in tmp_path.iterdir()}
    assert "roc-curve_p0100_k01_rim0750_rpm0750.png" in names
    assert "pro-curve_p0100_k01_prm0250.png" in names
