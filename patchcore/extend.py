"""Extension of a trained model: the patches that its bank does not cover yet are added.

The greedy selection of the coreset is continued (section 3.2 of the paper, algorithm 1): new
patches that are farther than the covering radius from the selected ones are added, always the
farthest first. The patches that were selected before are kept.
"""

from dataclasses import replace

import numpy as np
import torch

from patchcore.coreset import project, select_beyond
from patchcore.embedder import Embedder
from patchcore.errors import PatchCoreError
from patchcore.held_out import HeldOutCollector
from patchcore.judged_patches import judged_patches
from patchcore.memory_bank import Coreset, MemoryBank
from patchcore.observer import NO_OBSERVER
from patchcore.origins import EmbeddingOrder, Origins, numbered_names
from patchcore.passes import ImageReader, LocalPatches, PatchCropper, TrainingImages
from patchcore.scoring import Scorer
from patchcore.thresholds import BestThresholds, choose_thresholds
from patchcore.torch_state import torch_defaults
from patchcore.trained import Extension, Trained


@torch_defaults()
@torch.inference_mode()
def extend(embedder: Embedder, scorer: Scorer, trained: Trained, images: TrainingImages) -> Trained:
    """Add what is new in normal images to a trained model.

    Their embeddings are all kept in memory meanwhile.

    Args:
        embedder: Embeds the images.
        scorer: Scores the images before they are added.
        trained: The model, with one percentage and its covering radius.
        images: The new images.

    Returns:
        The model with a larger coreset, and with the scores of the new images in ``extension``.

    Raises:
        PatchCoreError: there is no image, the model has several banks or percentages, or it has no
            covering radius.
    """
    coreset = trained.coreset
    if trained.context is not None:
        raise PatchCoreError(
            "expected a model with one bank to extend, found one with a second bank of smaller "
            "images (context)"
        )
    _check(coreset, scorer, images)
    order = EmbeddingOrder.of(len(images), len(embedder.versions), images.batch_size)
    judged = judged_patches(embedder, scorer, order)
    patches = LocalPatches(
        ImageReader(embedder, images, False, NO_OBSERVER),
        [coreset.seed],
        scorer,
        judged,
        keep_embeddings=True,
        keep_images=coreset.patches is not None,
    )
    numbers = np.arange(len(images))
    collector = HeldOutCollector(scorer, embedder.preprocess.size_crop, 1)
    of_images = order.patches_of(numbers, embedder.patches_per_image)
    rows = patches.rows(of_images.ravel(), None)
    collector.add(coreset.bank, coreset.sizes, numbers, of_images, rows)
    (scores,) = collector.finish()

    (shards,) = patches.shards(coreset.seed, None)
    new, kept = shards.rows(np.arange(len(shards))), project(coreset.bank.embeddings, coreset.seed)
    if judged is not None:  # an ignored patch is where a kept one is, so it is never selected
        new[~judged] = kept[0]
    chosen = select_beyond(new, kept, coreset.coverage[0].radius).cpu().numpy()
    grown = _grow(embedder, scorer, coreset, order, patches, chosen, tuple(images.names))
    thresholds = choose_thresholds(scores, BestThresholds())
    extension = Extension(len(images), len(chosen), scores, thresholds)
    return replace(trained, coreset=grown, extension=extension)


def _check(coreset: Coreset, scorer: Scorer, images: TrainingImages) -> None:
    if not len(images):
        raise PatchCoreError("expected at least one image to extend the model by, found none")
    if scorer.metric.num_banks > 1:
        raise PatchCoreError(
            "expected a model with banks joined to extend, found per_layer: its banks would grow "
            "by different numbers of patches (banks)"
        )
    if len(coreset.sizes) > 1:
        raise PatchCoreError(
            f"expected a model of one percentage to extend, found {len(coreset.sizes)} "
            "(percentage_coreset)"
        )
    if not coreset.coverage:
        raise PatchCoreError(
            "expected a model with a covering radius to extend: train it again with train, or with "
            "evaluate and path_trained"
        )


def _grow(
    embedder: Embedder,
    scorer: Scorer,
    coreset: Coreset,
    order: EmbeddingOrder,
    new: LocalPatches,
    chosen: np.ndarray,
    names: tuple[str, ...],
) -> Coreset:
    """Return the coreset with the chosen patches (m,) of the new images at its end."""
    origins = _join_origins(coreset.origins, embedder, order, chosen, names)
    num_embedded = len(coreset.origins.names) * len(embedder.versions)
    numbers = chosen + num_embedded * embedder.patches_per_image
    indices = np.concatenate([coreset.indices, numbers])
    cropper = None if coreset.patches is None else PatchCropper(chosen, embedder)
    points = scorer.metric.points(new.rows(chosen, cropper).take(chosen))
    features = None
    if new.features is not None:
        features = torch.cat([coreset.bank.area.places.features, new.features])
    bank = MemoryBank(
        torch.cat([coreset.bank.embeddings, points]),
        scorer.area_of(indices, features, points.device),
    )
    patches = None if cropper is None else np.concatenate([coreset.patches, cropper.patches])
    # Nothing is proven of a coreset that grew after its selection.
    coverage = (coreset.coverage[0]._replace(factor=None),)
    return Coreset(indices, (len(bank),), bank, coreset.seed, origins, patches, coverage)


def _join_origins(
    origins: Origins,
    embedder: Embedder,
    order: EmbeddingOrder,
    chosen: np.ndarray,
    names: tuple[str, ...],
) -> Origins:
    """Return the origins of all coreset patches, those of the new images last."""
    count = len(origins.names)
    new_names = names or numbered_names(order.num_images, count)
    new = Origins.locate(chosen, embedder.grid, order, new_names, origins.versions)
    return Origins(
        (*origins.names, *new_names),
        origins.versions,
        np.concatenate([origins.image, new.image + count]),
        np.concatenate([origins.version, new.version]),
        np.concatenate([origins.row, new.row]),
        np.concatenate([origins.column, new.column]),
    )
