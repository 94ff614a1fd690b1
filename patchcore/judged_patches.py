"""Which training patches are judged: those that the mask of ignored pixels leaves."""

import numpy as np
import torch

from patchcore.augment import changed
from patchcore.embedder import Embedder
from patchcore.ignored import IgnoreMask
from patchcore.origins import EmbeddingOrder
from patchcore.scoring import Scorer


def num_judged_patches(embedder: Embedder, scorer: Scorer, num_images: int) -> int:
    """Return the number of training patches of ``num_images`` images that are not ignored."""
    if scorer.ignored is None:
        return embedder.num_patches(num_images)
    return num_images * sum(int(judged.sum()) for judged in judged_versions(embedder, scorer))


def judged_patches(
    embedder: Embedder, scorer: Scorer, order: EmbeddingOrder
) -> torch.Tensor | None:
    """Return (N,) bool, which training patches are not ignored; None if all are judged."""
    if scorer.ignored is None:
        return None
    versions = np.stack([judged.ravel() for judged in judged_versions(embedder, scorer)])
    return torch.from_numpy(versions[order.versions].ravel()).to(embedder.device)


def judged_versions(embedder: Embedder, scorer: Scorer) -> list[np.ndarray]:
    """Return (h, w) bool for each version of an image: the patches that are not ignored.

    The mask changes as the image does. A pixel is ignored if it is interpolated from an ignored
    one.

    Raises:
        PatchCoreError: no patch of a version is left.
    """
    pixels = scorer.ignored.pixels
    as_image = np.repeat(pixels[None, ..., None], 3, axis=3).astype(np.uint8) * 255
    masks = [changed(as_image, version)[0, ..., 0] > 0 for version in embedder.versions]
    return [~IgnoreMask(mask, mask.shape).patches(scorer.grid) for mask in masks]
