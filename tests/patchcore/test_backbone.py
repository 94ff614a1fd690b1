import copy
import io
import logging
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torchvision
from torch import nn

from patchcore import PatchCoreError
from patchcore.backbone import Backbone, _are_equal, digest
from patchcore.fold import fold_batch_norms
from patchcore.layer_names import _outline
from patchcore.layout import Layout
from patchcore.network_input import NetworkInput
from patchcore.reader import LayerReader, has_other_hooks, try_out
from patchcore.scales import Scales


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


@pytest.mark.parametrize("layers", [["stage1", "stage2"], ["stage2", "stage1"]])
def test_gives_the_layers_maps_from_large_to_small_and_says_so(toy, images, layers, caplog):
    stage1 = toy.stage1(toy.stem(images))
    stage2 = toy.stage2(stage1.relu())
    backbone = Backbone(toy, layers, (32, 32))
    maps = backbone(images)
    assert list(maps) == list(backbone.layers) == ["stage1", "stage2"]
    torch.testing.assert_close(maps["stage1"], stage1)
    torch.testing.assert_close(maps["stage2"], stage2)
    assert backbone.channels == (6, 8)
    assert backbone.grids == ((8, 8), (4, 4))
    message = "from large maps to small ones: stage1, stage2 (given: stage2, stage1)"
    assert (message in caplog.text) == (layers == ["stage2", "stage1"])


def test_a_large_map_that_is_computed_late_comes_first(toy, images):
    network = nn.Sequential(toy.stem, toy.stage1, nn.Upsample(scale_factor=2), nn.Conv2d(6, 4, 1))
    backbone = Backbone(network, ["1", "3"], (32, 32))
    assert backbone.layers == ("3", "1")
    assert list(backbone(images)) == ["3", "1"]
    assert backbone.grids == ((16, 16), (8, 8))


def test_layers_with_equal_maps_are_in_the_order_of_their_computation(toy):
    assert Backbone(toy, ["stage2.2", "stage2.0"], (32, 32)).layers == ("stage2.0", "stage2.2")


def test_a_map_is_what_the_layer_gave_not_what_was_written_over_it(toy, images):
    """The ReLU after stage1 works in place: without a copy its negative values would be gone."""
    assert (Backbone(toy, ["stage1", "stage2"], (32, 32))(images)["stage1"] < 0).any()


def test_a_recorded_layout_keeps_that_it_is_written_over(toy, images):
    first = Backbone(toy, ["stage1", "stage2"], (32, 32))
    layout = Layout.from_record(first.layout)
    again = Backbone(toy, ["stage1", "stage2"], (32, 32), layout)
    assert torch.equal(again(images)["stage1"], first(images)["stage1"])
    assert (again(images)["stage1"] < 0).any()


def test_can_be_made_in_inference_mode(images):
    with torch.inference_mode():
        maps = Backbone(Toy(), ["stage1", "stage2"], (32, 32))(images)
    assert (maps["stage1"] < 0).any()


def test_stops_after_the_last_layer_and_drops_what_follows(toy, images):
    backbone = Backbone(toy, ["stage1", "stage2.0"], (32, 32))
    backbone(images)
    assert backbone.network.calls_of_head == 0
    names = {name for name, _ in backbone.network.named_parameters()}
    assert "stage2.0.weight" in names
    assert not any(name.startswith(("head", "stage2.2")) for name in names)


def test_leaves_the_network_as_it_was(toy, images):
    expected = toy.train()(images)
    toy.load_state_dict(copy.deepcopy(toy.state_dict()))
    names = list(toy.state_dict())
    backbone = Backbone(toy, ["stage1"], (32, 32))
    backbone(images)
    assert toy.training
    assert list(toy.state_dict()) == names
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in toy.modules())
    torch.testing.assert_close(toy(images), expected)
    # Without a second copy of the weights.
    assert backbone.network.stem.weight is toy.stem.weight


def test_a_trial_says_what_ran_and_leaves_no_hook(toy, images):
    trial = try_out(LayerReader(toy, ["stage1", "stage2.0"]), toy, images)
    assert list(trial.outputs) == ["stage1", "stage2.0"]
    assert trial.overwritten == {"stage1"}  # by the ReLU
    inside = {"stem", "stage1", "stage1.0", "stage1.1", "relu", "stage2.0"}
    assert trial.completed == inside
    assert trial.called == inside | {"", "stage2"}
    assert not any(has_other_hooks(module) for module in toy.modules())


