"""What an evaluation asks of its fits."""

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from datasets.base import GOOD, Category, Sample
from patchcore.settings import Settings
from utils.metrics import Metrics
from utils.options.evaluate import EvaluateOptions
from utils.pipeline import evaluate_category as module
from utils.pipeline.evaluate_category import fit_request

MODEL = SimpleNamespace(percentages=(0.1, 0.2))


@pytest.mark.parametrize(
    ("options", "is_first", "held_out", "patches", "normal"),
    [
        ({"pictures": "none"}, True, False, False, False),
        ({"pictures": "all"}, True, False, True, False),
        ({"pictures": "all", "path_trained": Path("a")}, True, True, True, False),
        ({"pictures": "all", "path_trained": Path("a")}, False, False, False, False),
        ({"pictures": "none", "backbone": ("resnet18", "resnet50")}, False, False, False, True),
    ],
)
def test_only_what_is_needed_is_computed(options, is_first, held_out, patches, normal):
    """Held-out scores and crops of patches are needed for the first seed alone."""
    request = fit_request(
        MODEL, EvaluateOptions(memory_budget=3.0, **options), (2, 5), is_first=is_first
    )
    assert (request.percentages, request.seeds) == ((0.1, 0.2), (2, 5))
    assert request.memory_budget == 3
    assert (request.held_out, request.patches, request.normal) == (held_out, patches, normal)


@pytest.mark.parametrize(
    ("shots", "expected"),
    [
        (None, [((2, 5), "abcd")]),
        (9, [((2, 5), "abcd")]),
        (4, [((2, 5), "abcd")]),  # nothing is left to choose
        (3, [((2,), "bcd"), ((5,), "abc")]),  # as `choose_shots` does
    ],
)
def test_each_seed_has_its_own_fit_only_if_it_chooses_its_own_images(monkeypatch, shots, expected):
    fits = []

    def fit(model, category, request, *_):
        fits.append((request.seeds, "".join(s.path.name for s in category.train)))

    monkeypatch.setattr(module, "fit_category", fit)
    train = tuple(Sample(Path(name), "cap", GOOD) for name in "abcd")
    category = Category("cap", train, (), has_masks=False)
    model = SimpleNamespace(percentages=(0.1,), device=torch.device("cpu"))
    options = EvaluateOptions(seed=(2, 5, 2))
    found = module._fit_shots(model, category, shots, None, options, None)
    assert fits == expected
    assert [one.shots for one in found] == [shots] * len(expected)


def test_a_row_has_the_seconds_of_its_fit_and_those_that_all_fits_share(monkeypatch):
    monkeypatch.setattr(module, "measure_prediction", lambda *_: (Metrics(), Metrics(), {}))
    own, shared = ({"read": 1.0, "select": 2.0}, {"read": 4.0, "embed": 8.0})
    fit = module._Fit(Category("cap", (), (), has_masks=False), None, None, observer(own))
    model = SimpleNamespace(
        percentages=(0.1, 0.2),
        settings=Settings(),
        device=None,
        scorer=SimpleNamespace(ignored=None),
    )
    collectors = {(3, 1): SimpleNamespace(finish=lambda: "predicted")}
    ((measured, prediction),) = module._measure_fit(
        model, "net", fit, collectors, None, observer(shared), EvaluateOptions()
    )
    assert prediction == "predicted"
    assert measured.row.seconds == {"read": 5.0, "select": 2.0, "embed": 8.0}
    assert (measured.row.seed, measured.row.percentage_coreset) == (3, 0.2)


def observer(seconds):
    return SimpleNamespace(stage=lambda *_: nullcontext(), seconds=lambda seed, part: dict(seconds))
