"""Which axes of a layer's output are the grid, and which is the channels.

Networks do not say. Most give maps (B, C, h, w), Swin Transformers (B, h, w, C), and vision
transformers tokens (B, T, C). A map read along the wrong axes gives a model that trains and then
points to the wrong places, so the axes are measured: images of two sizes show which axes follow
the height and the width. Where a network takes only one size, the grid is the pair of axes in
proportion to that size. Where this does not decide, it is an error.
"""

import torch
from torch import nn
from torchvision.models import VisionTransformer

from patchcore.errors import PatchCoreError
from patchcore.layout import CHANNELS_FIRST, CHANNELS_LAST, TOKENS, LayerLayout

_Shape = tuple[int, ...]
_Size = tuple[int, int]  # (height, width)

# Axes of the height, the width and the channels.
_MAP_AXES = {CHANNELS_FIRST: (2, 3, 1), CHANNELS_LAST: (1, 2, 3)}
# Divisible by the usual strides, and different, so that height and width can be told apart.
_SIZE_STEPS = (64, 128)
# Images of at least this size are made smaller rather than larger, which takes less time. Some
# networks take no fewer than 75 pixels.
_SHRINK_FROM = 224


def other_size(size: _Size) -> _Size:
    """Return a second size to measure at; height and width change by different amounts."""
    sign = -1 if min(size) >= _SHRINK_FROM else 1
    return size[0] + sign * _SIZE_STEPS[0], size[1] + sign * _SIZE_STEPS[1]


def read_axes(
    network: nn.Module,
    layer: str,
    output: torch.Tensor,
    size: _Size,
    second_shape: _Shape | None,
    *,
    overwritten: bool,
) -> LayerLayout:
    """Find out what the axes of a layer's output are.

    Args:
        network: The network; its class may say how many prefix tokens there are.
        layer: The layer's name.
        output: What the layer gives for one image.
        size: (H, W) in pixels of that image.
        second_shape: Shape of the output for one image of `other_size`; None if the network does
            not take such an image.
        overwritten: As in `LayerLayout`.

    Raises:
        PatchCoreError: the output is no map, or its axes cannot be told apart.
    """
    shape = _checked_shape(layer, output)
    if second_shape is not None and len(second_shape) != len(shape):
        second_shape = None
    if len(shape) == 4:
        axes = _map_axes(layer, shape, size, second_shape)
        height, width, channels = _MAP_AXES[axes]
        grid = shape[height], shape[width]
        return LayerLayout(layer, axes, 0, shape[channels], grid, overwritten)
    prefix, grid = _token_grid(network, layer, shape, size, second_shape)
    return LayerLayout(layer, TOKENS, prefix, shape[2], grid, overwritten)


def _checked_shape(layer: str, output: object) -> _Shape:
    is_tensor = isinstance(output, torch.Tensor)
    if is_tensor and output.ndim in (3, 4) and output.shape[0] == 1:
        return tuple(output.shape)
    found = f"shape {tuple(output.shape)} for one image" if is_tensor else type(output).__name__
    raise PatchCoreError(
        f"expected layer {layer!r} to return a map (B, C, h, w) or (B, h, w, C), or tokens "
        f"(B, T, C), found {found} (layers)"
    )


def _map_axes(layer: str, shape: _Shape, size: _Size, second_shape: _Shape | None) -> str:
    """Return the order of the axes of a map."""
    if second_shape is not None and second_shape != shape:
        possible = [axes for axes in _MAP_AXES if _follows(shape, second_shape, size, axes)]
    else:
        possible = [axes for axes in _MAP_AXES if _in_proportion(shape, size, axes)]
    if len(possible) != 1:
        raise PatchCoreError(
            f"expected layer {layer!r} to return a map (B, C, h, w) or (B, h, w, C), cannot "
            f"determine the axes from the shape {shape} for an image of {size[0]}x{size[1]} "
            "pixels: choose another layer (layers)"
        )
    return possible[0]


def _follows(shape: _Shape, second_shape: _Shape, size: _Size, axes: str) -> bool:
    """Return whether the grid changes as the size of the image does, and the channels do not."""
    sign = 1 if other_size(size) > size else -1
    height, width, channels = (
        sign * (second_shape[axis] - shape[axis]) for axis in _MAP_AXES[axes]
    )
    return 0 < height <= width and channels == 0


def _in_proportion(shape: _Shape, size: _Size, axes: str) -> bool:
    """Return whether the grid is the size of the image divided by one number."""
    height, width, _ = _MAP_AXES[axes]
    grid = shape[height], shape[width]
    return grid[0] * size[1] == grid[1] * size[0] or any(
        grid in (_grid(size, stride), (-(-size[0] // stride), -(-size[1] // stride)))
        for stride in range(1, max(size) + 1)
    )


def _grid(size: _Size, stride: int) -> _Size:
    return size[0] // stride, size[1] // stride


def _token_grid(
    network: nn.Module, layer: str, shape: _Shape, size: _Size, second_shape: _Shape | None
) -> tuple[int, _Size]:
    """Return how many tokens come before those of the grid, and the grid's (h, w)."""
    prefixes: dict[_Size, int] = {}  # of each possible grid, the largest grid first
    for stride in range(1, min(size) + 1):
        prefix = shape[1] - _num_positions(size, stride)
        if second_shape is None:
            is_possible = size[0] % stride == size[1] % stride == 0
        else:
            is_possible = second_shape == _tokens_at_second(size, stride, prefix, shape)
        if is_possible and prefix >= 0:
            prefixes[_grid(size, stride)] = prefix
    known = _known_prefix(network, layer)
    by_class = {grid: prefix for grid, prefix in prefixes.items() if prefix == known}
    grid, prefix = next(iter((by_class or prefixes).items()), ((0, 0), 0))
    # Prefix tokens are few. As many as a row of the grid mean that there is no such grid.
    if not by_class and prefix >= min(grid):
        raise PatchCoreError(
            f"expected layer {layer!r} to return tokens (B, T, C), a few and one for each position "
            f"of a grid, found the shape {shape} for an image of {size[0]}x{size[1]} pixels: "
            "choose another layer (layers)"
        )
    return prefix, grid


def _known_prefix(network: nn.Module, layer: str) -> int | None:
    """Return the number of prefix tokens that the innermost vision transformer says it has."""
    parts = layer.split(".")
    for depth in range(len(parts), -1, -1):
        module = network.get_submodule(".".join(parts[:depth]))
        if isinstance(module, VisionTransformer):
            return 1
        if isinstance(getattr(module, "num_prefix_tokens", None), int):  # as timm's have it
            return module.num_prefix_tokens
    return None


def _num_positions(size: _Size, stride: int) -> int:
    height, width = _grid(size, stride)
    return height * width


def _tokens_at_second(size: _Size, stride: int, prefix: int, shape: _Shape) -> _Shape:
    """Return the shape that tokens of a grid with this stride have at the second size."""
    return shape[0], prefix + _num_positions(other_size(size), stride), shape[2]
