"""Half of what a network learns: each place of its maps tells what lies there.

One picture gives hundreds of labels instead of one, which is what makes little computing time go
far.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from utils.pretraining.batch import CERTAIN_DAMAGE, Batch

NUM_OTHER = 3  # outputs beside the classes: damage, and two coordinates


@dataclass(frozen=True)
class Weights:
    """How much each part of the loss counts.

    Attributes:
        texture: Which class of texture (cross entropy).
        damage: Whether a cell was tampered with (binary cross entropy).
        place: Where in its shape a cell lies (Huber loss of two coordinates).
        smoothing: Of the classes' labels.
        levels: How much each map counts, the finest first.
    """

    texture: float = 1.0
    damage: float = 1.0
    place: float = 0.5
    smoothing: float = 0.1
    levels: tuple[float, ...] = (0.5, 1.0, 1.0)


class DenseObjective(nn.Module):
    """A linear head on each map, and the loss of what they say.

    Args:
        channels: C of each map, the finest first, which has the labels' grid.
        num_classes: K.
        weights: How much each part counts.
    """

    def __init__(self, channels: Sequence[int], num_classes: int, weights: Weights = Weights()):
        super().__init__()
        self.num_classes = num_classes
        self.weights = weights
        self.heads = nn.ModuleList(nn.Linear(c, num_classes + NUM_OTHER) for c in channels)

    def forward(
        self, maps: Sequence[torch.Tensor], batch: Batch, step: int = 0
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Compute the loss.

        Args:
            maps: Each (B, C, h, w); every further one half as large.
            batch: The labels.
            step: Of the training. Of the finer maps as many places are asked as the last one has,
                others at each step: neighbours know nearly the same, and a head for so many
                classes is not cheap.

        Returns:
            The loss, and by name what the progress shows, on the device.
        """
        offset = step % 4, step // 4 % 4
        losses, report = [], {}
        shares, places, damaged = batch.shares, batch.places, batch.damaged[:, None]
        for level, (head, values) in enumerate(zip(self.heads, maps, strict=True)):
            if level:
                shares, damaged = F.avg_pool2d(shares, 2), F.avg_pool2d(damaged, 2)
                places = places[:, :, ::2, ::2]
            if self.weights.levels[level] == 0:
                continue
            stride = 2 ** (len(maps) - 1 - level)
            row, column = (start % stride for start in offset)
            asked = np.s_[:, :, row::stride, column::stride]
            outputs = head(values[asked].permute(0, 2, 3, 1).float())  # (B, h, w, K + 3)
            labels = shares[asked], places[asked], damaged[asked][:, 0]
            loss, parts = self._parts(outputs, batch.classes, *labels)
            losses.append(self.weights.levels[level] * loss)
            report |= {f"{name}_{level}": value for name, value in parts.items()}
        loss = sum(losses)
        return loss, {"loss": loss.detach(), **report}

    def _parts(
        self,
        outputs: torch.Tensor,
        classes: torch.Tensor,
        shares: torch.Tensor,
        places: torch.Tensor,
        damaged: torch.Tensor,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return one map's loss, and its parts for the progress."""
        w = self.weights
        logits = outputs[..., : self.num_classes]
        shares = shares.permute(0, 2, 3, 1)  # (B, h, w, L)
        index = classes[:, None, None, :].expand(shares.shape)
        normaliser = torch.logsumexp(logits, -1)
        wanted = (shares * logits.gather(-1, index)).sum(-1)
        texture = (normaliser - (1 - w.smoothing) * wanted - w.smoothing * logits.mean(-1)).mean()
        damage = F.binary_cross_entropy_with_logits(
            outputs[..., -3], (damaged / CERTAIN_DAMAGE).clamp(max=1)
        )
        there = ~places[:, 0].isnan()
        found, true = outputs[..., -2:][there], places.permute(0, 2, 3, 1)[there].clamp(-2, 2)
        place = F.smooth_l1_loss(found, true, beta=0.3, reduction="sum") / max(found.numel(), 1)
        with torch.no_grad():
            main = index.gather(-1, shares.argmax(-1, keepdim=True))[..., 0]
            accuracy = (logits.argmax(-1) == main).float().mean()
        loss = w.texture * texture + w.damage * damage + w.place * place
        report = {"texture": texture, "damage": damage, "place": place, "accuracy": accuracy}
        return loss, {name: value.detach() for name, value in report.items()}
