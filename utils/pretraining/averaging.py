"""Weights of several trainings as one network's: their average.

The mean of networks that began from one another has the errors of none in full. On procedural
categories the shipped weights are better than each of the four that they are the mean of.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import nn


def average_states(states: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Return the mean of state dicts, in float32; names that are not floating-point are left out.

    Args:
        states: One at least, all with the same names and shapes.
    """
    return {
        name: torch.stack([state[name].float() for state in states]).mean(0)
        for name, value in states[0].items()
        if value.dtype.is_floating_point
    }


@torch.no_grad()
def renew_statistics(network: nn.Module, images: Iterable[torch.Tensor]) -> None:
    """Take the batch norms' means and variances anew: those of averaged weights are no average.

    Args:
        network: Is changed in place, and left for inference.
        images: Batches (B, 3, H, W) float32 as in training; each counts the same.
    """
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches instead of a running one
    network.train()
    for batch in images:
        network(batch)
    network.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
