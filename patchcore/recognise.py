"""Which network weights belong to, for the error about weights of another one."""

from collections.abc import Mapping

import torch
import torchvision
from torch import nn

from patchcore.formulanet import FORMULANET, FormulaNet

# The head for other classes than those of ImageNet: tensors of another shape, and their share.
HEAD_TENSORS, HEAD_SHARE = 2, 0.2


def fitting_networks(state: Mapping[str, torch.Tensor]) -> list[str]:
    """Return the names of formulanet and torchvision's networks that have all these weights.

    Only networks of about the same number of parameters are built, which takes a second or two.
    """
    total = sum(tensor.numel() for tensor in state.values())
    found = [FORMULANET] if _has_all(FormulaNet(), state) else []
    for name in torchvision.models.list_models(module=torchvision.models):
        count = torchvision.models.get_model_weights(name).DEFAULT.meta["num_params"]
        if abs(total - count) <= HEAD_SHARE * count:
            network = torchvision.models.get_model(name, weights=None)
            found += [name] if _has_all(network, state) else []
    return found


def _has_all(network: nn.Module, state: Mapping[str, torch.Tensor]) -> bool:
    own = network.state_dict()
    if not own.keys() >= state.keys():
        return False
    return sum(own[name].shape != state[name].shape for name in state) <= HEAD_TENSORS