def test_a_network_that_was_read_runs_to_its_end_for_others(toy, images):
    reader = LayerReader(toy, ["stage1"])
    expected = toy(images)
    reader.attach(toy.stage1, "stage1")
    assert list(reader.run(toy, images)) == ["stage1"]
    torch.testing.assert_close(toy(images), expected)


class Keeping(nn.Module):
    """Keeps what it computed from its weights until its mode is set, as some networks of timm."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, 2, 1)
        self.norm = nn.BatchNorm2d(4)
        self.bias = nn.Parameter(torch.ones(4, 1, 1))
        self.register_buffer("calls", torch.zeros(1))
        self.kept = None

    def train(self, mode=True):
        self.kept = None
        return super().train(mode)

    def forward(self, images):
        self.calls += 1
        self.kept = 2 * self.bias if self.kept is None else self.kept
        return self.norm(self.conv(images) + self.kept)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nothing_that_a_trial_computed_is_kept(images, dtype):
    network = Keeping().eval()
    backbone = Backbone(network, ["norm"], (32, 32))
    fold_batch_norms(backbone)
    Scales.of((32, 32), (1, 0.5), backbone)
    assert (backbone.network.kept, network.calls.item()) == (None, 0)
    network(images)  # the user's own call
    loaded = Keeping().eval()
    nn.init.normal_(loaded.bias)
    backbone = Backbone(network, ["norm"], (32, 32))
    backbone.load(loaded.state_dict())
    maps = backbone.converted(torch.device("cpu"), dtype)(images.to(dtype))["norm"]
    assert torch.equal(maps, loaded.to(dtype)(images.to(dtype)))


def test_a_backbone_that_has_run_is_converted_and_resized_as_a_new_one(images):
    used = Backbone(Keeping(), ["norm"], (32, 32))
    used(images)
    used.converted(torch.device("cpu"), torch.bfloat16)(images.bfloat16())
    assert used.at((64, 64)).network.kept is None


def test_two_backbones_of_one_network(toy, images):
    alone = Backbone(copy.deepcopy(toy), ["stage2"], (32, 32))(images)["stage2"]
    early, late = Backbone(toy, ["stage1"], (32, 32)), Backbone(toy, ["stage2"], (32, 32))
    assert list(early(images)) == ["stage1"]
    assert torch.equal(late(images)["stage2"], alone)


def test_a_network_that_cannot_be_copied_is_named(toy):
    toy.lock = threading.Lock()
    with pytest.raises(PatchCoreError, match=r"copy\.deepcopy can copy, found Toy \(TypeError"):
        Backbone(toy, ["stage1"], (32, 32))


def test_a_network_whose_weights_are_computed_by_a_hook_can_be_copied(toy, images):
    nn.utils.weight_norm(toy.stem)
    backbone = Backbone(toy, ["stem"], (32, 32))
    torch.testing.assert_close(backbone(images)["stem"], toy.stem(images))


def test_a_network_in_half_precision_is_converted(toy, images):
    expected = Backbone(copy.deepcopy(toy).half().float(), ["stage1", "stage2"], (32, 32))(images)
    half = toy.half()
    maps = Backbone(half, ["stage1", "stage2"], (32, 32))(images)
    for name, values in expected.items():
        assert torch.equal(maps[name], values)
    assert half.stem.weight.dtype == torch.float16


def test_a_copy_in_another_precision_leaves_the_backbone_as_it_is(toy, images):
    backbone = Backbone(toy, ["stage1", "stage2"], (32, 32))
    before, digest_before = backbone(images), digest(backbone.network)
    converted = backbone.converted(torch.device("cpu"), torch.bfloat16)
    maps = converted(images.bfloat16())
    assert {values.dtype for values in maps.values()} == {torch.bfloat16}
    assert converted.network.stem.weight.is_contiguous(memory_format=torch.channels_last)
    assert converted.weights_digest == digest_before == digest(backbone.network)
    for name, values in backbone(images).items():
        assert torch.equal(values, before[name])


@pytest.mark.parametrize("size", [(32, 32), (64, 64)])
def test_rounded_weights_are_not_taken_for_the_original_ones(toy, images, size):
    rounded = Backbone(toy, ["stage1"], (32, 32)).converted(torch.device("cpu"), torch.bfloat16)
    same = rounded.at(size).converted(torch.device("cpu"), torch.bfloat16)
    assert same.network.stem.weight.dtype == torch.bfloat16
    for dtype in (torch.float32, torch.float16):
        with pytest.raises(PatchCoreError, match="rounded them to bfloat16: load it again"):
            rounded.at(size).converted(torch.device("cpu"), dtype)


def test_a_copy_that_changes_nothing_shares_its_weights(toy):
    backbone = Backbone(toy, ["stage1"], (32, 32)).converted(torch.device("cpu"), torch.float32)
    again = backbone.converted(torch.device("cpu"), torch.float32)
    assert again.network.stem.weight is backbone.network.stem.weight


@pytest.mark.parametrize("size", [(32, 32), (64, 64)])
def test_a_copy_does_not_follow_what_becomes_of_the_given_network(toy, images, size):
    backbone = Backbone(toy, ["stage1"], (32, 32)).at(size)
    converted = backbone.converted(torch.device("cpu"), torch.float32)
    before = converted(images)["stage1"]
    with torch.no_grad():
        for tensor in (*toy.parameters(), *toy.buffers()):
            tensor.add_(1)
    toy.half()
    assert torch.equal(converted(images)["stage1"], before)
    assert converted.digest() == digest(converted.network) != backbone.digest()


def test_loading_leaves_the_given_network_as_it_is(toy, images):
    expected = toy(images)
    torch.manual_seed(5)
    other = Toy().eval()
    backbone = Backbone(toy, ["stage1"], (32, 32))
    assert backbone.shares_weights
    backbone.load(other.state_dict())
    assert not backbone.shares_weights
    torch.testing.assert_close(backbone(images)["stage1"], other.stage1(other.stem(images)))
    assert torch.equal(toy(images), expected)


def test_any_number_of_threads_read_what_one_reads(toy):
    """Two backbones of one network, one of which copies a map before it is written over."""
    backbones = [
        Backbone(toy, ["stage1", "stage2"], (32, 32)),
        Backbone(toy, ["stem", "stage2"], (32, 32)),
    ]
    generator = torch.Generator().manual_seed(2)
    images = [torch.randn(1 + n % 3, 3, 32, 32, generator=generator) for n in range(96)]
    with torch.inference_mode():
        expected = [backbones[n % 2](image) for n, image in enumerate(images)]

    def read(number):
        with torch.inference_mode():
            return backbones[number % 2](images[number])

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(read, range(len(images))))
    for maps, wanted in zip(found, expected, strict=True):
        assert list(maps) == list(wanted)
        for name, values in maps.items():
            assert torch.equal(values, wanted[name])


def test_can_be_pickled_and_copied(toy, images):
    """Backbones go to other processes, and exporters copy them."""
    backbone = Backbone(toy, ["stage1", "stage2"], (32, 32))
    expected = backbone(images)
    buffer = io.BytesIO()
    torch.save(backbone, buffer)
    buffer.seek(0)
    for copied in (torch.load(buffer, weights_only=False), copy.deepcopy(backbone)):
        for name, values in copied(images).items():
            assert torch.equal(values, expected[name])


@pytest.mark.parametrize("other", [lambda maps: maps[:, :, 1:], lambda maps: [maps]])
def test_keeps_a_part_without_which_a_layer_gives_something_else(images, other):
    class Looks(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Identity()
            self.part = nn.Linear(2, 2)

        def forward(self, images):
            return self.layer(images if isinstance(self.part, nn.Linear) else other(images))

    backbone = Backbone(Looks(), ["layer"], (32, 32))
    assert torch.equal(backbone(images)["layer"], images)


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
    with pytest.raises(PatchCoreError, match=r"stage1, stage1\.0.*found 'stage9'") as caught:
        Backbone(toy, ["stage1", "stage9"], (32, 32))
    assert "Did you mean" in str(caught.value)


def test_the_list_of_layers_stays_readable_for_a_large_network():
    network = torchvision.models.get_model("resnet50", weights=None)
    with pytest.raises(PatchCoreError, match=r"layer4\.2, avgpool, fc, and \d+ modules") as caught:
        Backbone(network, ["features.3"])
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("layers", "found"), [([], "none"), (["stage1", "stage1"], "stage1, stage1")]
)
def test_refuses_no_layer_and_one_given_twice(toy, layers, found):
    with pytest.raises(PatchCoreError, match=rf"one or more different layers, found {found} \("):
        Backbone(toy, layers, (32, 32))


def test_refuses_a_layer_that_gives_no_map(toy):
    with pytest.raises(PatchCoreError, match=r"'head' to return a map.*shape \(1, 5\)"):
        Backbone(toy, ["head"], (32, 32))


def test_refuses_a_layer_that_gives_no_tensor_before_one_that_gives_a_map(toy):
    class Twice(nn.Module):
        def forward(self, maps):
            return maps, maps

    stem, rest = toy.stem, toy.stage1
    toy.stem, toy.stage1 = nn.Sequential(stem, Twice()), nn.Sequential()
    toy.stage1.forward = lambda pair: rest(pair[0])
    with pytest.raises(PatchCoreError, match=r"'stem' to return a map.*found tuple"):
        Backbone(toy, ["stem", "stage1"], (32, 32))


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
    with pytest.raises(PatchCoreError, match=r"stem\.bias of shape 4, found 7$"):
        backbone.load(state | {"stem.bias": torch.zeros(7)})
    needed = list(backbone.network.state_dict())
    for num_missing, more in ((3, ""), (4, " and 1 more")):
        found = {name: torch.zeros(1) for name in needed[num_missing:]}
        message = rf" {', '.join(needed[:3])}{more} not among the {len(found)} found \("
        with pytest.raises(PatchCoreError, match=message):
            backbone.load(found)


NETWORKS = [
    ("wide_resnet50_2", ["layer2", "layer3"], 43),
    ("mobilenet_v2", ["features.6", "features.13"], 39),
    ("densenet121", ["features.denseblock2", "features.denseblock3"], 43),
    ("efficientnet_b0", ["features.3", "features.5"], 33),
    ("googlenet", ["inception3b", "inception4e"], 45),
    ("shufflenet_v2_x0_5", ["stage2", "stage3"], 41),
    ("squeezenet1_1", ["features.5", "features.10"], 0),
]


@torch.no_grad()
def randomise_batch_norms(network):
    """Give batch norms something to do, as training does."""
    generator = torch.Generator().manual_seed(4)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            shape = module.running_mean.shape
            module.running_mean.copy_(0.1 * torch.randn(shape, generator=generator))
            module.running_var.copy_(0.5 + torch.rand(shape, generator=generator))
            if module.affine:
                module.weight.data.copy_(0.5 + torch.rand(shape, generator=generator))
                module.bias.data.copy_(0.1 * torch.randn(shape, generator=generator))


def check_folding(network, layers, size=(32, 32)):
    """Fold, compare the maps of other images than the trial's; return the backbone and a count."""
    randomise_batch_norms(network)
    backbone = Backbone(network, layers, size)
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        expected = {name: values.clone() for name, values in backbone(images).items()}
        count = fold_batch_norms(backbone)
        maps = backbone(images)
    for name, values in expected.items():
        largest = float(values.abs().max())
        torch.testing.assert_close(maps[name], values, rtol=0, atol=1e-4 * largest)
    assert len(backbone.folded) == count
    return backbone.network, count


