"""What a training step is given."""

from __future__ import annotations

from dataclasses import dataclass

import torch

CERTAIN_DAMAGE = 0.25
"""From this share of a cell on it counts as damaged in full."""


@dataclass(frozen=True)
class Batch:
    """B pictures and what is seen in each of their cells.

    The pictures of one product follow one another.

    Attributes:
        images: (B, H, W, 3) uint8 RGB.
        classes: (B, L) int64, the class of each of a picture's layers.
        shares: (B, L, h, w) float32, the share of a cell that shows each layer; they sum to 1.
        places: (B, 2, h, w) float32, a cell's place in its shape's frame; NaN on the background.
        damaged: (B, h, w) float32, the share of a cell that is damaged.
    """

    images: torch.Tensor
    classes: torch.Tensor
    shares: torch.Tensor
    places: torch.Tensor
    damaged: torch.Tensor

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device."""
        return Batch(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))
