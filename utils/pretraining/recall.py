"""The other half of what a network learns: what it is for.

Each batch holds a few products in a few pictures each. Every picture is compared, as PatchCore
does, with the undamaged patches of its product's other pictures, and its damaged patches must lie
farther from them than the undamaged ones do. Nothing is learned here but the maps: what varies
from one good picture to the next must move them little, and what does not, much.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from utils.pretraining.batch import CERTAIN_DAMAGE, Batch

MARGIN = 2  # cells around damage that are not asked: a patch there may see it or not
ASKED = 48  # damaged patches of a picture, and as many undamaged ones
TEMPERATURE = 0.25  # of distances' logarithms: the lower, the more the farthest good patch counts
LEAST_SQUARE = 1e-4  # below it, two patches are the same


class Asked(NamedTuple):
    """Patches of one product, and what they are compared with."""

    patch: torch.Tensor  # (q,) numbers of patches within the product
    nearest: torch.Tensor  # (q,) that of the nearest undamaged one in its other pictures
    is_damaged: torch.Tensor  # (q,) bool, on the CPU


class RecallObjective(nn.Module):
    """The loss of damaged patches that are no farther from good pictures than undamaged ones.

    Args:
        embedding: Maps, each (B, C, h, w), the finest first, to (B, h, w, D) on the first one's
            grid, which is that of the labels: PatchCore's own.
        pictures_per_product: How many pictures of a product follow one another in a batch.
    """

    def __init__(self, embedding: nn.Module, pictures_per_product: int):
        super().__init__()
        self._pictures = pictures_per_product
        self.embedding = embedding

    def forward(
        self, maps: Sequence[torch.Tensor], batch: Batch, step: int = 0
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Compute the loss.

        Args:
            maps: Each (B, C, h, w).
            batch: The labels.
            step: Of the training: other patches are asked at each.

        Returns:
            The loss, 0 where no product has both kinds of patches; and by name what the progress
            shows, on the device.
        """
        embeddings = self.embedding([values.float() for values in maps]).flatten(1, 2)  # (B, n, D)
        # What is asked is decided on the CPU, where a GPU need not be waited for at each choice.
        damaged, sound = (kind.cpu() for kind in _kinds(batch))
        generator = torch.Generator().manual_seed(step)
        asked = []
        for first in range(0, len(embeddings), self._pictures):
            product = slice(first, first + self._pictures)
            found = _ask(embeddings[product], damaged[product], sound[product], generator)
            offset = first * embeddings.shape[1]
            asked.append(Asked(found.patch + offset, found.nearest + offset, found.is_damaged))
        # One gather for all products: each one's gradient is as large as all embeddings.
        patch, nearest, _ = (torch.cat(part) for part in zip(*asked, strict=True))
        patches = embeddings.flatten(0, 1)
        squares = (patches[patch] - patches[nearest]).square().mean(1)
        distances = 0.5 * torch.log(squares + LEAST_SQUARE)
        losses, orders = [], []
        for values, product in zip(
            distances.split([len(a.patch) for a in asked]), asked, strict=True
        ):
            of_damaged, of_sound = (
                values[kind.nonzero()[:, 0].to(values.device)]
                for kind in (product.is_damaged, ~product.is_damaged)
            )
            if len(of_damaged) and len(of_sound):
                losses.append(_ranking_loss(of_damaged, of_sound))
                orders.append((of_damaged.detach()[:, None] > of_sound.detach()).float().mean())
        if not losses:
            nothing = distances.sum() * 0
            return nothing, {"recall": nothing.detach(), "order": nothing.detach() + 1}
        loss = torch.stack(losses).mean()
        return loss, {"recall": loss.detach(), "order": torch.stack(orders).mean()}


def _kinds(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Return which cells (B, n) are damaged for certain, and which are far from all damage."""
    damaged = batch.damaged >= CERTAIN_DAMAGE
    touched = (batch.damaged > 0).float()[:, None]
    near = F.max_pool2d(touched, 2 * MARGIN + 1, 1, MARGIN)[:, 0] > 0
    return damaged.flatten(1), ~near.flatten(1)


@torch.no_grad()
def _ask(
    embeddings: torch.Tensor,
    damaged: torch.Tensor,
    sound: torch.Tensor,
    generator: torch.Generator,
) -> Asked:
    """Choose patches of a product's pictures and find the nearest ones in its other pictures.

    Args:
        embeddings: (P, n, D) of P pictures.
        damaged: (P, n) bool, on the CPU.
        sound: (P, n) bool, on the CPU.
        generator: Chooses, on the CPU.
    """
    count, size, _ = embeddings.shape
    patches = embeddings.flatten(0, 1)
    halves = patches.square().sum(1) / 2
    found = []
    for picture in range(count):
        places = torch.cat([_draw(kind[picture], generator) for kind in (damaged, sound)])
        others = sound.clone()
        others[picture] = False
        bank = others.flatten().nonzero()[:, 0]
        if not len(bank):  # damage all over the other pictures
            places = places[:0]
        patch, bank = (a.to(patches.device) for a in (places + picture * size, bank))
        # The least of |a - b|^2 = |a|^2 - 2 (a b - |b|^2 / 2) over b.
        closeness = patches[patch] @ patches[bank].T - halves[bank]
        nearest = bank[closeness.argmax(1)] if len(patch) else patch
        found.append(Asked(patch, nearest, damaged[picture][places]))
    return Asked(*(torch.cat(part) for part in zip(*found, strict=True)))


def _draw(wanted: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return the numbers of `ASKED` of the cells (n,) that are wanted, or of all there are."""
    order = torch.rand(len(wanted), generator=generator).masked_fill(~wanted, -1)
    return order.topk(min(ASKED, int(wanted.sum()))).indices


def _ranking_loss(damaged: torch.Tensor, sound: torch.Tensor) -> torch.Tensor:
    """Return how far damaged patches' distances are from lying above all undamaged ones'.

    -log of the share that a damaged patch has beside all undamaged ones in a softmax: the farthest
    undamaged ones count most, as they do in an image's score.
    """
    highest = torch.logsumexp(sound / TEMPERATURE, 0)
    return F.softplus(highest - damaged / TEMPERATURE).mean()
