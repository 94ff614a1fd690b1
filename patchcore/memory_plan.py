"""Two ways to keep training patches in memory, with the same result.

1. One pass: the embeddings of all patches are kept.
2. Two passes: only the projections are kept (128 numbers a patch). After the selections the images
   are embedded again, and only the rows of selected patches are kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from patchcore.coreset import PROJECTION_DIM
from patchcore.errors import PatchCoreError
from patchcore.lower_bounds import FLOATS_PER_ROW as BOUND_FLOATS_PER_ROW

BYTES_PER_FLOAT = 4
GIGABYTE = 1e9


@dataclass(frozen=True)
class MemoryPlan:
    """How training patches are kept.

    Attributes:
        passes: Number of times that the images are embedded, 1 or 2.
        needed: Required memory in gigabytes, of all shards together.
        shards: Number of processes that hold the patches.
        cpus: CPUs of each process, if they are workers; 0 for this process alone.
    """

    passes: int
    needed: float
    shards: int = 1
    cpus: float = 0

    def describe(self) -> str:
        """Return the plan in words, for the log and ``run.json``."""
        kept = "all embeddings kept" if self.passes == 1 else "projections kept, embedded twice"
        shards = "1 shard" if self.shards == 1 else f"{self.shards} shards"
        spread = f" in {shards} of {self.cpus:g} CPU" if self.cpus else ""
        return f"{kept}{spread}, about {self.needed:.2g} GB"


@dataclass(frozen=True)
class Needs:
    """Sizes of what a fit keeps in memory.

    Attributes:
        num_images: Number of training images, in all versions.
        patches_per_image: h * w.
        embed_dim: Length of an embedding, of all banks together.
        coreset_sizes: Size of the largest coreset of each seed and bank.
        fold_sizes: Size of the largest coreset of each fold of held-out images and bank.
        scored_patches: Number of patches to score: of held-out images, and samples for ensembles.
        image_bytes: Bytes kept of each image in one pass.
        patch_bytes: Bytes kept of each coreset patch of the first seed.
        num_banks: Number of banks, each of a part of the embedding.
    """

    num_images: int
    patches_per_image: int
    embed_dim: int
    coreset_sizes: Sequence[int]
    fold_sizes: Sequence[int] = ()
    scored_patches: int = 0
    image_bytes: int = 0
    patch_bytes: int = 0
    num_banks: int = 1

    @property
    def num_patches(self) -> int:
        """Number of training patches, N."""
        return self.num_images * self.patches_per_image

    def while_selecting(self) -> int:
        """Return the bytes of all projections, and of the norms and distances of a selection."""
        projections = len(self.coreset_sizes) * self.num_patches * PROJECTION_DIM
        return (projections + 2 * self.num_patches) * BYTES_PER_FLOAT

    def banks(self) -> int:
        """Return the bytes of all memory banks at once, with one of the largest fold."""
        rows = sum(self.coreset_sizes) + self.num_banks * max(self.fold_sizes, default=0)
        floats = rows * (self.embed_dim // self.num_banks + BOUND_FLOATS_PER_ROW)
        crops = self.num_banks * self.coreset_sizes[0] * self.patch_bytes
        return floats * BYTES_PER_FLOAT + crops

    def one_pass(self) -> int:
        """Return the bytes of a fit that keeps all embeddings."""
        embeddings = self.num_patches * self.embed_dim * BYTES_PER_FLOAT
        images = self.num_images * self.image_bytes
        return embeddings + images + max(self.while_selecting(), self.banks())

    def two_passes(self) -> int:
        """Return the bytes of a fit that keeps projections, then the rows of selected patches."""
        taken = sum(self.coreset_sizes) + sum(self.fold_sizes) + self.scored_patches
        rows = min(taken, self.num_patches) * self.embed_dim * BYTES_PER_FLOAT
        return max(self.while_selecting(), rows + self.banks())


def plan_memory(needs: Needs, budget: float) -> MemoryPlan:
    """Choose between one pass and two, which changes the time but no result.

    Args:
        needs: Sizes of what the fit keeps.
        budget: Available memory in gigabytes.

    Raises:
        PatchCoreError: the memory is too small for both.
    """
    ways = (needs.one_pass() / GIGABYTE, needs.two_passes() / GIGABYTE)
    for passes, needed in enumerate(ways, start=1):
        if needed <= budget:
            return MemoryPlan(passes, needed)
    raise PatchCoreError(
        f"expected memory for {needs.num_images} training images, about {min(ways):.2g} GB, found "
        f"{budget:.2g} GB: choose smaller coresets or fewer seeds, or allow more memory "
        "(percentage_coreset, seed, memory_budget)"
    )
