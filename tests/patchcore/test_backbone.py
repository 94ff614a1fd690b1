import pytest
import torch
import torchvision
from torch import nn

from patchcore import PatchCoreError
from patchcore.backbone import Backbone


class Toy(nn.Module):
    """A small network with what real ones have: stages, an in-place ReLU, a head."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, 2, 1)
        self.stage1 = nn.Sequential(nn.Conv2d(4, 6, 3, 2, 1), nn.BatchNorm2d(6))
        self.relu = nn.ReLU(inplace=True)
        self.stage2 = nn.Sequential(nn.Conv2d(6, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 1))
        self.head = nn.Linear(8, 5)
        self.calls_of_head = 0

    def forward(self, images):
        maps = self.stage2(self.relu(self.stage1(self.stem(images))))
        self.calls_of_head += 1
        return self.head(maps.mean((2, 3)))


@pytest.fixture
def toy():
    torch.manual_seed(0)
    return Toy().eval()


@pytest.fixture
def images():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def test_gives_the_layers_maps_in_the_order_asked_for(toy, images):
    stage1 = toy.stage1(toy.stem(images))
    stage2 = toy.stage2(stage1.relu())
    backbone = Backbone(toy, ["stage2", "stage1"], (32, 32))
    maps = backbone(images)
    assert list(maps) == ["stage2", "stage1"]
    torch.testing.assert_close(maps["stage1"], stage1)
    torch.testing.assert_close(maps["stage2"], stage2)
    assert backbone.channels == (8, 6)
    assert backbone.grids == ((4, 4), (8, 8))


def test_a_map_is_what_the_layer_gave_not_what_was_written_over_it(toy, images):
    """The ReLU after stage1 works in place: without a copy its negative values would be gone."""
    assert (Backbone(toy, ["stage1", "stage2"], (32, 32))(images)["stage1"] < 0).any()


def test_stops_after_the_last_layer_and_drops_what_follows(toy, images):
    backbone = Backbone(toy, ["stage1", "stage2.0"], (32, 32))
    backbone(images)
    assert toy.calls_of_head == 0
    names = {name for name, _ in backbone.network.named_parameters()}
    assert "stage2.0.weight" in names
    assert not any(name.startswith(("head", "stage2.2")) for name in names)


def test_leaves_no_hook_behind(toy, images):
    Backbone(toy, ["stage1"], (32, 32))(images)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in toy.modules())


def test_keeps_parts_that_are_used_without_being_called():
    """Attention uses its output projection's weights without calling it."""

    class WithAttention(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(3, 1, batch_first=True)
            self.last = nn.Conv2d(3, 2, 1)
            self.head = nn.Linear(2, 2)

        def forward(self, images):
            rows = images.flatten(2).mT
            mixed = self.attention(rows, rows, rows)[0].mT.reshape(images.shape)
            return self.head(self.last(mixed).mean((2, 3)))

    backbone = Backbone(WithAttention(), ["last"], (4, 4))
    assert backbone(torch.ones(1, 3, 4, 4))["last"].shape == (1, 2, 4, 4)
    assert isinstance(backbone.network.head, nn.Identity)


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("wide_resnet50_2", ["layer2", "layer3"]),
        ("resnet18", ["layer1", "layer2", "layer3"]),
        ("mobilenet_v2", ["features.6", "features.13"]),
        ("squeezenet1_1", ["features.5", "features.10"]),
        ("vgg11", ["features.8", "features.13"]),
        ("densenet121", ["features.denseblock2", "features.denseblock3"]),
        ("efficientnet_b0", ["features.3", "features.5"]),
        ("googlenet", ["inception3b", "inception4e"]),
        ("shufflenet_v2_x0_5", ["stage2", "stage3"]),
    ],
)
def test_cuts_torchvisions_networks_without_changing_their_maps(name, layers):
    torch.manual_seed(0)
    network = torchvision.models.get_model(name, weights=None).eval()
    images = torch.randn(1, 3, 96, 96)
    expected = {}
    handles = [
        network.get_submodule(layer).register_forward_hook(
            lambda module, inputs, output, layer=layer: expected.update({layer: output.clone()})
        )
        for layer in layers
    ]
    with torch.no_grad():
        network(images)
        for handle in handles:
            handle.remove()
        before = sum(parameter.numel() for parameter in network.parameters())
        backbone = Backbone(network, layers, (96, 96))
        maps = backbone(images)
    for layer in layers:
        assert torch.equal(maps[layer], expected[layer])
    assert sum(parameter.numel() for parameter in backbone.parameters()) < before


def test_an_unknown_layer_is_answered_with_those_that_exist(toy):
    with pytest.raises(PatchCoreError, match=r"no layer 'stage9'.*stage1, stage1\.0") as caught:
        Backbone(toy, ["stage1", "stage9"], (32, 32))
    assert "Did you mean" in str(caught.value)


def test_the_list_of_layers_stays_readable_for_a_large_network():
    network = torchvision.models.get_model("resnet50", weights=None)
    with pytest.raises(PatchCoreError, match=r"layer4\.2, avgpool, fc, and \d+ modules") as caught:
        Backbone(network, ["features.3"])
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("layers", [[], ["stage1", "stage1"]])
def test_refuses_no_layer_and_one_given_twice(toy, layers):
    with pytest.raises(PatchCoreError, match="one or more different layers"):
        Backbone(toy, layers, (32, 32))


def test_refuses_a_layer_that_gives_no_map(toy):
    with pytest.raises(PatchCoreError, match=r"'head' to give a map.*shape \(1, 5\)"):
        Backbone(toy, ["head"], (32, 32))


def test_refuses_a_layer_that_is_not_reached(toy):
    toy.unused = nn.Conv2d(3, 3, 1)
    with pytest.raises(PatchCoreError, match="'unused' is not reached"):
        Backbone(toy, ["stage1", "unused"], (32, 32))


def test_says_when_images_are_too_small_for_the_network():
    network = torchvision.models.get_model("vgg11", weights=None)
    with pytest.raises(PatchCoreError, match=r"images of 4x4 pixels \(size_crop\)"):
        Backbone(network, ["features.8", "features.20"], (4, 4))


def test_loads_what_the_cut_network_has_and_needs_no_more(toy):
    torch.manual_seed(5)
    other = Toy().state_dict()
    backbone = Backbone(toy, ["stage1"], (32, 32))
    backbone.load({name: value.half() for name, value in other.items() if "head" not in name})
    loaded = backbone.network.state_dict()
    torch.testing.assert_close(loaded["stem.weight"], other["stem.weight"].half().float())


def test_names_missing_and_misshapen_weights(toy):
    backbone = Backbone(toy, ["stage1"], (32, 32))
    state = Toy().state_dict()
    del state["stem.bias"]
    with pytest.raises(PatchCoreError, match=r"stem\.bias not among"):
        backbone.load(state)
    with pytest.raises(PatchCoreError, match=r"stem\.bias of shape \(4,\), found \(7,\)"):
        backbone.load(state | {"stem.bias": torch.zeros(7)})
