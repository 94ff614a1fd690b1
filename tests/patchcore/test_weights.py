import hashlib
import importlib
import json
import logging
import pickle
import re
import urllib.error
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torchvision.models.vision_transformer import interpolate_embeddings

from patchcore import PatchCoreError
from patchcore.weights import (
    POSITIONS,
    WeightsUnavailableError,
    digest,
    find_licence,
    load_backbone,
    read_state,
)

NAME, LAYERS, SIZE = "squeezenet1_1", ["features.3", "features.6"], (64, 64)
FILE = Path(torchvision.models.SqueezeNet1_1_Weights.IMAGENET1K_V1.url).name
OWN_NETWORK = """
import torch

def make():
    torch.manual_seed(11)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, 2), torch.nn.Conv2d(4, 5, 3, 2))

def make_nothing():
    return "no network"

not_callable = 3
"""


def load(weights, name=NAME, layers=LAYERS, **more):
    return load_backbone(name, layers, weights, size=SIZE, **more)


def trained_state(seed=3):
    torch.manual_seed(seed)
    return torchvision.models.get_model(NAME, weights=None).state_dict()


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """An empty cache, and a network that is not there."""

    def refuse(*arguments, **options):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torch.hub, "urlopen", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    cache = tmp_path / "torch" / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    return cache


@pytest.fixture
def own_network(monkeypatch, tmp_path):
    (tmp_path / "own_network_of_a_test.py").write_text(OWN_NETWORK)
    monkeypatch.syspath_prepend(tmp_path)
    return "own_network_of_a_test"


def test_random_weights_are_seeded_and_said_loudly(caplog):
    with caplog.at_level(logging.WARNING):
        first = digest(load("random", seed=1).network)
    assert "RANDOM WEIGHTS" in caplog.text
    assert digest(load("random", seed=1).network) == first
    assert digest(load("random", seed=2).network) != first


def test_leaves_the_global_random_state_alone():
    torch.manual_seed(3)
    # With what torch notes for the time when CUDA is first used.
    before, queued = torch.get_rng_state(), list(torch.cuda._lazy_seed_tracker.get_calls())
    load("random")
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.cuda._lazy_seed_tracker.get_calls() == queued


@pytest.mark.parametrize("form", ["pth", "safetensors", "float16", "state_dict", "module."])
def test_a_file_gives_the_weights_whatever_form_they_have(tmp_path, form):
    state = trained_state()
    path = tmp_path / ("weights.safetensors" if form == "safetensors" else "weights.pth")
    expected = state["features.0.weight"]
    if form == "safetensors":
        save_file(state, path)
    elif form == "float16":
        torch.save({name: value.half() for name, value in state.items()}, path)
        expected = expected.half().float()
    elif form == "state_dict":
        torch.save({"epoch": 3, "state_dict": state}, path)
    elif form == "module.":
        torch.save({f"module.{name}": value for name, value in state.items()}, path)
    else:
        torch.save(state, path)
    loaded = load(str(path)).network.state_dict()["features.0.weight"]
    assert loaded.dtype == torch.float32
    assert torch.equal(loaded, expected)


def test_default_weights_come_from_torchvisions_cache_without_a_network(no_network):
    state = trained_state()
    torch.save(state, no_network / FILE)
    loaded = load("default").network.state_dict()
    assert torch.equal(loaded["features.0.weight"], state["features.0.weight"])


def test_without_a_network_the_error_names_the_file_its_place_and_the_other_choices(no_network):
    with pytest.raises(WeightsUnavailableError) as caught:
        load("default")
    message = str(caught.value)
    assert str(no_network / FILE) in message
    assert "--weights FILE" in message
    assert "--weights random" in message
    assert "no route to host" in message


def test_a_damaged_file_in_the_cache_is_named(no_network):
    (no_network / FILE).write_bytes(b"not a checkpoint")
    with pytest.raises(PatchCoreError, match="damaged file") as caught:
        load("default")
    assert str(no_network / FILE) in str(caught.value)
    assert not isinstance(caught.value, WeightsUnavailableError)


