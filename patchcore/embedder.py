"""Images -> patch embeddings: crop, augment, backbone, patch embedding."""

import logging
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from patchcore.augment import changed, versions_of
from patchcore.backbone import Backbone
from patchcore.errors import PatchCoreError
from patchcore.patch_embedding import make_embedding
from patchcore.precision import PRECISIONS, warn_if_emulated
from patchcore.preprocess import Preprocess
from patchcore.scales import Scales
from patchcore.settings import BACKBONE, PER_LAYER, Settings
from patchcore.tiling import Tiling
from patchcore.torch_state import float32_products, torch_defaults

log = logging.getLogger(__name__)


class Embedder:
    """Turns images into patch embeddings.

    If a batch does not fit into the memory of the device, it and all later ones are halved.

    Attributes:
        preprocess: Resizing, cropping, normalisation.
        patch_embedding: Feature maps to patch embeddings.
        versions: Names of the versions in which training images are embedded; the first, empty
            one is the image itself.
        grid: (h, w) patches of an image.
        num_banks: Number of memory banks, L: 1, or one for each layer.
        tiling: How images are divided into tiles; None for no tiles.
        scales: The sizes at which images go through the backbone; None for one.

    Args:
        backbone: The cut network. It is not changed, so that several models can share it. One for
            images of another size than the settings' is laid out anew.
        settings: Settings of the method.
        device: Device of the computation.

    Raises:
        PatchCoreError: the backbone's maps do not fit the settings, its network does not take
            images of their size, or only one of the two applies the final norm.
    """

    def __init__(self, backbone: Backbone, settings: Settings, device: torch.device):
        if backbone.norm_tokens != settings.norm_tokens:
            raise PatchCoreError(
                f"expected a backbone with norm_tokens={settings.norm_tokens}, as the settings "
                f"say, found one with norm_tokens={backbone.norm_tokens} (norm_tokens)"
            )
        backbone = backbone.at(settings.size_network)
        warn_if_emulated(settings.precision, device)
        self.device = device
        self.versions = versions_of(settings.augment)
        self.preprocess = preprocess_of(backbone, settings)
        self._precision = PRECISIONS[settings.precision]
        self.backbone = backbone.converted(device, self._precision.dtype)
        channels = backbone.channels * len(settings.scales)
        self.patch_embedding = make_embedding(channels, settings).to(device)
        self.tiling = tiling_of(backbone, settings)
        self.scales = scales_of(backbone, settings)
        self.grid = grid_of(backbone, settings)
        self.num_banks = num_banks_of(len(backbone.layers), settings)
        self._largest_batch = math.inf  # that is tried

    @property
    def patches_per_image(self) -> int:
        """Number of patches of an image: h * w."""
        return self.grid[0] * self.grid[1]

    @property
    def embed_dim(self) -> int:
        """Length of an embedding, of all banks together."""
        return self.patch_embedding.embed_dim

    def num_patches(self, num_images: int) -> int:
        """Return the number of training patches of ``num_images`` images, in all versions."""
        return num_images * len(self.versions) * self.patches_per_image

    def each_version(self, batch: np.ndarray) -> Iterator[np.ndarray]:
        """Yield a batch (B, H, W, 3) in each of `versions`."""
        for version in self.versions:
            yield changed(batch, version)

    @torch_defaults()
    @torch.inference_mode()
    def embed(self, batch: np.ndarray) -> torch.Tensor:
        """Embed the patches of a batch.

        Args:
            batch: (B, *size_crop, 3) uint8 RGB, as `PatchCore.crop` returns them.

        Returns:
            (B, h, w, D) float32 on the device; with one bank for each layer, L parts of equal
            length.

        Raises:
            torch.OutOfMemoryError: one image does not fit into the memory of the device.
        """
        tried = size = min(len(batch), self._largest_batch)
        while (embedded := self._embed_parts(batch, size)) is None:
            size = math.ceil(size / 2)
        if size < tried:
            self._largest_batch = size
            log.warning(
                "the memory of the device is too small for batches of %d images: from here on, "
                "batches have at most %d (--batch_size)",
                tried,
                size,
            )
        return embedded

    def _embed_parts(self, batch: np.ndarray, size: int) -> torch.Tensor | None:
        """Embed a batch in parts of at most ``size`` images; return None if these do not fit."""
        try:
            parts = [
                self._embed_at_once(batch[first : first + size])
                for first in range(0, len(batch), size)
            ]
            return parts[0] if len(parts) == 1 else torch.cat(parts)
        except torch.OutOfMemoryError:
            if size == 1:
                raise
            return None

    def _embed_at_once(self, batch: np.ndarray) -> torch.Tensor:
        images = self.preprocess.normalise(_upload(batch, self.device))
        images = images.to(self._precision.dtype)
        with float32_products(self._precision.tensor_float):
            maps = layer_maps(self.backbone.maps, images, self.tiling, self.scales)
        with float32_products():
            return self.patch_embedding([layer_map.float() for layer_map in maps])


def layer_maps(
    network: Callable[[torch.Tensor], Sequence[torch.Tensor]],
    images: torch.Tensor,
    tiling: Tiling | None,
    scales: Scales | None,
) -> list[torch.Tensor]:
    """Return the maps (B, C, h, w) of images (B, 3, H, W), in tiles or at several scales."""
    parts = tiling or scales
    return list(network(images)) if parts is None else parts.maps(network, images)


def preprocess_of(backbone: Backbone, settings: Settings) -> Preprocess:
    """Return the preprocessing of images for a backbone."""
    expected, interpolation = backbone.input, settings.interpolation
    return Preprocess(
        settings.size_resize,
        settings.size_crop,
        expected.mean,
        expected.std,
        expected.interpolation if interpolation == BACKBONE else interpolation,
        settings.resize,
    )


def grid_of(backbone: Backbone, settings: Settings) -> tuple[int, int]:
    """Return (h, w), the patches of an image."""
    tiling = tiling_of(backbone, settings)
    grids = backbone.grids if tiling is None else tiling.grids
    # An even patch_size has no centre: its grid is one smaller than the layer's map.
    height, width = (length - 1 + settings.patch_size % 2 for length in grids[0])
    return height, width


def tiling_of(backbone: Backbone, settings: Settings) -> Tiling | None:
    """Return how images are divided into tiles; None for no tiles."""
    if not settings.tile:
        return None
    return Tiling(settings.size_crop, settings.tile, settings.overlap, backbone.grids)


def scales_of(backbone: Backbone, settings: Settings) -> Scales | None:
    """Return the sizes at which images go through the backbone; None for one."""
    if len(settings.scales) == 1:
        return None
    return Scales.of(settings.size_crop, settings.scales, backbone)


def num_banks_of(num_layers: int, settings: Settings) -> int:
    """Return the number of memory banks."""
    return num_layers * len(settings.scales) if settings.banks == PER_LAYER else 1


def _upload(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """Copy an array to the device; to a GPU without waiting for the copy."""
    # Contiguous and writable, since torch warns of arrays that it might write to.
    tensor = torch.from_numpy(np.require(array, requirements=("C", "W")))
    if device.type == "cuda":
        tensor = tensor.pin_memory()  # a copy from pageable memory blocks
    return tensor.to(device, non_blocking=True)
