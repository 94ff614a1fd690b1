"""New normal images join a trained model: its bank grows by what it does not cover yet.

The greedy selection of the coreset goes on (section 3.2 of the paper, algorithm 1): of the new
patches, those that are farther than the covering radius of the selected ones are added, always the
farthest first. The patches that were selected before are kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from patchcore.coreset import project, select_beyond
from patchcore.embedder import Embedder
from patchcore.errors import PatchCoreError
from patchcore.held_out import HeldOutCollector, HeldOutScores
from patchcore.judged_patches import judged_patches
from patchcore.memory_bank import Coreset, MemoryBank
from patchcore.origins import EmbeddingOrder, Origins
from patchcore.passes import PatchCutter, TrainingImages
from patchcore.scoring import Scorer
from patchcore.thresholds import BestThresholds, choose_thresholds
from patchcore.trained import Joined, Trained


@torch.inference_mode()
def extend(embedder: Embedder, scorer: Scorer, trained: Trained, images: TrainingImages) -> Trained:
    """Add what is new in normal images to a trained model.

    Their embeddings are all kept in memory meanwhile.

    Args:
        embedder: Embeds the images.
        scorer: Scores the images before they join.
        trained: The model, with one percentage and its covering radius.
        images: The new images.

    Returns:
        The model with a larger coreset, and with the scores of the new images in ``joined``.

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
    new = _embed(embedder, scorer, images)
    scores = _score(embedder, scorer, coreset, new)
    points = scorer.metric.points(new.embeddings)
    projected = (project(values, coreset.seed) for values in (points, coreset.bank.embeddings))
    judged = judged_patches(embedder, scorer, new.order)
    projected_new, projected_kept = projected
    if judged is not None:  # an ignored patch is where a kept one is, so it is never selected
        projected_new[~judged] = projected_kept[0]
    chosen = select_beyond(projected_new, projected_kept, coreset.covers[0].radius).cpu().numpy()
    grown = _grow(embedder, scorer, coreset, new, points, chosen, tuple(images.names))
    thresholds = choose_thresholds(scores, BestThresholds())
    joined = Joined(len(images), len(chosen), scores, thresholds)
    return replace(trained, coreset=grown, joined=joined)


@dataclass(frozen=True)
class _NewPatches:
    """Patches of the new images.

    Attributes:
        order: The order of embedding.
        embeddings: (n * h * w, D) float32.
        versions: The batches of embedded images, each with the number of images before it.
        features: (n, D) features by which images are compared; None if they are not.
    """

    order: EmbeddingOrder
    embeddings: torch.Tensor
    versions: list[tuple[int, np.ndarray]]
    features: torch.Tensor | None


def _check(coreset: Coreset, scorer: Scorer, images: TrainingImages) -> None:
    if not len(images):
        raise PatchCoreError("expected at least one image to extend the model by, found none")
    if scorer.metric.num_banks > 1:
        raise PatchCoreError(
            "expected a model with banks joined to extend, found per_layer: each of its banks "
            "would grow by another number of patches (banks)"
        )
    if len(coreset.sizes) > 1:
        raise PatchCoreError(
            f"expected a model of one percentage to extend, found {len(coreset.sizes)} "
            "(percentage_coreset)"
        )
    if not coreset.covers:
        raise PatchCoreError(
            "expected a model with a covering radius to extend: train it anew by train, or by "
            "evaluate with path_trained"
        )


def _embed(embedder: Embedder, scorer: Scorer, images: TrainingImages) -> _NewPatches:
    order = EmbeddingOrder.of(len(images), len(embedder.versions), images.batch_size)
    embeddings, versions, done = [], [], 0
    for batch in images.batches():
        for version in embedder.each_version(batch):
            embeddings.append(embedder.embed(version))
            versions.append((done, version))
            done += len(version)
    joined = torch.cat(embeddings)  # (n, h, w, D)
    features = None
    if scorer.retrieves_images:
        judged = judged_patches(embedder, scorer, order)
        if judged is not None:
            judged = judged.view(len(joined), -1)
        features = scorer.image_features(scorer.metric.points(joined.flatten(1, 2)), judged)
    return _NewPatches(order, joined.flatten(0, 2), versions, features)


def _score(embedder: Embedder, scorer: Scorer, coreset: Coreset, new: _NewPatches) -> HeldOutScores:
    """Score the new images by the coreset without them, as new images would be."""
    images = new.embeddings.view(-1, *embedder.grid, new.embeddings.shape[1])
    unchanged = torch.from_numpy(np.flatnonzero(new.order.versions == 0)).to(images.device)
    collector = HeldOutCollector(scorer, embedder.preprocess.size_crop, 1)
    collector.add(
        coreset.bank,
        coreset.sizes,
        np.arange(len(unchanged)),
        lambda batch: images[unchanged[batch]],
    )
    (scores,) = collector.finish()
    return scores


def _grow(
    embedder: Embedder,
    scorer: Scorer,
    coreset: Coreset,
    new: _NewPatches,
    points: torch.Tensor,
    chosen: np.ndarray,
    names: Sequence[str],
) -> Coreset:
    """Return the coreset with the chosen patches (m,) of the new images at its end."""
    origins = _join_origins(coreset.origins, embedder, new.order, chosen, names)
    num_embedded = len(coreset.origins.names) * len(embedder.versions)
    numbers = chosen + num_embedded * embedder.patches_per_image
    indices = np.concatenate([coreset.indices, numbers])
    rows = torch.from_numpy(chosen).to(points.device)
    features = None
    if new.features is not None:
        features = torch.cat([coreset.bank.area.places.features, new.features])
    bank = MemoryBank(
        torch.cat([coreset.bank.embeddings, points[rows]]),
        scorer.area_of(indices, features, points.device),
    )
    patches = coreset.patches
    if patches is not None:
        cutter = PatchCutter(chosen, embedder)
        for start, version in new.versions:
            cutter.add(start, version)
        patches = np.concatenate([patches, cutter.patches])
    # Nothing is proven of a coreset that grew after its selection.
    covers = (coreset.covers[0]._replace(factor=None),)
    return Coreset(indices, (len(bank),), bank, coreset.seed, origins, patches, covers)


def _join_origins(
    origins: Origins,
    embedder: Embedder,
    order: EmbeddingOrder,
    chosen: np.ndarray,
    names: Sequence[str],
) -> Origins:
    """Return the origins of all coreset patches, those of the new images last."""
    count = len(origins.names)
    numbered = [f"image {count + number}" for number in range(order.num_images)]
    new_names = tuple(names or numbered)
    new = Origins.locate(chosen, embedder.grid, order, new_names, origins.versions)
    return Origins(
        (*origins.names, *new_names),
        origins.versions,
        np.concatenate([origins.image, new.image + count]),
        np.concatenate([origins.version, new.version]),
        np.concatenate([origins.row, new.row]),
        np.concatenate([origins.column, new.column]),
    )