def test_a_download_that_is_cut_short_is_no_damaged_file(monkeypatch, no_network):
    """Torch finds another digest than the name says, and keeps nothing."""

    def cut_short(url, **options):
        raise RuntimeError('invalid hash value (expected "b8a52dc0", got "0")')

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", cut_short)
    with pytest.raises(WeightsUnavailableError, match="download failed"):
        load("default")


def test_the_default_of_the_papers_backbone_is_the_papers_weights(monkeypatch):
    """Torchvision's own default of today is a later training, with other results."""
    asked = []

    def record(url, **options):
        asked.append((url, options))
        raise urllib.error.URLError("enough")

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", record)
    with pytest.raises(WeightsUnavailableError):
        load_backbone("wide_resnet50_2", ["layer2", "layer3"], "default", size=SIZE)
    url, options = asked[0]
    assert url == torchvision.models.Wide_ResNet50_2_Weights.IMAGENET1K_V1.url
    assert options["progress"]
    assert options["check_hash"]
    assert options["weights_only"]


def test_a_factory_keeps_its_own_weights_unless_a_file_is_given(own_network, tmp_path):
    target = f"{own_network}:make"
    own = load("default", target, ["0", "1"])
    torch.manual_seed(11)
    expected = torch.nn.Conv2d(3, 4, 3, 2).weight
    assert torch.equal(own.network[0].weight, expected)
    state = {name: torch.zeros_like(value) for name, value in own.network.state_dict().items()}
    torch.save(state, tmp_path / "zeros.pth")
    assert not load(str(tmp_path / "zeros.pth"), target, ["0", "1"]).network[0].weight.any()
    random = load("random", target, ["0", "1"], seed=4)
    assert not torch.equal(random.network[0].weight, expected)
    assert digest(random.network) == digest(load("random", target, ["0", "1"], seed=4).network)


def test_a_network_that_a_factory_returns_again_stays_as_it_is(own_network, tmp_path):
    module = importlib.import_module(own_network)
    module.once = module.make()
    module.again = lambda: module.once
    target, before = f"{own_network}:again", module.once[0].weight.clone()
    state = {name: torch.zeros_like(value) for name, value in module.once.state_dict().items()}
    torch.save(state, tmp_path / "zeros.pth")
    for weights in (str(tmp_path / "zeros.pth"), "random"):
        assert not torch.equal(load(weights, target, ["0", "1"]).network[0].weight, before)
    assert torch.equal(module.once[0].weight, before)
    assert load("default", target, ["0", "1"]).shares_weights


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("make_it", "no callable 'make_it'"),
        ("not_callable", "no callable 'not_callable'"),
        ("make_nothing", "return a torch.nn.Module, found str"),
    ],
)
def test_says_what_is_wrong_with_a_factory(own_network, factory, message):
    with pytest.raises(PatchCoreError, match=message):
        load("default", f"{own_network}:{factory}", ["0"])


def test_says_that_a_module_cannot_be_imported():
    with pytest.raises(PatchCoreError, match=r"cannot import 'no_such_module_here'.*PYTHONPATH"):
        load("default", "no_such_module_here:make", ["0"])


def test_an_unknown_backbone_is_answered_with_those_that_exist():
    with pytest.raises(
        PatchCoreError, match=r"module:factory.*found 'resnet5' .*Did you mean resnet50"
    ):
        load("random", "resnet5")


