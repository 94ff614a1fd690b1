"""The figures of a run name what they draw."""

from dataclasses import replace
from math import nan
from types import SimpleNamespace

import numpy as np
import pytest

from tests.utils.report.pages import make_row
from utils.metrics import Metrics, measure
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


def test_curves_go_through_their_points(measurement):
    """The scores 3 and 2, 1, 0 of a defective and of a good, a defective, a good image."""
    ((fpr, tpr, auroc),) = pictures._curves([measurement], pictures._roc)[0].values()
    assert (fpr.tolist(), tpr.tolist()) == ([0, 0, 0.5, 0.5, 1], [0, 0.5, 0.5, 1, 1])
    assert auroc == 0.75
    images, pixels = pictures._curves([measurement], pictures._precision_recall)
    assert list(images) == list(pixels) == [measurement.row.category]
    ((recall, precision, average),) = images.values()
    assert recall.tolist() == [0.5, 0.5, 1, 1]  # without a point of no image
    assert precision.tolist() == pytest.approx([1, 1 / 2, 2 / 3, 1 / 2])
    assert average == pytest.approx(5 / 6)


def test_a_category_without_a_curve_is_left_out(measurement):
    other = replace(measurement, row=make_row("bolt"), pixels=Metrics())
    images, pixels = pictures._curves([measurement, other], pictures._roc)
    assert (list(images), list(pixels)) == ([measurement.row.category, "bolt"], ["nut"])


def test_a_category_is_drawn_once_those_before_it_are():
    """Each keeps all its images in memory until then."""
    calls = []
    drawing = SimpleNamespace(wait=lambda: calls.append("wait"))

    def views():
        calls.append("next")
        yield from ()

    assert pictures.draw_category(views(), drawing, None, None) == []
    assert calls == ["wait", "next"]


def test_large_figures_of_these_images_that_are_not_drawn_now_are_removed(tmp_path, caplog):
    """Those of another seed have another share of the largest score, or explain other patches."""
    caplog.set_level("INFO")
    large, small = (f"nut_crack_{n}_p0100_k01" for n in ("000", "001"))
    described = [
        ReportImage("crack", "000.png", 2.0, True, f"thumbnails/{large}.jpg"),
        ReportImage("crack", "001.png", 1.0, True, f"thumbnails/{small}.jpg"),
    ]
    localization, explanation = f"localization_{large}_s100.png", f"explanation_{large}.png"
    described[0] = replace(described[0], localization=localization, explanation=explanation)
    kept = {
        *(localization, explanation, f"explanation_{large}.json"),
        *("explanation_nut_crack_002_p0100_k01.png", f"explanation_{large}_shots004.png"),
        *(f"pred-dist_{large}_r0900.png", f"roc_{large}.png", f"explanation_{large}_s100.png"),
    }
    earlier = {
        *(f"localization_{large}_s099.png", f"localization_{small}_s050.png"),
        *(f"explanation_{small}.png", f"explanation_{small}.json"),
    }
    for name in (*kept, *earlier):
        (tmp_path / name).touch()
    for _ in range(2):
        pictures._remove_earlier(make_row(), described, ResultFolder(tmp_path))
        assert {path.name for path in tmp_path.iterdir()} == kept
    assert [text.rpartition(" ")[2] for text in caplog.messages] == ["4"]
