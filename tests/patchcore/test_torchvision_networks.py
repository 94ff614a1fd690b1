"""Every classification network of the installed torchvision, with random weights."""

import re

import pytest
import torch
import torchvision
from torch import nn

from patchcore.backbone import Backbone

# Two layers of each family, at about an eighth and a sixteenth of the image.
LAYERS = {
    r"alexnet": ["features.2", "features.5"],
    r"convnext_.*": ["features.3", "features.5"],
    r"densenet.*": ["features.denseblock2", "features.denseblock3"],
    r"efficientnet_.*": ["features.3", "features.5"],
    r"googlenet": ["inception3b", "inception4e"],
    r"inception_v3": ["Mixed_5d", "Mixed_6e"],
    r"maxvit_t": ["blocks.1", "blocks.2"],
    r"mnasnet.*": ["layers.9", "layers.11"],
    r"mobilenet_v2": ["features.6", "features.13"],
    r"mobilenet_v3_large": ["features.6", "features.12"],
    r"mobilenet_v3_small": ["features.3", "features.8"],
    r"regnet_.*": ["trunk_output.block2", "trunk_output.block3"],
    r"(wide_)?resne.*": ["layer2", "layer3"],
    r"shufflenet_.*": ["stage2", "stage3"],
    r"squeezenet.*": ["features.5", "features.10"],
    r"swin_.*": ["features.3", "features.5"],
    r"vgg.*": ["features.10", "features.17"],
    r"vit_.*": ["encoder.layers.encoder_layer_3", "encoder.layers.encoder_layer_7"],
}
TAKE_ONE_SIZE = r"(maxvit|vit)_.*"
NAMES = torchvision.models.list_models(module=torchvision.models)


def layers_of(name: str) -> list[str]:
    return next(layers for pattern, layers in LAYERS.items() if re.fullmatch(pattern, name))


def to_map(name: str, output: torch.Tensor) -> torch.Tensor:
    """Return (B, C, h, w), from what torchvision's source says of its layers."""
    if name.startswith("swin"):
        return output.permute(0, 3, 1, 2)
    if name.startswith("vit"):
        side = round((output.shape[1] - 1) ** 0.5)
        return output[:, 1:].mT.reshape(len(output), -1, side, side)
    return output


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The default weight initialization")
@pytest.mark.parametrize("name", NAMES)
def test_gives_the_maps_that_the_network_itself_computes(name):
    torch.manual_seed(0)
    network = torchvision.models.get_model(name, weights=None).eval()
    layers = layers_of(name)
    size = (224, 224) if re.fullmatch(TAKE_ONE_SIZE, name) else (96, 128)
    images = torch.randn(1, 3, *size)
    expected = {}
    for layer in layers:
        network.get_submodule(layer).register_forward_hook(
            lambda module, inputs, output, layer=layer: expected.update({layer: output.clone()})
        )
    with torch.no_grad():
        network(images)
        for layer in layers:
            network.get_submodule(layer)._forward_hooks.clear()
        num_parameters = sum(parameter.numel() for parameter in network.parameters())
        backbone = Backbone(network, layers, size)
        maps = backbone(images)
    assert list(maps) == layers
    for layer, grid in zip(layers, backbone.grids, strict=True):
        wanted = to_map(name, expected[layer])
        assert tuple(wanted.shape[2:]) == grid
        assert grid[0] * size[1] == pytest.approx(grid[1] * size[0], rel=0.2)
        # To the bit, also where random weights give values that are not numbers.
        torch.testing.assert_close(maps[layer], wanted, rtol=0, atol=0, equal_nan=True)
    assert sum(parameter.numel() for parameter in backbone.parameters()) < num_parameters
    assert not isinstance(backbone.network.get_submodule(layers[-1]), nn.Identity)