def test_a_model_that_is_no_classifier_is_not_offered():
    with pytest.raises(PatchCoreError, match="found 'fcn_resnet50'"):
        load("random", "fcn_resnet50")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.pth", None, "no weights file"),
        ("text.pth", b"hello", "cannot read"),
        ("text.safetensors", b"hello", "cannot read"),
        ("empty.pth", b"", "cannot read"),
    ],
)
def test_a_bad_weights_file_is_named(tmp_path, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(PatchCoreError, match=message) as caught:
        load(str(path))
    assert str(path) in str(caught.value)


def test_a_weights_file_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    path = tmp_path / "weights.pth"
    path.touch()
    monkeypatch.setattr(torch, "load", mock.Mock(side_effect=OSError("the disk is broken")))
    expected = f"cannot read {path} (weights): the disk is broken"
    with pytest.raises(PatchCoreError, match=re.escape(expected)):
        load(str(path))


def test_a_file_with_something_else_is_refused(tmp_path):
    torch.save([torch.zeros(3)], tmp_path / "list.pth")
    with pytest.raises(PatchCoreError, match="tensors by name"):
        read_state(tmp_path / "list.pth")


def test_nothing_in_a_file_is_executed(tmp_path):
    class Harmful:
        def __reduce__(self):
            return Path.touch, (tmp_path / "was_executed",)

    (tmp_path / "harmful.pth").write_bytes(pickle.dumps({"weight": Harmful()}))
    torch.save({"weight": Harmful()}, tmp_path / "harmful2.pth")
    for name in ("harmful.pth", "harmful2.pth"):
        with pytest.raises(PatchCoreError, match="cannot read"):
            read_state(tmp_path / name)
    assert not (tmp_path / "was_executed").exists()


def test_networks_that_normalise_by_themselves_are_told_to(no_network):
    torch.manual_seed(0)
    network = torchvision.models.get_model("googlenet", weights=None, init_weights=False)
    file = Path(torchvision.models.GoogLeNet_Weights.IMAGENET1K_V1.url).name
    torch.save(network.state_dict(), no_network / file)
    assert load("default", "googlenet", ["inception3a"]).network.transform_input


RECORDED = [
    ("mobilenet_v2", ["features.3", "features.6"]),
    ("resnet18", ["layer1", "layer2"]),
    ("swin_t", ["features.1", "features.3"]),
    ("formulanet", ["layer1", "layer2", "layer3"]),
]


class MustNotRun(torch.nn.Module):
    def forward(self, *arguments):
        raise AssertionError("the network was run")


@pytest.mark.parametrize(("name", "layers"), RECORDED)
@pytest.mark.parametrize("form", ["random", "file"])
def test_a_recorded_layout_gives_the_same_backbone_without_a_run(
    monkeypatch, tmp_path, name, layers, form
):
    weights = "random"
    if form == "file":
        torch.manual_seed(7)
        if name != "formulanet":
            network = torchvision.models.get_model(name, weights=None)
            weights = str(tmp_path / "weights.pth")
            torch.save(network.state_dict(), weights)
        else:
            weights = "default"
    first = load(weights, name, layers)
    record = json.loads(json.dumps(first.layout))
    with monkeypatch.context() as patch:
        patch.setattr(torch.nn.Module, "__call__", MustNotRun().forward)
        again = load(weights, name, layers, layout=record)
    assert again.layout == first.layout
    assert again.weights_digest == first.weights_digest
    for attribute in ("layers", "channels", "grids", "size", "folded", "name", "weights"):
        assert getattr(again, attribute) == getattr(first, attribute)
    assert list(again.network.state_dict()) == list(first.network.state_dict())
    for tensor, expected in zip(
        again.network.state_dict().values(), first.network.state_dict().values(), strict=True
    ):
        assert torch.equal(tensor, expected)
    images = torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        maps = again(images)
        for layer, expected in first(images).items():
            assert torch.equal(maps[layer], expected)


def test_a_recorded_layout_of_a_network_of_ones_own(own_network):
    target = f"{own_network}:make"
    first = load("default", target, ["1", "0"])
    again = load("default", target, ["0", "1"], layout=first.layout)
    images = torch.ones(1, 3, *SIZE)
    for layer, expected in first(images).items():
        assert torch.equal(again(images)[layer], expected)


def test_without_a_trial_nothing_is_drawn_at_random_that_is_loaded_anyway(monkeypatch, tmp_path):
    torch.save(trained_state(), tmp_path / "weights.pth")
    record = load(str(tmp_path / "weights.pth")).layout
    drawn = []
    for name in ("normal_", "uniform_"):
        monkeypatch.setattr(torch.Tensor, name, lambda *a, **k: drawn.append(a))
    load(str(tmp_path / "weights.pth"), layout=record)
    assert not drawn
    load(str(tmp_path / "weights.pth"))
    assert drawn


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"removed": ["features.99"]}, r"module 'features\.99', found none"),
        ({"removed": [""]}, "module '', found none"),
        ({"folded": [["features.0", "features.1"]]}, "found Conv2d and ReLU"),
        ({"folded": [["features.0", "nothing"]]}, "expected a network with"),
        ({"size": [32, 32]}, "images of 64x64 pixels, found one for .* 32x32"),
        ({"norm": "norm"}, "layout for norm_tokens=False, found one with the norm 'norm'"),
    ],
)
def test_a_layout_of_another_network_is_refused(tmp_path, change, message):
    torch.save(trained_state(), tmp_path / "weights.pth")
    record = load(str(tmp_path / "weights.pth")).layout
    with pytest.raises(PatchCoreError, match=message):
        load(str(tmp_path / "weights.pth"), layout=record | change)


