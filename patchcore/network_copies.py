"""Copies of a network that share its weights, or convert them."""

import copy
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

from patchcore.errors import PatchCoreError

_Copied = TypeVar("_Copied")


def copied(
    value: _Copied, network: nn.Module, convert: Callable[[torch.Tensor], torch.Tensor]
) -> _Copied:
    """Copy an object that holds a network; share the weights that ``convert`` returns unchanged.

    Raises:
        PatchCoreError: the object cannot be copied.
    """
    memo: dict[int, object] = {}  # what `copy.deepcopy` takes for copied already
    with torch.no_grad():
        for tensor in (*network.parameters(), *network.buffers()):
            result = convert(tensor)
            if isinstance(tensor, nn.Parameter) and not isinstance(result, nn.Parameter):
                result = nn.Parameter(result, requires_grad=tensor.requires_grad)
            memo[id(tensor)] = result
    for module in network.modules():
        for tensor in vars(module).values():
            # Weights that a hook computes again at each call, which cannot be copied.
            if isinstance(tensor, torch.Tensor) and not tensor.is_leaf:
                memo[id(tensor)] = tensor.detach()
    try:
        return copy.deepcopy(value, memo)
    # A part of a user's network may raise any exception.
    except Exception as error:
        raise PatchCoreError(
            f"expected a backbone that copy.deepcopy can copy, found {type(network).__name__} "
            f"({type(error).__name__}: {error}): add a __deepcopy__ method, or remove the part "
            "that cannot be copied"
        ) from error


def in_float32(network: nn.Module) -> nn.Module:
    """Return a copy of a network in eval mode; weights that are float32 already are shared.

    Raises:
        PatchCoreError: the network cannot be copied.
    """
    return copied(network, network, _in_float32).eval()


def _in_float32(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor
