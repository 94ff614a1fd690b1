"""Layers of every kind of axes, against what the network itself computes at that place."""

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from patchcore import PatchCore, PatchCoreError
from patchcore.backbone import Backbone
from patchcore.feature_axes import other_size
from tests.patchcore.test_model import make_images


def outputs_of(network, layers, images):
    """Return what the network's own modules give."""
    found = {}
    handles = [
        network.get_submodule(layer).register_forward_hook(
            lambda module, inputs, output, layer=layer: found.update({layer: output.clone()})
        )
        for layer in layers
    ]
    with torch.no_grad():
        network.eval()(images)
    for handle in handles:
        handle.remove()
    return found


def check_embeddings(network, layers, size, to_map):
    """Fit a model; compare its embeddings with those of the network's own outputs."""
    images = make_images(2)
    model = PatchCore(
        Backbone(network, layers, size),
        size_resize=size,
        size_crop=size,
        embed_dim=64,
        percentage_coreset=0.5,
    ).fit(images)
    batch = np.stack([model.crop(image) for image in images])
    normalised = model.preprocess.normalise(torch.from_numpy(batch))
    maps = [to_map(output) for output in outputs_of(network, layers, normalised).values()]
    assert model.grid == tuple(maps[0].shape[2:])
    with torch.inference_mode():
        expected = model.embedder.patch_embedding(maps)
    torch.testing.assert_close(model.embedder.embed(batch), expected, rtol=1e-4, atol=1e-4)
    assert model.backbone.channels == tuple(layer_map.shape[1] for layer_map in maps)


