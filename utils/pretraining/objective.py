"""What a network learns, in all: to tell what lies where, and to be searched for what differs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from utils.pretraining.batch import Batch
from utils.pretraining.dense import DenseObjective
from utils.pretraining.recall import RecallObjective


class Objective(nn.Module):
    """Both losses.

    Args:
        channels: C of each map, the finest first.
        num_classes: Of textures.
        embedding: What is searched, as `RecallObjective` takes it.
        pictures_per_product: How many pictures of a product follow one another in a batch.
        recall: How much the loss of recall counts beside the dense one; 0 leaves it out.
    """

    def __init__(
        self,
        channels: Sequence[int],
        num_classes: int,
        embedding: nn.Module,
        pictures_per_product: int,
        recall: float = 1.0,
    ):
        super().__init__()
        self.dense = DenseObjective(channels, num_classes)
        self.recall = RecallObjective(embedding, pictures_per_product)
        self._weight = recall

    def forward(
        self, maps: Sequence[torch.Tensor], batch: Batch, step: int
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Compute the loss.

        Args:
            maps: Each (B, C, h, w); every further one half as large.
            batch: The labels.
            step: Of the training: it decides which places are asked.

        Returns:
            The loss, and by name what the progress shows, on the device.
        """
        loss, report = self.dense(maps, batch, step)
        if self._weight:
            recall, more = self.recall(maps, batch, step)
            loss = loss + self._weight * recall
            report |= more | {"loss": loss.detach()}
        return loss, report
