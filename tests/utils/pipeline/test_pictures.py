"""The figures of a run name what they draw."""

import logging
from dataclasses import replace
from math import nan

import numpy as np
import pytest

from tests.utils.report.pages import make_row
from utils.metrics import measure
from utils.pipeline import pictures
from utils.pipeline.category_result import Measurement
from utils.report import ReportImage
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


def test_earlier_figures_of_the_same_images_are_removed(tmp_path, caplog):
    """Not those of other images and settings, nor files that are named like figures."""
    image = "bolt_crack_000_p0100_k01"
    now = f"localization_{image}_s080.png"
    earlier = [f"localization_{image}_s067.png", f"explanation_{image}.json"]
    earlier += [f"explanation_{image}.png"]
    others = [f"localization_{image.replace('000', '001')}_s067.png", f"curve_{image}.png"]
    others += [f"localization_{image.replace('0100', '0010')}_s067.png", f"{image}.jpg"]
    for name in (now, *earlier, *others):
        (tmp_path / name).touch()
    shown = ReportImage("crack", "000.png", 0.8, True, f"thumbnails/{image}.jpg", now)
    caplog.set_level(logging.INFO)
    for _ in range(2):
        pictures._remove_earlier(make_row("bolt"), [shown], ResultFolder(tmp_path))
        assert {path.name for path in tmp_path.iterdir()} == {now, *others}
    assert caplog.messages == ["bolt, coreset 10 %: files of earlier figures that are removed: 3"]
