"""Layers that are read where none are given, for networks of torchvision and others."""

import logging

import pytest
import torch
import torchvision
from torch import nn

from patchcore import PatchCoreError
from patchcore.formulanet import LAYERS
from patchcore.layer_choice import choose_layers
from patchcore.patch_grid import nearest_sizes
from patchcore.weights import default_layers, load_backbone
from tests.patchcore.test_contract import tiny_vit

SIZE = (64, 96)


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("densenet121", ("features.denseblock2", "features.denseblock3")),
        ("mobilenet_v2", ("features.6", "features.13")),
        ("regnet_y_400mf", ("trunk_output.block2", "trunk_output.block3")),
        ("shufflenet_v2_x0_5", ("stage2", "stage3")),
        # Its classifier has maps too.
        ("squeezenet1_1", ("features.7", "features.12")),
        ("swin_t", ("features.3", "features.5")),
        pytest.param("vgg11", ("features.14", "features.19"), marks=pytest.mark.slow),
    ],
)
def test_stages_of_stride_8_and_16(name, layers):
    network = torchvision.models.get_model(name, weights=None)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    assert choose_layers(network, (128, 192)) == layers
    assert network.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_blocks_of_a_vision_transformer():
    assert choose_layers(tiny_vit(), (32, 32)) == ("encoder.layers.encoder_layer_1",)
    larger = torchvision.models.VisionTransformer(32, 8, 6, 2, 16, 32)
    expected = ("encoder.layers.encoder_layer_4", "encoder.layers.encoder_layer_5")
    assert choose_layers(larger, (32, 32)) == expected


def test_are_logged(caplog):
    with caplog.at_level(logging.INFO):
        load_backbone("mobilenet_v2", (), "random", size=SIZE)
    assert caplog.text.count("layers: features.6 features.13 (stages of stride 8 and 16; ") == 1


def test_the_papers_layers_need_no_choice():
    for name in ("wide_resnet50_2", "resnet18", "resnext50_32x4d"):
        assert default_layers(name) == ("layer2", "layer3")
    assert default_layers("formulanet") == LAYERS
    for name in ("swin_t", "timm:resnet50", "my.nets:resnet50"):
        assert default_layers(name) == ()


def test_a_network_without_stages_is_refused():
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 96, 4))
    with pytest.raises(PatchCoreError, match=r"names of layers .*\(layers\).* modules: 0, 1"):
        choose_layers(network, SIZE)


def test_repeated_blocks_of_maps_are_no_transformer():
    blocks = [nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.ReLU()) for _ in range(6)]
    with pytest.raises(PatchCoreError, match="neither maps of stride 8 or 16 nor blocks of tokens"):
        choose_layers(nn.Sequential(*blocks), SIZE)


def test_of_several_calls_of_a_module_the_last_one_counts():
    twice = nn.Identity()
    network = nn.Sequential(twice, nn.MaxPool2d(8), nn.Identity(), twice, nn.MaxPool2d(2))
    assert choose_layers(network, SIZE) == ("0", "4")


class Patches(nn.Module):
    def __init__(self, patch_size):
        super().__init__()
        self.embed = nn.Linear(1, 1)
        self.embed.patch_size = patch_size


@pytest.mark.parametrize(
    ("patch_size", "size", "expected"),
    [
        (14, (224, 224), ""),
        (14, (230, 230), "fit are 224 224 or 238 238 ("),
        (14, (224, 225), "fit are 224 224 or 224 238 ("),
        (14, (225, 224), "fit are 224 224 or 238 224 ("),
        ((16, 8), (100, 100), "16x8 pixels; the nearest sizes that fit are 96 96 or 112 104 ("),
        ((16, 8), (24, 16), "nearest sizes that fit are 16 16 or 32 16 ("),
        (16, (5, 32), "fit are 16 32 or 32 32 ("),
        ("large", (5, 32), ""),
        (0, (5, 32), ""),
    ],
)
def test_nearest_sizes(patch_size, size, expected):
    found = nearest_sizes(Patches(patch_size), size)
    assert expected in found
    assert bool(expected) == bool(found)


class Block(nn.Module):
    """A block of a transformer, as far as its outside tells."""

    def __init__(self):
        super().__init__()
        self.part = nn.Identity()

    def forward(self, tokens):
        return self.part(tokens)


class Hybrid(nn.Module):
    """Stages, then a transformer: its blocks lie as deep as the stages, or deeper."""

    def __init__(self, blocks_are_inside):
        super().__init__()
        self.early = nn.Conv2d(3, 4, 8, 8)
        self.late = nn.Conv2d(4, 4, 2, 2)
        blocks = [Block() for _ in range(6)]
        self.inside = blocks_are_inside
        if blocks_are_inside:
            self.blocks = nn.ModuleList(blocks)
        else:
            for number, block in enumerate(blocks):
                self.add_module(f"block{number}", block)

    def forward(self, images):
        tokens = self.late(self.early(images)).flatten(2).mT
        blocks = self.blocks if self.inside else [getattr(self, f"block{n}") for n in range(6)]
        for block in blocks:
            tokens = block(tokens)
        return tokens


@pytest.mark.parametrize("blocks_are_inside", [False, True])
def test_stages_come_first_where_blocks_are_not_further_outside(blocks_are_inside):
    assert choose_layers(Hybrid(blocks_are_inside), SIZE) == ("early", "late")
