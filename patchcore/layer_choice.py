"""Choice of the layers of a network for which none are given."""

import logging
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress

import torch
from torch import nn

from patchcore.backbone import trial_images
from patchcore.errors import PatchCoreError
from patchcore.feature_axes import other_size, read_axes
from patchcore.layout import TOKENS, LayerLayout
from patchcore.network_copies import in_float32

# Strides of layer2 and layer3 of a ResNet, the layers of the paper.
STRIDES = (8, 16)
# Fewer modules of one kind in a row are no blocks of a vision transformer.
MIN_BLOCKS = 2

log = logging.getLogger(__name__)


def choose_layers(network: nn.Module, size: tuple[int, int]) -> tuple[str, ...]:
    """Choose two layers, and log them.

    Of a network with stages, these are the last modules of stride 8 and 16 (section 3.1 of the
    paper); of a vision transformer, the blocks at two thirds and at the end.

    Args:
        network: Called with (B, 3, H, W) float32. It is not changed.
        size: (H, W) in pixels of the images.

    Raises:
        PatchCoreError: the network has neither, or does not take such images.
    """
    outputs = _outputs(in_float32(network), size)
    stages, blocks = _stages(outputs, size), _blocks(network, outputs)
    depth = min((name.count(".") for name in stages), default=0)
    is_transformer = blocks and (len(stages) < len(STRIDES) or blocks[0].count(".") < depth)
    if is_transformer:
        layers, reason = (blocks[2 * len(blocks) // 3], blocks[-1]), "blocks at two thirds and last"
    else:
        layers, reason = stages, f"stages of stride {' and '.join(map(str, STRIDES))}"
    if not layers:
        raise PatchCoreError(
            "expected the names of layers for this network, found none (layers): it has neither "
            f"maps of stride {' or '.join(map(str, STRIDES))} nor blocks of tokens. Its modules: "
            f"{', '.join(name for name, _ in network.named_children())}"
        )
    layers = tuple(dict.fromkeys(layers))
    log.info("layers: %s (%s; --layers selects others)", " ".join(layers), reason)
    return layers


def _outputs(network: nn.Module, size: tuple[int, int]) -> dict[str, LayerLayout]:
    """Return the modules that give maps or tokens for an image, in order of their computation."""
    found = {}
    # In this order: some networks keep what they computed for a size.
    shapes, second_shapes = _shapes(network, size), _shapes(network, other_size(size))
    for name, shape in shapes.items():
        output, second = torch.empty(shape, device="meta"), second_shapes.get(name)
        with suppress(PatchCoreError):  # neither a map nor tokens
            found[name] = read_axes(network, name, output, size, second, overwritten=False)
    return found


@torch.no_grad()
def _shapes(network: nn.Module, size: tuple[int, int]) -> dict[str, tuple[int, ...]]:
    """Run the network on a trial image; return the shapes of the modules' outputs, in order."""
    shapes: dict[str, tuple[int, ...]] = {}

    def note(name: str, output: object) -> None:
        shapes.pop(name, None)  # of several calls, the last one counts
        if isinstance(output, torch.Tensor):
            shapes[name] = tuple(output.shape)

    handles = [
        module.register_forward_hook(lambda m, i, output, name=name: note(name, output))
        for name, module in network.named_modules()
        if name
    ]
    try:
        network(trial_images(network, size))
    # A user's network may raise any exception. `Backbone` reports a size that it does not take.
    except Exception as error:
        log.debug("the backbone does not take images of %s pixels: %s", size, error)
    finally:
        for handle in handles:
            handle.remove()
    return shapes


def _stages(outputs: Mapping[str, LayerLayout], size: tuple[int, int]) -> tuple[str, ...]:
    """Return the last of the outermost modules of each stride; a stride may be missing."""
    stages: list[str] = []
    for stride in STRIDES:
        names = [
            name
            for name, layout in outputs.items()
            if layout.axes != TOKENS and _stride(layout, size) == stride
        ]
        # Modules with the parent of the first stage come first: a classifier may have maps with the
        # stride of a late stage.
        siblings = [name for name in names if stages and _holder(name) == _holder(stages[0])]
        if outermost := _outermost(siblings or names):
            stages.append(outermost[-1])
    return tuple(stages)


def _blocks(network: nn.Module, outputs: Mapping[str, LayerLayout]) -> list[str]:
    """Return the blocks of a vision transformer: the outermost group of modules of one kind."""

    def group(name: str) -> tuple[object, ...]:
        layout = outputs[name]
        kind = type(network.get_submodule(name))
        return _holder(name), kind, layout.grid, layout.channels

    # A block has parts; a norm or an identity next to the blocks has none.
    tokens = [
        name
        for name, layout in outputs.items()
        if layout.axes == TOKENS and any(network.get_submodule(name).children())
    ]
    sizes = Counter(map(group, tokens))
    grouped = [name for name in tokens if sizes[group(name)] >= MIN_BLOCKS]
    outermost = _outermost(grouped)
    largest = max(outermost, key=lambda name: sizes[group(name)], default="")
    return [name for name in outermost if group(name) == group(largest)]


def _outermost(names: Iterable[str]) -> list[str]:
    names = list(names)
    depth = min((name.count(".") for name in names), default=0)
    return [name for name in names if name.count(".") == depth]


def _holder(name: str) -> str:
    return name.rpartition(".")[0]


def _stride(layout: LayerLayout, size: tuple[int, int]) -> int:
    """Return the power of 2 nearest to a layer's stride."""
    pixels_per_position = math.prod(size) / math.prod(layout.grid)
    return 2 ** round(math.log2(pixels_per_position) / 2)
