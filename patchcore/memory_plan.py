"""How the training patches of a category are kept, when memory is short.

Three ways, the first that fits is taken:

1. all embeddings in float32: the plain method;
2. all in float16: the plain selection, from embeddings rounded to 3 digits;
3. a part of the images at a time in float16: each part is reduced to candidates by a selection
   of its own, and the coreset is selected from all candidates (a composable coreset: every patch is
   near a candidate, every candidate near the coreset). This is not the plain greedy selection.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from patchcore.coreset import PROJECTION_DIM, greedy_coreset
from patchcore.errors import PatchCoreError
from patchcore.held_out import NUM_FOLDS
from patchcore.lower_bounds import FLOATS_PER_ROW as BOUND_FLOATS_PER_ROW
from patchcore.memory_bank import Coreset, MemoryBank

# Candidates that a part leaves for each patch that the coreset has room for from it: with more of
# them the result is nearer to the plain selection, with one there would be nothing to select.
OVERSAMPLING = 2.0
GIGABYTE = 1e9


@dataclass(frozen=True)
class MemoryPlan:
    """How training embeddings are kept.

    Attributes:
        dtype: Of the embeddings.
        images_per_part: Images whose patches are held at a time.
        num_images: Of all parts, flipped ones counted.
    """

    dtype: torch.dtype
    images_per_part: int
    num_images: int

    @property
    def is_plain(self) -> bool:
        """Whether the selection is the plain greedy one, from all patches at once."""
        return self.images_per_part >= self.num_images

    def describe(self) -> str:
        """Return the plan in words, for the log and ``run.json``."""
        kept = str(self.dtype).removeprefix("torch.")
        if self.is_plain:
            return f"all embeddings in {kept}, plain greedy selection"
        parts = math.ceil(self.num_images / self.images_per_part)
        return (
            f"embeddings in {kept}, {self.images_per_part} images at a time: the coreset is "
            f"selected from the selections of {parts} parts, not by the plain greedy selection"
        )


@dataclass(frozen=True)
class Needs:
    """What a category needs beside its embeddings.

    Attributes:
        image_bytes: Kept of each image (its crop, for pictures).
        patch_bytes: Kept of each patch that may come into the coreset (a piece of its image).
        held_out: Whether coresets are selected again without a part of the images, for thresholds.
    """

    image_bytes: int = 0
    patch_bytes: int = 0
    held_out: bool = False


def plan_memory(
    num_images: int,
    patches_per_image: int,
    embed_dim: int,
    largest_percentage: float,
    num_seeds: int,
    budget: float,
    needs: Needs = Needs(),
) -> MemoryPlan:
    """Choose how to keep the embeddings of training images.

    Args:
        num_images: Training images, flipped ones counted.
        patches_per_image: h * w.
        embed_dim: D.
        largest_percentage: Of the coresets wanted.
        num_seeds: Coresets that are held at the same time.
        budget: Memory in gigabytes for embeddings, selection and coresets.
        needs: What else the budget must hold.

    Raises:
        PatchCoreError: not even the coresets and one image fit.
    """
    patches = num_images * patches_per_image
    # In bytes: a coreset in float32 with what bounds its distances, and per patch the projection,
    # its centred copy and the distances.
    bank = patches * largest_percentage * (embed_dim + BOUND_FLOATS_PER_ROW) * 4
    banks = num_seeds * bank
    selection = (2 * PROJECTION_DIM + 4) * 4
    # Held-out scores come when the selection is over: they project all patches once, take those
    # of the other folds out, centre them, and hold one more coreset.
    others = 1 - 1 / NUM_FOLDS
    after = patches * (1 + 2 * others) * PROJECTION_DIM * 4 + others * bank
    plain = banks + max(patches * selection, after if needs.held_out else 0)
    plain += num_images * needs.image_bytes
    for dtype in (torch.float32, torch.float16):
        if patches * embed_dim * dtype.itemsize + plain <= budget * GIGABYTE:
            return MemoryPlan(dtype, num_images, num_images)
    share = min(1.0, OVERSAMPLING * largest_percentage)
    candidates = num_seeds * patches * share * (embed_dim * 2)
    pictures = patches * share * needs.patch_bytes  # of the first seed's candidates
    # While parts come, their candidates grow; in the end these are reduced to the banks.
    left = (
        budget * GIGABYTE
        - max(candidates, banks)
        - pictures
        - candidates / num_seeds * selection / (2 * embed_dim)  # one seed's at a time
    )
    per_image = patches_per_image * (embed_dim * 2 + selection) + needs.image_bytes
    images = int(left / per_image)
    if images < 1:
        needed = (max(candidates, banks) * 1.2 + pictures) / GIGABYTE
        raise PatchCoreError(
            f"expected memory for the coresets of {num_images} images, about {needed:.2g} GB, "
            f"found {budget:.2g} GB (memory_budget, percentage_coreset)"
        )
    # Equal parts, and at least two: all at once would need what was too much above.
    parts = max(2, math.ceil(num_images / images))
    return MemoryPlan(torch.float16, math.ceil(num_images / parts), num_images)


class ComposableSelection:
    """Selects a coreset from patches that come in parts.

    Args:
        num_patches: Of all parts.
        sizes: How many patches make up each percentage's coreset, ascending.
        seed: Of the selections.
    """

    def __init__(self, num_patches: int, sizes: Sequence[int], seed: int):
        self._share = min(1.0, OVERSAMPLING * sizes[-1] / num_patches)
        self._sizes = tuple(sizes)
        self._seed = seed
        self._indices: list[np.ndarray] = []
        self._embeddings: list[torch.Tensor] = []

    @torch.inference_mode()
    def add(self, embeddings: torch.Tensor, first: int) -> np.ndarray:
        """Reduce a part to its candidates.

        Args:
            embeddings: (n, D) of the part's patches.
            first: The number of its first patch among all.

        Returns:
            (c,) int64, the candidates' numbers within the part, in order of selection.
        """
        count = min(len(embeddings), math.ceil(len(embeddings) * self._share))
        chosen = greedy_coreset(embeddings, count, seed=self._seed)
        self._embeddings.append(embeddings[chosen])
        indices = chosen.cpu().numpy()
        self._indices.append(indices + first)
        return indices

    @torch.inference_mode()
    def finish(self) -> tuple[Coreset, np.ndarray]:
        """Select from all candidates.

        Returns:
            The coreset; (M,) int64 which of the candidates it took, in the order they came.
        """
        first = self._embeddings[0]
        candidates = first.new_empty(sum(map(len, self._embeddings)), first.shape[1])
        done = 0
        while self._embeddings:  # each part is let go as it is taken over
            part = self._embeddings.pop(0)
            candidates[done : done + len(part)] = part
            done += len(part)
        chosen = greedy_coreset(candidates, self._sizes[-1], seed=self._seed)
        order = chosen.cpu().numpy()
        bank = MemoryBank(candidates[chosen].float())
        return Coreset(np.concatenate(self._indices)[order], self._sizes, bank, self._seed), order
