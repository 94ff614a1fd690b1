"""What an evaluation asks of its fits."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from utils.options.evaluate import EvaluateOptions
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
