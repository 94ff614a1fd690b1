"""The state of a run: which results, figures and curves are those of the command."""

from math import nan

import pytest

from tests.utils.report.pages import RECORD, make_row
from utils.metrics import Metrics
from utils.options.evaluate import EvaluateOptions
from utils.pipeline.category_result import Measurement
from utils.pipeline.finished import Figures, FinishedCategory
from utils.pipeline.run import Run
from utils.report import ReportImage, ReportView
from utils.result_folder import ResultFolder
from utils.results import Setting

SMALL, LARGE = Setting(0.1), Setting(0.25)


def figures_of(category: str, setting: Setting, seed: int = 0, name: str | None = "a") -> Figures:
    image = ReportImage("good", "0.png", 1.0, False, name and f"thumbnails/{category}_{name}.jpg")
    return Figures(ReportView(category, setting, nan, [image]), {}, seed)


def finished(category: str, *figures: Figures, seeds=(0, 3)) -> FinishedCategory:
    """Return a category with two percentages of each seed, the larger one first."""
    rows = tuple(
        make_row(category, one.percentage, seed=seed) for seed in seeds for one in (LARGE, SMALL)
    )
    measurements = tuple(Measurement(row, Metrics(), Metrics()) for row in rows)
    return FinishedCategory(category, {}, "", {}, rows, measurements, figures=figures)


@pytest.fixture
def run(tmp_path) -> Run:
    """Return a run of `nut` and `cap`, with an earlier result of `bolt`."""
    options = EvaluateOptions(pictures="all", seed=(0, 3), percentage_coreset=(0.1, 0.25))
    results = {
        "bolt": finished("bolt", figures_of("bolt", SMALL)),
        "cap": finished("cap", figures_of("cap", LARGE), figures_of("cap", SMALL)),
        "nut": finished("nut", figures_of("nut", SMALL, 3), figures_of("nut", LARGE)),
    }
    record = RECORD | {"notes": []}
    return Run(
        options,
        ResultFolder(tmp_path),
        record,
        ["nut", "zip", "cap"],
        ["wide_resnet50_2"],
        {},
        results,
    )


def test_categories_of_the_command_come_first_in_its_order(run):
    assert [one.category for one in run.ordered] == ["nut", "cap", "bolt"]


def test_the_report_has_the_figures_of_the_first_seed_by_percentage(run):
    found = [(view.category, view.setting) for view in run.views]
    assert found == [("nut", LARGE), ("cap", SMALL), ("cap", LARGE), ("bolt", SMALL)]


def test_curves_are_of_the_first_seed(run):
    assert run.settings_drawn() == [SMALL, LARGE]
    found = [(m.row.category, m.row.seed, m.row.setting) for m in run.drawn(LARGE)]
    assert found == [(name, 0, LARGE) for name in ("nut", "cap", "bolt")]


def test_thumbnails_of_others_are_those_that_were_drawn(run):
    run.results["zip"] = finished("zip", figures_of("zip", SMALL, name=None))
    expected = {"thumbnails/nut_a.jpg", "thumbnails/bolt_a.jpg"}
    assert run.thumbnails_of_others("cap") == expected


@pytest.mark.parametrize(
    ("pictures", "kept"), [("all", [(LARGE, 0)]), ("none", [(LARGE, 0), (SMALL, 0)])]
)
def test_figures_of_results_that_are_drawn_now_count_no_longer(run, pictures, kept):
    run.options = EvaluateOptions(pictures=pictures, seed=(0, 3))
    row = make_row("cap", SMALL.percentage)
    run.add(FinishedCategory("cap", {}, "", {}, (row,), ()))
    found = {(one.view.setting, one.seed) for one in run.results["cap"].figures}
    assert found == set(kept)
    assert len(run.results["cap"].rows) == 4


def test_rows_of_another_seed_leave_the_figures(run):
    run.add(FinishedCategory("cap", {}, "", {}, (make_row("cap", SMALL.percentage, seed=3),), ()))
    assert len(run.results["cap"].figures) == 2


@pytest.mark.parametrize(
    ("pictures", "name"), [("all", "thumbnails/nut_new.jpg"), ("none", "thumbnails/nut_a.jpg")]
)
def test_views_without_images_replace_none_with_images(run, pictures, name):
    run.options = EvaluateOptions(pictures=pictures, seed=(0,))
    views = [figures_of("nut", one, name="new").view for one in (SMALL, LARGE)]
    run.add_figures("nut", views)
    of_run = {one.view.setting: one for one in run.results["nut"].figures if one.seed == 0}
    assert [image.thumbnail for image in of_run[LARGE].view.images] == [name]
    assert of_run[SMALL].view == views[0]  # that of the other seed shows other results
