"""Patch embedding: the paper's steps by unfolding, against one small convolution per layer."""

import torch

from patchcore.patch_embedding import PatchEmbedding
from tests.benchmarks.measure import Row, compare
from tests.patchcore.test_patch_embedding import embed_by_unfold

NETWORKS = {
    "WideResNet50": ((512, 1024), ">= 150"),
    # 24 and 96 channels to 1024: what the poolings join does not divide evenly.
    "MobileNetV2": ((24, 96), ""),
}


def measure(quick: bool) -> list[Row]:
    """Measure the embedding of a batch of images, 224x224."""
    batch = 2 if quick else 8
    rows = []
    for network, (channels, target) in NETWORKS.items():
        maps = [
            torch.rand(batch, count, *grid).contiguous(memory_format=torch.channels_last)
            for count, grid in zip(channels, [(28, 28), (14, 14)], strict=True)
        ]
        embedding = PatchEmbedding(channels)
        rows.append(
            compare(
                f"patch embedding, {network}'s layers, {batch} images",
                ("unfold, resize, pool", lambda maps=maps: embed_by_unfold(maps, 3, 1024, 1024)),
                ("one convolution per layer", lambda maps=maps, e=embedding: e(maps)),
                repeats=3,
                target=target,
            )
        )
    return rows
