"""The device of ``--device``, with devices that this machine need not have."""

import pytest
import torch

from utils.errors import UsageError
from utils.pipeline.models import choose_device


@pytest.fixture
def gpus(monkeypatch):
    """Let torch find two GPUs."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("auto", "cuda"),
        ("cuda", "cuda"),
        ("cuda:0", "cuda:0"),
        ("cuda:1", "cuda:1"),
        ("cpu", "cpu"),
    ],
)
def test_with_gpus(name, expected):
    assert choose_device(name) == torch.device(expected)


@pytest.mark.usefixtures("gpus")
def test_a_gpu_too_many():
    with pytest.raises(UsageError, match="expected an available device, found cuda:2 "):
        choose_device("cuda:2")


@pytest.mark.parametrize("name", ["auto", "cpu"])
def test_without_a_gpu(monkeypatch, name):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device(name) == torch.device("cpu")


@pytest.mark.parametrize("name", ["cuda", "cuda:1", "tpu", "meta", "xpu:7"])
def test_a_device_that_is_not_available(monkeypatch, name):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError) as caught:
        choose_device(name)
    first, second = str(caught.value).split("--device): ")
    assert first.startswith(f"expected an available device, found {name} (")
    assert "\n" not in first
    assert second == "--device auto selects the GPU if there is one, else the CPU"