def test_a_layout_of_other_layers_is_refused(tmp_path):
    torch.save(trained_state(), tmp_path / "weights.pth")
    record = load(str(tmp_path / "weights.pth")).layout
    with pytest.raises(PatchCoreError, match=r"layers features\.3 and .* for features\.3, f"):
        load(str(tmp_path / "weights.pth"), layers=["features.3"], layout=record)


def test_the_digest_is_that_of_saved_models():
    """Models on disk hold it: it must not change from version to version."""
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.BatchNorm2d(2))
    for number, value in enumerate(network.state_dict().values()):
        value.fill_(number)
    expected = hashlib.sha256()
    for name, shape, kind, value in (
        ("0.bias", (2,), "float32", 1),
        ("0.weight", (2, 1, 1, 1), "float32", 0),
        ("1.bias", (2,), "float32", 3),
        ("1.num_batches_tracked", (), "int64", 6),
        ("1.running_mean", (2,), "float32", 4),
        ("1.running_var", (2,), "float32", 5),
        ("1.weight", (2,), "float32", 2),
    ):
        expected.update(f"{name} {shape} torch.{kind}\n".encode())
        expected.update(np.full(shape, value, kind).tobytes())
    assert digest(network) == expected.hexdigest()


@pytest.mark.slow
def test_position_embeddings_of_torchvision_are_resampled_to_the_size(tmp_path):
    """The digest stays that of the file."""
    torch.manual_seed(2)
    state = torchvision.models.get_model("vit_b_32", weights=None).state_dict()
    torch.save(state, tmp_path / "weights.pth")
    layers, path = ["encoder.layers.encoder_layer_1"], str(tmp_path / "weights.pth")
    small, native = (
        load_backbone("vit_b_32", layers, path, size=(side, side)) for side in (64, 224)
    )
    assert small.grids == ((2, 2),)
    expected = interpolate_embeddings(64, 32, dict(state))[POSITIONS]
    assert torch.equal(small.network.state_dict()[POSITIONS], expected)
    assert small.weights_digest == native.weights_digest
    with pytest.raises(PatchCoreError, match=r"of 70x70 .* that fit are 64 64 or 96 96 \("):
        load_backbone("vit_b_32", layers, path, size=(70, 70))


def test_only_another_publishers_licence_is_reported(caplog):
    assert find_licence("wide_resnet50_2", "default") == ""
    assert find_licence("formulanet", "default") == "apache-2.0"
    assert not caplog.text
    assert "SWAG" in find_licence("vit_h_14", "default")
    assert "published for vit_h_14 have the licence https://github.com/facebook" in caplog.text
    assert find_licence("vit_h_14", "random") == find_licence("my_nets:make", "default") == ""