@pytest.mark.parametrize("size", [(96, 96), (64, 96)])
def test_swin_t_has_its_channels_last(size):
    torch.manual_seed(0)
    network = torchvision.models.swin_t(weights=None)
    check_embeddings(network, ["features.3", "features.5"], size, lambda o: o.permute(0, 3, 1, 2))
    assert Backbone(network, ["features.3"], size).grids == ((size[0] // 8, size[1] // 8),)


def test_maxvit_t_takes_one_size_only():
    torch.manual_seed(0)
    network = torchvision.models.maxvit_t(weights=None)
    check_embeddings(network, ["blocks.1", "blocks.2"], (224, 224), lambda output: output)


class Blocks(nn.Module):
    """A vision transformer that iterates over its blocks, as timm's forward_intermediates does."""

    def __init__(self, size=(32, 48), prefix=1, says_so=False, any_size=False):
        super().__init__()
        self.patch_embed = nn.Conv2d(3, 8, 8, 8)
        self.prefix = nn.Parameter(torch.randn(1, prefix, 8))
        self.blocks = nn.ModuleList(nn.Linear(8, 8) for _ in range(6))
        self.head = nn.Linear(8, 2)
        self.size = size
        self.any_size = any_size
        if says_so:
            self.num_prefix_tokens = prefix

    def forward(self, images):
        assert self.any_size or images.shape[2:] == self.size, "another size"
        tokens = self.patch_embed(images).flatten(2).mT
        tokens = torch.cat([self.prefix.expand(len(images), -1, -1), tokens], dim=1)
        for block in self.blocks:
            tokens = tokens + block(tokens).tanh()
        return self.head(tokens[:, 0])


@pytest.mark.parametrize("prefix", [0, 1, 3])
@pytest.mark.parametrize("says_so", [False, True])
@pytest.mark.parametrize("any_size", [False, True])
@pytest.mark.parametrize("size", [(32, 32), (32, 48)])
def test_a_vision_transformer_that_iterates_over_its_blocks(prefix, says_so, any_size, size):
    torch.manual_seed(0)
    network = Blocks(size, prefix, says_so, any_size)
    grid = size[0] // 8, size[1] // 8

    def to_map(tokens):
        return tokens[:, prefix:].mT.reshape(len(tokens), 8, *grid)

    check_embeddings(network, ["blocks.1", "blocks.3"], size, to_map)
    backbone = Backbone(network, ["blocks.1", "blocks.3"], size)
    assert backbone.grids == (grid, grid)
    kinds = [type(block) for block in backbone.network.blocks]
    assert kinds == [nn.Linear] * 4 + [nn.Identity] * 2
    assert isinstance(backbone.network.head, nn.Identity)


@pytest.mark.parametrize("prefix", [5, 9])
def test_more_prefix_tokens_than_a_row_are_known_only_from_the_class(prefix):
    """With 9, there are 25 tokens, which is a square."""
    with pytest.raises(PatchCoreError, match=rf"'blocks.1' to return.*\(1, {16 + prefix}, 8\)"):
        Backbone(Blocks((32, 32), prefix), ["blocks.1"], (32, 32))
    said = Blocks((32, 32), prefix, says_so=True)
    assert Backbone(said, ["blocks.1"], (32, 32)).grids == ((4, 4),)


def test_what_the_class_says_comes_first():
    """Of 5 tokens, one for each position of a 2x2 grid and one more, or 4 and a single position."""
    network = Blocks((8, 8), prefix=4, says_so=True)
    assert Backbone(network, ["blocks.1"], (8, 8)).grids == ((1, 1),)


def test_torchvisions_vision_transformer_has_a_class_token():
    torch.manual_seed(0)
    network = torchvision.models.VisionTransformer(32, 8, 2, 2, 16, 32)
    layers = ["encoder.layers.encoder_layer_0", "encoder.layers.encoder_layer_1"]
    check_embeddings(
        network, layers, (32, 32), lambda tokens: tokens[:, 1:].mT.reshape(-1, 16, 4, 4)
    )
    single = torchvision.models.VisionTransformer(16, 16, 2, 2, 16, 32)
    assert Backbone(single, layers, (16, 16)).grids == ((1, 1), (1, 1))


class Gives(nn.Module):
    """Gives whatever a test wants of an image."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.layer = nn.Identity()

    def forward(self, images):
        return self.layer(self.function(images))


def layout_of(function, size=(64, 64)):
    return Backbone(Gives(function), ["layer"], size).layout["layers"][0]


def fixed(*shape, size=(64, 64)):
    """Give zeros of a shape, for images of one size."""

    def function(images):
        assert images.shape[2:] == size, "another size"
        return torch.zeros(len(images), *shape)

    return function


def test_two_sizes_tell_a_cube_apart():
    """Of 64 by 64 pixels both give (1, 16, 16, 16)."""

    def first(images):
        return images[:, :1, ::4, ::4].expand(-1, 16, -1, -1)

    assert layout_of(first)["axes"] == "channels_first"
    last = layout_of(lambda images: first(images).permute(0, 2, 3, 1))
    assert (last["axes"], last["grid"], last["channels"]) == ("channels_last", [16, 16], 16)


@pytest.mark.parametrize(
    ("shape", "size", "axes"),
    [
        ((13, 54, 54), (224, 224), "channels_first"),  # of unpadded convolutions
        ((64, 8, 8), (64, 64), "channels_first"),
        ((8, 8, 64), (64, 64), "channels_last"),
        ((8, 12, 8), (64, 96), "channels_last"),
        ((8, 8, 12), (64, 96), "channels_first"),
        ((13, 7, 7), (100, 100), "channels_first"),
        # Not in proportion: of a stride that does not divide the size, rounded up, then down.
        ((64, 4, 5), (64, 100), "channels_first"),
        ((5, 4, 64), (100, 64), "channels_last"),
        ((64, 5, 9), (64, 100), "channels_first"),
        ((9, 5, 64), (100, 64), "channels_last"),
    ],
)
def test_one_size_is_enough_where_only_one_pair_of_axes_has_its_proportion(shape, size, axes):
    assert layout_of(fixed(*shape, size=size), size)["axes"] == axes


def unpadded(images):
    """Give a grid that is not in the proportion of the image, 6x10 of 64x96."""
    return nn.functional.conv2d(images, torch.ones(7, 3, 20, 20), stride=8)


def test_two_sizes_tell_where_a_grid_is_not_in_proportion():
    first = layout_of(unpadded, (64, 96))
    last = layout_of(lambda images: unpadded(images).permute(0, 2, 3, 1), (64, 96))
    assert (first["axes"], last["axes"]) == ("channels_first", "channels_last")
    assert first["grid"] == last["grid"] == [6, 10]


def test_height_and_width_of_a_small_grid_may_change_by_the_same_number():
    """From 1x1 to 2x2: both sides of the larger image are rounded up to two strides."""
    layout = layout_of(lambda images: images[:, :, ::128, ::128], (128, 128))
    assert (layout["axes"], layout["grid"]) == ("channels_first", [1, 1])


@pytest.mark.parametrize(
    "function",
    [
        lambda images: images.mT[:, :, ::4, ::4],  # width before height
        lambda images: images[:, :, :1, ::4],  # one height for all images
        # More channels, or fewer, for a larger image.
        lambda images: images[:, :1, ::4, ::4].expand(-1, images.shape[2] // 4, -1, -1),
        lambda images: images[:, :1, ::4, ::4].expand(-1, 4096 // images.shape[2], -1, -1),
    ],
)
def test_refuses_a_map_whose_axes_follow_the_image_in_another_way(function):
    with pytest.raises(PatchCoreError, match="cannot determine the axes from the shape"):
        layout_of(function)


@pytest.mark.parametrize("shape", [(8, 8, 8), (5, 9, 3)])
def test_refuses_to_guess(shape):
    with pytest.raises(
        PatchCoreError, match=r"cannot determine the axes from the shape.*64x64.*layers"
    ):
        layout_of(fixed(*shape))


def test_a_second_size_with_other_axes_does_not_count():
    def function(images):
        return images[:, :, ::8, ::8] if images.shape[2] == 64 else images.flatten(2)

    assert layout_of(function)["axes"] == "channels_first"


def test_pooling_to_a_fixed_grid_is_read_by_its_proportion():
    assert layout_of(lambda images: nn.functional.adaptive_avg_pool2d(images, 7))["grid"] == [7, 7]


@pytest.mark.parametrize(
    ("function", "found"),
    [
        (lambda images: images.mean((2, 3)), r"shape \(1, 3\)"),
        (lambda images: images.flatten(2).permute(2, 0, 1), r"shape \(4096, 1, 3\)"),
        (lambda images: (images, images), "tuple"),
    ],
)
def test_refuses_what_is_no_map(function, found):
    with pytest.raises(PatchCoreError, match=rf"'layer' to return a map.*{found}.*\(layers\)"):
        layout_of(function)


@pytest.mark.parametrize(("size", "grid"), [((32, 48), [2, 3]), ((48, 32), [3, 2])])
def test_with_one_size_the_stride_of_tokens_divides_both_sides(size, grid):
    """Stride 16, and no smaller one, fits a side without the other, such as 24 for 48."""
    layout = layout_of(fixed(6, 8, size=size), size)
    assert (layout["axes"], layout["grid"]) == ("tokens", grid)


def test_tokens_that_do_not_follow_the_size_are_refused():
    with pytest.raises(PatchCoreError, match=r"'layer' to return tokens"):
        layout_of(lambda images: torch.zeros(len(images), 65, 8))


@pytest.mark.parametrize(
    ("size", "other"),
    [((224, 224), (160, 96)), ((320, 223), (384, 351)), ((223, 320), (287, 448))],
)
def test_the_second_size_is_the_smaller_one_from_224_pixels(size, other):
    assert other_size(size) == other


@pytest.mark.parametrize("size", [(32, 32), (224, 224), (224, 320), (1024, 256)])
def test_the_second_size_differs_in_both_directions(size):
    height, width = other_size(size)
    assert abs(height - size[0]) < abs(width - size[1])
    assert height % 32 == size[0] % 32
    assert min(height, width) >= min(75, *size)
