"""Fixtures and rules that all tests share."""

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

import main  # noqa: F401 - sets OpenCV's environment before any test imports it
from utils.pipeline import evaluate_one

# A busy machine is slow, and nothing is wrong with the code then.
settings.register_profile("any_load", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any_load")

HAS_GPU = torch.cuda.is_available()
# What is not about a GPU is tested without one, on every machine alike.
torch.cuda.is_available = lambda: False

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"


def pytest_collection_modifyitems(items):
    """Skip what needs a device or data that this machine does not have; begin with what is long."""
    # Begun last, the real data and Ray would keep one process busy after the others have finished.
    items.sort(key=lambda item: not any(map(item.get_closest_marker, ("real_data", "ray"))))
    missing = {
        "gpu": None if HAS_GPU else "no CUDA device",
        "real_data": None if SHARED.is_dir() else f"no folder {SHARED.name} beside the checkout",
    }
    for item in items:
        for marker, reason in missing.items():
            if reason and item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def gpu_where_wanted(request, monkeypatch):
    """Let tests marked so find the GPU."""
    if request.node.get_closest_marker("gpu"):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: HAS_GPU)


@pytest.fixture
def shared() -> Path:
    """Return the folder with real data and weights beside the checkout."""
    return SHARED


@pytest.fixture
def computed(monkeypatch) -> list[str]:
    """Return the list of the categories that are computed from now on."""
    compute, names = evaluate_one.evaluate_category, []

    def noted(model, name, category, options, engine):
        names.append(category.name)
        return compute(model, name, category, options)

    monkeypatch.setattr(evaluate_one, "evaluate_category", noted)
    return names
