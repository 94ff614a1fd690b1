"""What a run was asked for and earlier runs have not made: results, figures, models and maps."""

import pytest

from patchcore.errors import PatchCoreError
from tests.utils.report.pages import make_row
from utils.options.evaluate import EvaluateOptions
from utils.pipeline import wanted
from utils.pipeline.finished import Figures, FinishedCategory
from utils.pipeline.wanted import FIGURE_FLAGS, Wanted, own_rows
from utils.report import ReportImage, ReportView
from utils.results import Setting

SEEDS = (4, 2)


@pytest.mark.parametrize("names", [("net",), ("net", "other")])
def test_maps_are_of_each_model_and_seed_and_of_the_ensemble_if_there_is_one(tmp_path, names):
    options = EvaluateOptions(save_maps=True, seed=SEEDS, percentage_coreset=(0.1,))
    states = Wanted(options, tmp_path, names).states_of("nut")
    models = names if len(names) == 1 else (*names, "ensemble")
    expected = {f"maps_nut_{m}_p0100_k01_seed{seed}.npz" for m in models for seed in SEEDS}
    assert states == dict.fromkeys(expected, "")


def test_the_state_of_a_model_is_of_its_flags_and_content(tmp_path, monkeypatch):
    """It is empty if the model is missing or damaged."""
    digests = {"net_p0100_k01": "abc"}

    def read(path):
        if path.name not in digests:
            raise PatchCoreError("expected a model")
        return {"digest": digests[path.name]}

    monkeypatch.setattr(wanted, "read_record", read)

    def states(**flags):
        options = EvaluateOptions(path_trained=tmp_path / "trained", seed=SEEDS, **flags)
        return Wanted(options, tmp_path, ["net"]).states_of("nut")

    folder = tmp_path / "trained/nut"
    found = states(percentage_coreset=(0.1, 0.2))
    assert found.keys() == {str(folder / f"net_p{n}_k01") for n in ("0100", "0200")}
    first, second = found.values()
    assert second == ""
    assert states(percentage_coreset=(0.1,)) == {str(folder / "net_p0100_k01"): first}
    assert states(percentage_coreset=(0.1,), nominal_fpr=0.25) != {
        str(folder / "net_p0100_k01"): first
    }
    digests["net_p0100_k01"] = "other"
    assert states(percentage_coreset=(0.1,)) != {str(folder / "net_p0100_k01"): first}


def finished(*seeds: int, **changed) -> FinishedCategory:
    """Return a category with a row of each seed at 10 %."""
    rows = tuple(make_row(seed=seed) for seed in seeds)
    return FinishedCategory("nut", {}, "", {}, rows=rows, measurements=(), **changed)


@pytest.mark.parametrize(
    ("found", "missing"),
    [
        (None, [4, 2]),
        (finished(), [4, 2]),
        (finished(4, 3), [2]),
        (finished(2), [4]),
        (finished(2, 4), []),
    ],
)
def test_what_is_not_finished_is_missing(tmp_path, found, missing):
    options = EvaluateOptions(pictures="none", seed=SEEDS, percentage_coreset=(0.1,))
    asked = Wanted(options, tmp_path, ["net"])
    assert asked.missing(found) == [(Setting(0.1), seed) for seed in missing]
    assert asked.missing_output(found) == ""


@pytest.mark.parametrize(
    ("pictures", "changed", "reason"),
    [
        ("all", {}, ""),
        ("none", {"seed": 2}, ""),
        ("all", {"seed": 2}, "the figures of 10 %, seed 4 are missing"),
        ("all", {"setting": Setting(0.2)}, "the figures of 10 %, seed 4 are missing"),
        ("all", {"thumbnail": "gone.jpg"}, "{folder}/gone.jpg is missing"),
        ("all", {"score_max": "7.0"}, "score_max of the figures is 0.0, was 7.0"),
        ("worst", {}, "pictures of the figures is worst, was all"),
    ],
)
def test_figures_are_those_of_the_first_seed_and_of_the_same_flags(
    tmp_path, pictures, changed, reason
):
    (tmp_path / "there.jpg").touch()
    image = ReportImage("good", "0.png", 1.0, False, changed.get("thumbnail", "there.jpg"))
    view = ReportView("nut", changed.get("setting", Setting(0.1)), 1.0, [image])
    flags = {name: str(getattr(EvaluateOptions(pictures="all"), name)) for name in FIGURE_FLAGS}
    flags |= {name: value for name, value in changed.items() if name in FIGURE_FLAGS}
    figures = Figures(view, flags, changed.get("seed", 4))
    options = EvaluateOptions(pictures=pictures, seed=SEEDS, percentage_coreset=(0.1,))
    asked, found = Wanted(options, tmp_path, ["net"]), finished(*SEEDS, figures=(figures,))
    assert asked.missing_output(found) == reason.format(folder=tmp_path)
    assert len(asked.missing(found)) == (2 if reason else 0)  # all are computed again
    # Figures of results that are yet to be computed are not missing.
    assert asked.missing_output(finished(2)) == ""


@pytest.mark.parametrize(
    ("exists", "state", "noted", "reason"),
    [
        (True, "one", "one", ""),
        (False, "one", "one", "{path} is missing"),
        (True, "", "one", "{path} is damaged"),
        (True, "one", "two", "{path} was made with other flags or by another run"),
        (True, "one", None, "{path} was made with other flags or by another run"),
    ],
)
def test_a_model_is_there_as_it_was_made(tmp_path, monkeypatch, exists, state, noted, reason):
    options = EvaluateOptions(
        pictures="none", path_trained=tmp_path, seed=SEEDS, percentage_coreset=(0.1,)
    )
    path = tmp_path / "nut/net_p0100_k01"
    if exists:
        path.mkdir(parents=True)
    monkeypatch.setattr(wanted, "_state", lambda *_: state)
    found = finished(*SEEDS, files={} if noted is None else {str(path): noted})
    asked = Wanted(options, tmp_path, ["net"])
    assert asked.missing_output(found) == reason.format(path=path)


def test_maps_need_only_be_there(tmp_path):
    options = EvaluateOptions(
        pictures="none", save_maps=True, seed=SEEDS, percentage_coreset=(0.1,)
    )
    asked = Wanted(options, tmp_path, ["net"])
    names = list(asked.states_of("nut"))
    (tmp_path / names[0]).touch()
    noted = finished(*SEEDS, files=dict.fromkeys(names, ""))
    assert asked.missing_output(noted) == f"{tmp_path / names[1]} is missing"
    (tmp_path / names[1]).touch()
    assert asked.missing_output(noted) == ""
    of_another_run = f"{tmp_path / names[0]} was made with other flags or by another run"
    assert asked.missing_output(finished(*SEEDS)) == of_another_run


def test_rows_of_other_categories_settings_and_seeds_are_not_asked_for():
    rows = [make_row(), make_row("bolt"), make_row(percentage=0.2), make_row(seed=1)]
    options = EvaluateOptions(percentage_coreset=(0.1,), seed=(0,))
    assert own_rows(rows, options, ["nut", "cap"]) == rows[:1]
