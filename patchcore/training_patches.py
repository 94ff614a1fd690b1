"""What is known of the training patches of a bank before they are embedded."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from patchcore.coreset import numbers_of
from patchcore.embedder import Embedder
from patchcore.ensemble import draw_sample
from patchcore.errors import PatchCoreError
from patchcore.judged_patches import judged_patches, num_judged_patches
from patchcore.origins import EmbeddingOrder
from patchcore.scoring import Scorer


@dataclass(frozen=True)
class FitRequest:
    """Results to compute in a fit.

    Attributes:
        percentages: Shares of the training patches to select, ascending, in (0, 1].
        seeds: Seeds of the selections, without duplicates.
        held_out: Whether to score held-out images, for thresholds.
        patches: Whether to keep the crops of the coreset's patches.
        normal: Whether to measure the scores of training patches, for ensembles.
        memory_budget: Gigabytes for embeddings, selections and coresets; 0 for
            most of what is free.
    """

    percentages: tuple[float, ...]
    seeds: tuple[int, ...] = (0,)
    held_out: bool = True
    patches: bool = True
    normal: bool = False
    memory_budget: float = 0.0


def coreset_sizes(
    num_patches: int, percentages: Sequence[float], scorer: Scorer
) -> tuple[int, ...]:
    """Return the coreset size of each percentage: int(N * percentage), as in the paper's code.

    Raises:
        PatchCoreError: a size is smaller than the scorer needs: k, or 2 for equation 7.
    """
    sizes = tuple(int(num_patches * percentage) for percentage in percentages)
    least = scorer.least_patches
    if sizes[0] < least:
        if least == scorer.k:
            needed, names = f"k = {least} patches", "percentage_coreset, k"
        else:
            needed = f"{least} patches for image_score {scorer.image_score}"
            names = "percentage_coreset, image_score"
        raise PatchCoreError(
            f"expected at least {needed} in the coreset, found {sizes[0]}: "
            f"{percentages[0]:g} of {num_patches} training patches ({names})"
        )
    return sizes


@dataclass(frozen=True)
class TrainingPatches:
    """The training patches of a bank, before they are embedded.

    Attributes:
        embedder: Embeds the training images.
        scorer: Defines the points that are projected, and scores held-out images.
        request: Results to compute.
        order: The order of embedding.
        judged: (N,) bool, the patches that are not ignored; None for all.
        num_judged: Number of patches that are not ignored.
        sizes: Coreset sizes of the percentages, ascending, of each bank.
    """

    embedder: Embedder
    scorer: Scorer
    request: FitRequest
    order: EmbeddingOrder
    judged: torch.Tensor | None
    num_judged: int
    sizes: tuple[int, ...]

    @classmethod
    def of(
        cls,
        embedder: Embedder,
        scorer: Scorer,
        num_images: int,
        batch_size: int,
        request: FitRequest,
    ) -> "TrainingPatches":
        """Return the patches of ``num_images`` training images.

        Raises:
            PatchCoreError: a percentage of the patches is too few for the scores.
        """
        order = EmbeddingOrder.of(num_images, len(embedder.versions), batch_size)
        num_judged = num_judged_patches(embedder, scorer, num_images)
        sizes = coreset_sizes(num_judged, request.percentages, scorer)
        judged = judged_patches(embedder, scorer, order)
        return cls(embedder, scorer, request, order, judged, num_judged, sizes)

    def samples(self) -> dict[int, np.ndarray]:
        """Draw the patches for `normal_scores`, by seed: (Q,) int64; none if not requested."""
        seeds = self.request.seeds if self.request.normal else ()
        return {seed: numbers_of(draw_sample(self.num_judged, seed), self.judged) for seed in seeds}
