"""Where the training patches of a fit are embedded and selected: in this process, or elsewhere."""

from typing import Protocol

import torch

from patchcore.device_memory import free_memory
from patchcore.memory_plan import MemoryPlan, Needs, plan_memory
from patchcore.observer import Observer
from patchcore.passes import ImageReader, LocalPatches, Patches, TrainingImages
from patchcore.training_patches import TrainingPatches

# Share of the free memory that a fit may use; the rest is for the backbone, figures and others.
SHARE_OF_FREE_MEMORY = 0.7


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

    def embed(
        self,
        training: TrainingPatches,
        images: TrainingImages,
        plan: MemoryPlan,
        observer: Observer,
    ) -> Patches:
        """Embed the training images.

        Args:
            training: What is known of their patches.
            images: The training images.
            plan: How patches are kept.
            observer: Observes the stages.
        """


class LocalEngine:
    """This process, as `Engine`."""

    def plan(self, needs: Needs, budget: float, device: torch.device) -> MemoryPlan:
        """Choose between one pass and two."""
        return plan_memory(needs, budget or SHARE_OF_FREE_MEMORY * free_memory(device))

    def embed(
        self,
        training: TrainingPatches,
        images: TrainingImages,
        plan: MemoryPlan,
        observer: Observer,
    ) -> LocalPatches:
        """Embed the training images here."""
        request, keep_embeddings = training.request, plan.passes == 1
        with_digests = request.held_out or not keep_embeddings
        return LocalPatches(
            ImageReader(training.embedder, images, with_digests, observer),
            request.seeds,
            training.scorer,
            training.judged,
            keep_embeddings=keep_embeddings,
            keep_images=request.patches,
        )
