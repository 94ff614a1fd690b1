import numpy as np
import pytest
import torch
from torch import nn

from patchcore import PatchCore, PatchCoreError
from patchcore.backbone import Backbone
from patchcore.export import traceable
from patchcore.export.traceable import TraceableBank, TraceablePatchCore, trace
from tests.patchcore.test_model import make_images, make_model
from tests.support import one_thread

TRAIN, TEST = make_images(6), make_images(5, seed=1)


@pytest.fixture(scope="module", autouse=True)
def in_one_thread():
    with one_thread():
        yield


def judge(model, coreset=None, images=TEST):
    """Predict images with the traceable module; return scores and maps as arrays."""
    module = TraceablePatchCore(model, coreset or model.coreset).eval()
    batch = torch.from_numpy(np.stack([model.crop(image) for image in images]))
    with torch.no_grad():
        score, anomaly_map = module(batch.permute(0, 3, 1, 2).contiguous())
    return score.numpy(), anomaly_map.numpy()


def assert_equals_the_model(model):
    prediction = model.predict(TEST)
    score, anomaly_map = judge(model)
    np.testing.assert_allclose(score, prediction.score, rtol=1e-5)
    np.testing.assert_allclose(anomaly_map, prediction.anomaly_map, rtol=1e-5)


@pytest.mark.parametrize("k", [1, 5])
@pytest.mark.parametrize("image_score", ["max_patch", "max_map", "reweighted"])
def test_equals_the_model(image_score, k):
    assert_equals_the_model(make_model(image_score=image_score, k=k).fit(TRAIN))


@pytest.mark.parametrize(
    "options",
    [
        {"num_reweight": 1000, "image_score": "reweighted"},  # more than the coreset has
        {"patch_size": 2},
        {"patch_size": 5},
        {"layer_weights": (3.0, 0.5), "sigma": 0.0},
        {"percentage_coreset": 1 / 64, "k": 6},  # no spare candidates
    ],
)
def test_equals_the_model_with_other_settings(options):
    assert_equals_the_model(make_model(**options).fit(TRAIN))


@pytest.mark.parametrize("rows", [1, 7, 50, 76])  # of 76
@pytest.mark.parametrize("k", [1, 5])
def test_the_bank_may_be_searched_in_parts(monkeypatch, rows, k):
    monkeypatch.setattr(traceable, "BLOCK_FLOATS", rows * 64)
    assert_equals_the_model(make_model(k=k, image_score="reweighted").fit(TRAIN))


def test_searches_the_coreset_that_it_is_given():
    model = make_model(percentage_coreset=[0.05, 0.5]).fit(TRAIN)
    alone = make_model(percentage_coreset=0.05).fit(TRAIN)
    score, _ = judge(model, model.coreset.part(0))
    np.testing.assert_allclose(score, alone.predict(TEST).score, rtol=1e-5)
    assert (score > 1.1 * judge(model)[0]).all()


def test_equal_vectors_are_at_distance_zero_and_nearly_equal_ones_in_their_order():
    """By products of numbers of this size, distances below 0.1 cannot be told apart."""
    generator = torch.Generator().manual_seed(0)
    steps = torch.tensor([0.0, 0.001, 0.002, 0.003])[:, None]
    points = 100 * torch.randn(60, 1, 24, generator=generator)
    bank = (points + steps).reshape(-1, 24)  # 60 groups of 4 that hardly differ
    distances, nearest = TraceableBank(bank, k=1, num_patches=64)(bank)
    assert (distances == 0).all()
    assert torch.equal(nearest, torch.arange(240))


def test_leaves_the_model_as_it_is():
    model = make_model().fit(TRAIN)
    expected = model.predict(TEST)
    bank = model.coreset.bank.embeddings.clone()
    judge(model)
    weight = next(model.backbone.parameters())
    assert weight.requires_grad
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(model.coreset.bank.embeddings, bank)
    np.testing.assert_array_equal(model.predict(TEST).score, expected.score)


class Network(nn.Module):
    """Two convolutions, and between them whatever a test wants."""

    def __init__(self, between):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, 2, 1)
        self.relu = nn.ReLU(inplace=True)
        self.last = nn.Conv2d(8, 8, 3, 2, 1)
        self.head = nn.Linear(8, 2)  # does not fit what comes before: must not be run
        self.between = between

    def forward(self, x):
        return self.head(self.last(self.between(self, self.relu(self.first(x)))))


def shuffle_channels(network, x):
    batch, channels, height, width = x.shape
    return x.view(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(x.shape)


def decide_by_size(network, x):
    return x.flip(1) if x.shape[-1] > 4 and x.shape[1] == 8 else x.mean()


@pytest.mark.parametrize("between", [shuffle_channels, decide_by_size])
@pytest.mark.parametrize("batch", [1, 3])
def test_traces_a_network_up_to_its_last_layer(between, batch):
    """Here the ReLU writes over what the first layer gave: the trace must keep a copy, too."""
    torch.manual_seed(0)
    backbone = Backbone(Network(between), ["first", "last"], (32, 32))
    graph = trace(backbone)
    images = torch.randn(batch, 3, 32, 32)
    with torch.no_grad():
        for found, expected in zip(graph(images), backbone(images).values(), strict=True):
            torch.testing.assert_close(found, expected)
            assert expected.min() < 0


@pytest.mark.parametrize(
    "between",
    [
        lambda network, x: x if x.mean() > 0 else x * 2,
        lambda network, x: x * float(x.max()),
        lambda network, x: torch.from_numpy(np.maximum(x.numpy(), 0)),
    ],
)
def test_refuses_a_network_that_decides_by_values(between):
    with torch.no_grad():
        backbone = Backbone(Network(between).requires_grad_(False), ["first", "last"], (32, 32))
        with pytest.raises(PatchCoreError, match="depends on the values of its input"):
            trace(backbone)


def test_refuses_a_model_in_fewer_digits():
    model = make_model(precision="bfloat16")
    with pytest.raises(PatchCoreError, match=r"in float32 to export, found bfloat16"):
        TraceablePatchCore(model, model.coreset)


def test_refuses_a_model_on_a_gpu(monkeypatch):
    model = make_model()
    monkeypatch.setattr(PatchCore, "device", torch.device("cuda", 1))
    with pytest.raises(PatchCoreError, match="model on the CPU to export, found one on cuda:1"):
        TraceablePatchCore(model, model.coreset)


def test_a_torchvision_network():
    options = {"size_resize": (72, 72), "size_crop": (64, 64), "embed_dim": 50}
    model = PatchCore("resnet18", ["layer1", "layer2", "layer3"], weights="random", **options)
    assert_equals_the_model(model.fit(TRAIN))
