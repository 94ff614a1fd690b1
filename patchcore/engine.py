"""Where the training patches of a fit are embedded and selected: in this process, or elsewhere."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from patchcore.device_memory import free_memory
from patchcore.embedder import Embedder
from patchcore.memory_plan import MemoryPlan, Needs, plan_memory
from patchcore.observer import Observer
from patchcore.passes import LocalPatches, Patches, Reader, TrainingImages
from patchcore.scoring import Scorer

# Share of the free memory that a fit may use; the rest is for the backbone, figures and others.
SHARE_OF_FREE_MEMORY = 0.7


@dataclass(frozen=True)
class EmbeddingRequest:
    """What an engine is asked to embed.

    Attributes:
        embedder: Embeds the images.
        scorer: Defines the points that are projected.
        images: The training images.
        judged: (N,) bool, the patches that are not ignored; None for all.
        seeds: Seeds of the projections.
        observer: Observes the stages.
        plan: How patches are kept.
        with_digests: Whether the digests of the images are needed.
        keep_images: Whether patches will be cropped from the images.
    """

    embedder: Embedder
    scorer: Scorer
    images: TrainingImages
    judged: torch.Tensor | None
    seeds: Sequence[int]
    observer: Observer
    plan: MemoryPlan
    with_digests: bool
    keep_images: bool


class Engine(Protocol):
    """Where the training patches of a fit are embedded and selected.

    With as many threads it changes no result, with others the last bits.
    """

    def plan(self, needs: Needs, budget: float, device: torch.device) -> MemoryPlan:
        """Return how patches are kept.

        Args:
            needs: Sizes of what the fit keeps.
            budget: Gigabytes; 0 for `SHARE_OF_FREE_MEMORY`.
            device: Device of the computation.

        Raises:
            PatchCoreError: the memory is too small.
        """

    def embed(self, request: EmbeddingRequest) -> Patches:
        """Embed the training images."""


class LocalEngine:
    """This process, as `Engine`."""

    def plan(self, needs: Needs, budget: float, device: torch.device) -> MemoryPlan:
        """Choose between one pass and two."""
        return plan_memory(needs, budget or SHARE_OF_FREE_MEMORY * free_memory(device))

    def embed(self, request: EmbeddingRequest) -> LocalPatches:
        """Embed the training images here."""
        keep_embeddings = request.plan.passes == 1
        with_digests = request.with_digests or not keep_embeddings
        reader = Reader(request.embedder, request.images, with_digests, request.observer)
        return LocalPatches(
            reader,
            request.seeds,
            request.scorer,
            request.judged,
            keep_embeddings=keep_embeddings,
            keep_images=request.keep_images,
        )