@pytest.mark.parametrize(("name", "layers", "count"), NETWORKS)
def test_folds_torchvisions_networks(name, layers, count):
    torch.manual_seed(0)
    network = torchvision.models.get_model(name, weights=None)
    folded, found = check_folding(network, layers, (64, 64))
    assert found == count
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    # DenseNet has norms before an activation: nothing there to fold into.
    assert norms == (44 if name == "densenet121" else 0)


def test_folding_twice_is_folding_once(toy, images):
    backbone = Backbone(toy, ["stage1", "stage2"], (32, 32))
    assert [fold_batch_norms(backbone), fold_batch_norms(backbone)] == [1, 0]


def test_a_folded_layer_is_still_what_was_not_written_over(toy, images):
    """The ReLU after stage1 works in place, now on what the convolution itself gave."""
    randomise_batch_norms(toy)
    backbone = Backbone(toy, ["stage1", "stage2"], (32, 32))
    before = backbone(images)["stage1"]
    fold_batch_norms(backbone)
    assert (before < 0).any()
    torch.testing.assert_close(backbone(images)["stage1"], before, rtol=1e-4, atol=1e-5)


class Pair(nn.Module):
    """A convolution and a batch norm, put together in the way that a test needs.

    After them comes a pair that can always be folded: where it was not, the trial on an image
    took everything back.
    """

    def __init__(self, forward):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.last = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
        self.course = forward

    def forward(self, images):
        return self.last(self.course(self, images))


