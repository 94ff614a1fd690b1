"""The device of ``--device``, with devices that this machine need not have; words for the log."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from patchcore import PatchCore
from patchcore.thresholds import Threshold
from utils.errors import UsageError
from utils.options.evaluate import EvaluateOptions
from utils.options.model_choice import ModelChoice
from utils.pipeline.models import (
    _report_few_images,
    choose_device,
    describe_threshold,
    load_model,
    with_layers,
)


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


@pytest.mark.parametrize(
    ("threshold", "num_scored", "text"),
    [
        (Threshold(2.5, "given"), 40, "2.5 (given)"),
        (
            Threshold(2.5, "train_quantile", 1 / 41),
            40,
            "2.5 (train_quantile, nominal false-positive rate 2.44 %, the lowest that 40 scored "
            "training images can give)",
        ),
        (
            Threshold(2.5, "train_quantile", 1.01 / 41),
            40,
            "2.5 (train_quantile, nominal false-positive rate 2.46 %)",
        ),
        (
            Threshold(2.5, "train_quantile", 0.1),
            40,
            "2.5 (train_quantile, nominal false-positive rate 10.00 %)",
        ),
        (  # the record of a model may lack the scores
            Threshold(2.5, "train_quantile", 0.1),
            None,
            "2.5 (train_quantile, nominal false-positive rate 10.00 %)",
        ),
    ],
)
def test_a_rate_comes_with_what_limits_it(threshold, num_scored, text):
    scores = None if num_scored is None else SimpleNamespace(images=np.arange(num_scored))
    assert describe_threshold(threshold, SimpleNamespace(held_out=scores)) == text


@pytest.mark.parametrize(
    ("given", "chosen", "expected"),
    [
        ((), ("ab", "ab"), (("a", "b"),)),
        ((), ("ab", "bc"), (("a", "b"), ("b", "c"))),
        ((("c",),), ("c", "c"), (("c",),)),
    ],
)
def test_chosen_layers_are_recorded_once_if_all_networks_have_the_same(given, chosen, expected):
    networks = (SimpleNamespace(layers=tuple(layers)) for layers in chosen)
    models = {str(n): SimpleNamespace(backbone=network) for n, network in enumerate(networks)}
    assert (
        with_layers(EvaluateOptions(backbone=("resnet18", "resnet34"), layers=given), models).layers
        == expected
    )


@pytest.mark.parametrize(
    ("backbone", "weights", "expected"),
    [
        ("", "", (None, None)),
        ("resnet18", "w.pth", (None, "w.pth")),  # it only chooses among trained models
        ("mine:net", "", ("mine:net", None)),
    ],
)
def test_a_loaded_model_has_its_own_backbone_or_code_that_the_user_names(
    monkeypatch, tmp_path, backbone, weights, expected
):
    seen = []
    monkeypatch.setattr(PatchCore, "load", lambda folder, **options: seen.append(options))
    load_model(tmp_path, ModelChoice(backbone=backbone, weights=weights), torch.device("cpu"))
    assert [(options["backbone"], options["weights"]) for options in seen] == [expected]


def test_categories_with_fewer_images_than_the_most_shots_are_reported(caplog):
    categories = [SimpleNamespace(name=f"of{n}", train=range(n)) for n in (3, 4, 5)]
    _report_few_images(SimpleNamespace(shots=(4, 2)), categories)
    assert caplog.messages == [
        "expected at least 4 training images (--shots), found fewer in of3 (3): all are used"
    ]
    _report_few_images(SimpleNamespace(shots=()), categories)
    assert len(caplog.messages) == 1
