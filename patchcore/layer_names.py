"""The names of a network's modules, and of the layers to read among them."""

from collections.abc import Collection, Sequence

import torch
from torch import nn

from patchcore.errors import PatchCoreError, did_you_mean


def check_layers(network: nn.Module, layers: Sequence[str]) -> None:
    """Check a network and the names of the layers to read.

    Raises:
        PatchCoreError: it is no module, or a scripted one; or the names are no list of different
            names of its modules.
    """
    if not isinstance(network, nn.Module) or isinstance(network, torch.jit.ScriptModule):
        raise PatchCoreError(
            "expected a network that is a torch.nn.Module, neither scripted nor traced, found "
            f"{type(network).__name__} (backbone)"
        )
    is_several = isinstance(layers, Collection) and not isinstance(layers, str)
    if not is_several or not all(isinstance(layer, str) for layer in layers):
        raise PatchCoreError(f"expected layers as a list of names, found {layers!r} (layers)")
    names = [name for name, _ in network.named_modules() if name]
    if not layers or len(set(layers)) != len(layers):
        found = ", ".join(layers) or "none"
        raise PatchCoreError(f"expected one or more different layers, found {found} (layers)")
    for layer in layers:
        if layer not in names:
            raise PatchCoreError(
                f"expected layers of the backbone ({_outline(names)}), found {layer!r} (layers)"
                f"{did_you_mean(layer, names)}"
            )


def _outline(names: Sequence[str], longest: int = 60) -> str:
    """List module names; inner modules are left out where there are too many for a message."""
    depth = max((name.count(".") for name in names), default=0)
    while depth and sum(name.count(".") <= depth for name in names) > longest:
        depth -= 1
    shown = [name for name in names if name.count(".") <= depth]
    inner = len(names) - len(shown)
    return ", ".join(shown) + (f", and {inner} modules inside these" if inner else "")