def by_values(network, images):
    maps = network.conv(images)
    return network.norm(maps) if images.mean() > 100 else maps


COURSES = {
    "plain": (lambda n, x: n.norm(n.conv(x)), 2),
    "output used twice": (lambda n, x: (y := n.conv(x)) + n.norm(y), 1),
    "convolution called twice": (lambda n, x: n.norm(n.conv(n.conv(x))), 1),
    "norm called twice": (lambda n, x: n.norm(n.norm(n.conv(x))), 1),
    "weights used elsewhere": (lambda n, x: n.norm(n.conv(x)) * n.conv.weight.sum(), 1),
    "something in between": (lambda n, x: n.norm(n.conv(x).relu()), 1),
    "something in place in between": (lambda n, x: n.norm(n.conv(x).mul_(-2)), 1),
    "norm first": (lambda n, x: n.conv(n.norm(x)), 1),
    "statistics used elsewhere": (lambda n, x: n.norm(n.conv(x)) + n.norm.running_var.sum(), 0),
    "decides by values": (by_values, 0),
}


@pytest.mark.parametrize("name", COURSES)
def test_folds_only_where_nothing_else_sees_it(name):
    torch.manual_seed(0)
    course, count = COURSES[name]
    assert check_folding(Pair(course), ["last"])[1] == count


