"""The norm that a vision transformer applies to its tokens after the last block."""

from collections.abc import Sequence

from torch import nn

from patchcore.errors import PatchCoreError
from patchcore.layout import TOKENS, LayerLayout

# Names of the norm in the networks of timm and DINOv2, of torchvision, and of transformers.
NAMES = ("norm", "ln", "layernorm")


def find_norm(network: nn.Module, layers: Sequence[LayerLayout]) -> str:
    """Return the name of the final norm for tokens of these layers.

    Raises:
        PatchCoreError: a layer does not give tokens, or the network has no such norm.
    """
    for layer in layers:
        if layer.axes != TOKENS:
            raise PatchCoreError(
                f"expected layers of a vision transformer, which give tokens, for norm_tokens, "
                f"found {layer.name!r}, which gives a map (norm_tokens, layers)"
            )
    found = {_norm_around(network, layer) for layer in layers}
    if len(found) != 1 or "" in found:
        raise PatchCoreError(
            "expected a vision transformer with one final norm for norm_tokens, found "
            f"{', '.join(sorted(filter(None, found))) or 'none'} (norm_tokens)"
        )
    return found.pop()


def _norm_around(network: nn.Module, layer: LayerLayout) -> str:
    """Return the outermost norm of a layer's number of channels; empty if there is none."""
    parts = layer.name.split(".")
    for depth in range(len(parts)):
        holder = network.get_submodule(".".join(parts[:depth]))
        for name in NAMES:
            weight = getattr(getattr(holder, name, None), "weight", None)
            if weight is not None and tuple(weight.shape) == (layer.channels,):
                return ".".join([*parts[:depth], name])
    return ""
