"""The row of an ensemble: which predictions it combines, and its time."""

from types import SimpleNamespace

import pytest

from tests.utils.report.pages import make_row
from utils.metrics import Metrics
from utils.pipeline import ensembles
from utils.pipeline.category_result import CategoryResult, Measurement


def member(name: str, **seconds: float) -> CategoryResult:
    """Return a member with a measurement of each seed and percentage."""
    rows = [
        make_row(percentage=p, seed=seed, model=name, seconds=seconds)
        for seed in (4, 2)
        for p in (0.1, 0.25)
    ]
    normal = {seed: [f"{name} {seed} {p}" for p in (0.1, 0.25)] for seed in (4, 2)}
    return CategoryResult(
        None,
        None,
        tuple(Measurement(row, Metrics(), Metrics()) for row in rows),
        tuple(f"{row.model} {row.seed} {row.percentage_coreset}" for row in rows),
        None,
        None,
        SimpleNamespace(percentages=(0.1, 0.25), normal=normal),
        None,
    )


def test_an_ensemble_takes_the_time_of_its_members_and_its_own(monkeypatch):
    clock = iter([10.0, 12.5, 20.0, 20.5, 30.0, 30.25, 40.0, 41.0])
    monkeypatch.setattr(ensembles.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(ensembles, "combine", lambda predictions, normal: (predictions, normal))
    monkeypatch.setattr(ensembles, "measure_prediction", lambda *_: (Metrics(), Metrics(), {}))
    members = [member("a", read=1.0, embed=2.0), member("b", read=4.0, search=8.0)]
    joined = ensembles.combine_members(members, None)
    for predictions, normal in joined.predictions:  # of the same seed and percentage
        assert predictions == normal
    names = [f"{seed} {p}" for seed in (4, 2) for p in (0.1, 0.25)]
    assert [one for one, _ in joined.predictions] == [[f"a {n}", f"b {n}"] for n in names]
    shared = {"read": 5.0, "embed": 2.0, "search": 8.0}
    for measured, seconds in zip(joined.measurements, (2.5, 0.5, 0.25, 1.0), strict=True):
        assert measured.row.seconds == pytest.approx(shared | {"combine": seconds})
        assert measured.row.model == "ensemble"