def test_a_module_under_two_names_is_not_folded():
    """Replaced under one name it would still be called by the other."""
    torch.manual_seed(0)
    network = Pair(lambda n, x: n.norm(n.same(x)))
    network.same = network.conv
    assert check_folding(network, ["last"])[1] == 1


def test_a_convolution_whose_weights_are_computed_is_not_folded():
    torch.manual_seed(0)
    network = Pair(lambda n, x: n.norm(n.conv(x)))
    nn.utils.parametrizations.weight_norm(network.conv)
    assert check_folding(network, ["last"])[1] == 1


def test_a_convolution_with_a_hook_is_not_folded():
    network = Pair(lambda n, x: n.norm(n.conv(x)))
    network.conv.register_forward_hook(lambda module, inputs, output: output.abs())
    assert check_folding(network, ["last"])[1] == 1


@pytest.mark.parametrize(
    ("layers", "count"),
    [(["conv", "last"], 1), (["norm", "last"], 2), (["conv", "norm", "last"], 1)],
)
def test_a_layer_that_is_read_keeps_its_meaning(layers, count):
    network = Pair(lambda n, x: n.norm(n.conv(x)))
    assert check_folding(network, layers)[1] == count


def test_a_layer_that_ends_with_a_convolution_keeps_its_meaning():
    network = Pair(lambda n, x: n.norm(n.conv(x)))
    network.conv = nn.Sequential(nn.ReLU(), nn.Conv2d(3, 3, 1))
    assert check_folding(network, ["conv", "last"])[1] == 1


def test_a_norm_without_running_statistics_is_not_folded(caplog):
    caplog.set_level(logging.DEBUG)
    network = Pair(lambda n, x: n.norm(n.conv(x)))
    network.norm = nn.BatchNorm2d(3, track_running_stats=False)
    backbone = Backbone(network, ["last"], (32, 32))
    assert fold_batch_norms(backbone) == 1
    assert "1 batch norms of the backbone are folded into convolutions, 1 are not" in caplog.text


def test_a_network_that_comes_out_otherwise_is_left_as_it_was():
    """A look at the norm's type is invisible to the tracer; the trial sees that the maps differ."""

    def looking(network, images):
        maps = network.norm(network.conv(images))
        return maps if isinstance(network.norm, nn.BatchNorm2d) else 2 * maps

    network = Pair(looking)
    randomise_batch_norms(network)
    backbone = Backbone(network, ["last"], (32, 32))
    names = list(backbone.network.state_dict())
    assert fold_batch_norms(backbone) == 0
    assert list(backbone.network.state_dict()) == names
    assert backbone.folded == ()


@pytest.mark.parametrize(("inner", "shown"), [(56, 60), (57, 4)])
def test_a_long_outline_leaves_out_the_inner_modules(inner, shown):
    """At most 60 names: four and the modules inside one of these."""
    names = ["a", "b", "c", "d", *(f"d.{number}" for number in range(inner))]
    expected = ", ".join(names[:shown])
    expected += f", and {inner} modules inside these" if shown == 4 else ""
    assert _outline(names) == expected


def test_at_another_size_it_is_the_same_network(toy):
    backbone = Backbone(toy, ["stage1"], (32, 32))
    backbone.name, backbone.weights, backbone.licence = "toy", "toy.pth", "mit"
    backbone.input = NetworkInput((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    other = backbone.at((64, 32))
    assert (backbone.grids, other.grids) == (((8, 8),), ((16, 8),))
    for name in ("name", "weights", "licence", "input", "folded"):
        assert getattr(other, name) == getattr(backbone, name)
    assert other.digest() == backbone.digest()
    assert other.layout["removed"] == backbone.layout["removed"]
    assert backbone.at((32, 32)) is backbone


def test_outputs_are_equal_to_the_bit_or_not_at_all():
    values = torch.tensor([1.0, torch.nan])
    assert _are_equal(values.clone(), values)
    assert not _are_equal(values + 2**-20, values)
    assert not _are_equal(torch.nextafter(values, torch.tensor(2.0)), values)
    assert not _are_equal(values[:1], values)
    assert not _are_equal(None, values)
