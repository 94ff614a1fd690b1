"""What a fit keeps in memory, before it is made."""

import numpy as np

from patchcore.ensemble import NUM_SAMPLES
from patchcore.explain import crop_size
from patchcore.folds import make_folds
from patchcore.memory_plan import Needs
from patchcore.training_patches import TrainingPatches


def memory_needs(training: TrainingPatches) -> Needs:
    """Return what a fit to different images keeps in memory; copies are not known before it."""
    embedder, request = training.embedder, training.request
    folds = make_folds(training, np.arange(training.order.num_images))
    size = embedder.preprocess.size_crop
    piece = crop_size(embedder.grid, size)
    # Images and their crops stay in the host's memory; for a GPU, the plan covers its own memory.
    keeps_images = request.patches and embedder.device.type == "cpu"
    sampled = NUM_SAMPLES * len(request.seeds) if request.normal else 0
    return Needs(
        num_images=len(training.order),
        patches_per_image=embedder.patches_per_image,
        embed_dim=embedder.embed_dim,
        coreset_sizes=(training.sizes[-1],) * (len(request.seeds) * embedder.num_banks),
        fold_sizes=tuple(fold.sizes[-1] for fold in folds for _ in range(embedder.num_banks)),
        scored_patches=sum(fold.patches.size for fold in folds) + sampled,
        image_bytes=3 * size[0] * size[1] if keeps_images else 0,
        patch_bytes=3 * piece[0] * piece[1] if keeps_images else 0,
        num_banks=embedder.num_banks,
    )
