"""What later layers need is removed, where nothing but the time that it takes changes."""

import pytest
import torch
import torchvision
from torch import nn

from patchcore.backbone import Backbone

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


class Stages(nn.Module):
    """Convolutions in a list, put together in the way that a test needs."""

    def __init__(self, forward):
        super().__init__()
        self.stages = nn.ModuleList(nn.Conv2d(3, 3, 3, padding=1) for _ in range(6))
        self.head = nn.Linear(3, 2)
        self.course = forward

    def forward(self, images):
        return self.head(self.course(self, images).mean((2, 3)))


def by_iteration(network, x):
    for stage in network.stages:
        x = stage(x)
    return x


def by_index(network, x):
    for number in range(len(network.stages)):
        x = network.stages[number](x)
    return x


def with_the_last_weights(network, x):
    """The last stage is not called, but its weights are used before."""
    x = x + network.stages[5].weight.sum()
    return by_iteration(network, x)


def with_two_of_them(network, x):
    x = x + network.stages[3].weight.sum() + network.stages[5].bias.sum()
    return by_iteration(network, x)


@pytest.mark.parametrize(
    ("course", "kept"),
    [
        (by_iteration, ()),
        (by_index, ()),
        (with_the_last_weights, (5,)),
        (with_two_of_them, (3, 5)),
    ],
)
def test_removes_only_what_changes_nothing(course, kept, caplog):
    torch.manual_seed(0)
    network = Stages(course).eval()
    expected = []
    handle = network.stages[1].register_forward_hook(lambda m, i, o: expected.append(o))
    network(IMAGES)
    handle.remove()
    backbone = Backbone(network, ["stages.1"], (32, 32))
    assert torch.equal(backbone(IMAGES)["stages.1"], expected[0])
    kinds = [type(stage) for stage in backbone.network.stages]
    assert kinds == [nn.Conv2d if n < 2 or n in kept else nn.Identity for n in range(6)]
    assert isinstance(backbone.network.head, nn.Identity)
    if kept:
        names = ", ".join(f"stages.{number}" for number in kept)
        share = f"{84 * len(kept)} of its {84 * (2 + len(kept))} parameters"
        assert f"the backbone keeps {names}, which" in caplog.text
        assert share in caplog.text
        assert f"({100 * len(kept) / (2 + len(kept)):.0f} %)" in caplog.text
    else:
        assert "keeps" not in caplog.text


def test_a_part_whose_removal_changes_a_map_without_an_error_stays():
    """Identities have no parameters, which this network counts."""

    def course(network, x):
        return by_iteration(network, x + sum(p.numel() for p in network.stages[4].parameters()))

    backbone = Backbone(Stages(course), ["stages.1"], (32, 32))
    assert isinstance(backbone.network.stages[4], nn.Conv2d)
    assert isinstance(backbone.network.stages[5], nn.Identity)


def test_a_part_that_another_method_uses_stays():
    class Wrapper(nn.Module):
        """Calls its network's method, not the network."""

        def __init__(self):
            super().__init__()
            self.wrapped = Stages(by_iteration)
            self.last = nn.Conv2d(3, 4, 1)

        def forward(self, images):
            return self.last(self.wrapped.course(self.wrapped, images))

    backbone = Backbone(Wrapper(), ["wrapped.stages.2", "last"], (32, 32))
    assert backbone(IMAGES)["last"].shape == (2, 4, 32, 32)
    assert isinstance(backbone.network.wrapped.head, nn.Identity)


@pytest.mark.parametrize("last_layer", ["0", "1"])
def test_a_part_whose_call_came_to_its_end_stays_whole(last_layer):
    """Its weights belong to the digest of saved models."""

    class TwoOfThree(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = nn.ModuleList(nn.Conv2d(3, 3, 1) for _ in range(3))

        def forward(self, images):
            return self.parts[1](self.parts[0](images))

    network = nn.Sequential(TwoOfThree(), nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1))
    backbone = Backbone(network, [last_layer], (32, 32))
    assert [type(part) for part in backbone.network[0].parts] == [nn.Conv2d] * 3
    assert isinstance(backbone.network[2], nn.Identity)


def test_a_list_of_parts_that_are_called_by_other_names():
    """The list comes first, so the blocks bear its names, and no module of it is called."""

    class Listed(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Conv2d(3, 3, 1)
            self.second = nn.Conv2d(3, 3, 1)
            self.every = nn.ModuleList([self.first, self.second])

        def forward(self, images):
            for part in self.every:
                images = part(images)
            return images

    backbone = Backbone(Listed(), ["first"], (32, 32))
    assert backbone(IMAGES)["first"].shape == (2, 3, 32, 32)


def test_maxvit_t_is_cut():
    torch.manual_seed(0)
    network = torchvision.models.maxvit_t(weights=None)
    backbone = Backbone(network, ["blocks.0"], (224, 224))
    kinds = [type(block).__name__ for block in backbone.network.blocks]
    assert kinds == ["MaxVitBlock", "Identity", "Identity", "Identity"]
    assert isinstance(backbone.network.classifier, nn.Identity)
