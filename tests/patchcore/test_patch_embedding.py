import pytest
import torch
import torch.nn.functional as F

from patchcore import PatchCoreError
from patchcore.patch_embedding import PatchEmbedding


def embed_by_unfold(maps, patch_size, layer_dim, embed_dim, layer_weights=None):
    """The slow twin: section 3.1 of the paper step by step, as its reference code does it."""
    padding = (patch_size - 1) // 2
    grid, vectors = None, []
    for index, layer_map in enumerate(maps):
        batch, channels, height, width = layer_map.shape
        own_grid = tuple(length + 2 * padding - patch_size + 1 for length in (height, width))
        patches = F.unfold(layer_map, patch_size, padding=padding)  # (B, C * p * p, h * w)
        patches = patches.reshape(batch, channels * patch_size**2, *own_grid)
        if grid is None:
            grid = own_grid
        elif own_grid != grid:
            patches = F.interpolate(patches, grid, mode="bilinear", align_corners=False)
        if layer_weights is not None:
            patches = patches * layer_weights[index]
        flat = patches.permute(0, 2, 3, 1).reshape(-1, 1, channels * patch_size**2)
        vectors.append(F.adaptive_avg_pool1d(flat, layer_dim))
    joined = torch.cat(vectors, dim=2)
    return F.adaptive_avg_pool1d(joined, embed_dim).reshape(batch, *grid, embed_dim)


def make_maps(channels, grids, seed=0, channels_last=True):
    generator = torch.Generator().manual_seed(seed)
    memory = torch.channels_last if channels_last else torch.contiguous_format
    return [
        torch.rand(2, count, *grid, generator=generator).mul_(20).contiguous(memory_format=memory)
        for count, grid in zip(channels, grids, strict=True)
    ]


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize(
    ("channels", "grids", "patch_size", "layer_dim", "embed_dim"),
    [
        pytest.param((512, 1024), [(28, 28), (14, 14)], 3, 1024, 1024, id="wide_resnet50_2"),
        pytest.param((32, 96), [(28, 28), (14, 14)], 3, 1024, 1024, id="pooling enlarges"),
        pytest.param((24, 96), [(28, 28), (14, 14)], 3, 1024, 1024, id="mobilenet_v2"),
        pytest.param((65, 64), [(6, 6), (3, 3)], 3, 100, 90, id="around the full convolution"),
        pytest.param((7, 5, 11), [(9, 7), (5, 4), (3, 2)], 3, 10, 17, id="nothing divides"),
        pytest.param((64, 128), [(12, 12), (6, 6)], 5, 100, 99, id="a bin spans two layers"),
        pytest.param((16, 32), [(12, 12), (6, 6)], 2, 64, 64, id="even patch size"),
        pytest.param((6, 4), [(5, 5), (3, 3)], 1, 3, 2, id="no neighbourhood"),
        pytest.param((256, 512, 1024), [(8, 8), (4, 4), (2, 2)], 3, 1024, 1024, id="three layers"),
        pytest.param((40,), [(6, 6)], 3, 16, 8, id="one layer"),
        pytest.param((3, 5), [(4, 4), (8, 8)], 3, 4, 4, id="second map larger"),
    ],
)
def test_equals_unfolding(channels, grids, patch_size, layer_dim, embed_dim, channels_last):
    maps = make_maps(channels, grids, channels_last=channels_last)
    embeddings = PatchEmbedding(channels, patch_size, layer_dim, embed_dim)(maps)
    expected = embed_by_unfold(maps, patch_size, layer_dim, embed_dim)
    assert embeddings.shape == expected.shape
    assert embeddings.is_contiguous()
    torch.testing.assert_close(embeddings, expected, rtol=1e-5, atol=1e-5)


def test_default_kernels_are_those_worked_out_by_hand():
    """512 channels x 9 in 1024 bins, then pairs of bins: the middle of nine counts twice."""
    embedding = PatchEmbedding((512, 1024))
    first, second = (layer.kernel for layer in embedding.layers)
    by_hand = torch.tensor([[1, 1, 1], [1, 2, 1], [1, 1, 1.0]]) / 10
    torch.testing.assert_close(first, by_hand.expand(512, 1, 3, 3))
    torch.testing.assert_close(second, torch.full((1024, 1, 3, 3), 1 / 18))


def test_layer_weights_scale_each_layers_part():
    channels, grids = (8, 6), [(6, 6), (3, 3)]
    maps = make_maps(channels, grids)
    weights = [0.5, 3.0]
    embeddings = PatchEmbedding(channels, 3, 10, 7, layer_weights=weights)(maps)
    torch.testing.assert_close(embeddings, embed_by_unfold(maps, 3, 10, 7, weights))


def test_takes_maps_by_name_too():
    maps = make_maps((8, 6), [(6, 6), (3, 3)])
    embedding = PatchEmbedding((8, 6), 3, 10, 7)
    by_name = embedding({"layer2": maps[0], "layer3": maps[1]})
    assert torch.equal(by_name, embedding(maps))


def test_does_not_change_the_maps():
    maps = make_maps((8, 6), [(6, 6), (3, 3)])
    copies = [layer_map.clone() for layer_map in maps]
    PatchEmbedding((8, 6), 3, 10, 7)(maps)
    assert all(torch.equal(a, b) for a, b in zip(maps, copies, strict=True))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": ()}, "positive numbers"),
        ({"channels": (8, 0)}, "positive numbers"),
        ({"channels": (8,), "patch_size": 0}, "patch_size 0"),
        ({"channels": (8,), "embed_dim": 0}, "embed_dim 0"),
        ({"channels": (8, 6), "layer_weights": [1.0]}, "each of 2 layers"),
    ],
)
def test_refuses_what_cannot_be(arguments, message):
    with pytest.raises(PatchCoreError, match=message):
        PatchEmbedding(**arguments)


def test_refuses_a_wrong_number_of_maps():
    with pytest.raises(PatchCoreError, match="expected 2 maps, found 1"):
        PatchEmbedding((8, 6))(make_maps((8,), [(6, 6)]))
