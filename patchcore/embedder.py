"""Images -> patch embeddings: crop, flip, backbone, patch embedding."""

from collections.abc import Iterator

import numpy as np
import torch

from patchcore.backbone import Backbone
from patchcore.errors import PatchCoreError
from patchcore.patch_embedding import PatchEmbedding
from patchcore.precision import PRECISIONS, float32_products, warn_if_emulated
from patchcore.preprocess import Preprocess
from patchcore.settings import BACKBONE, Settings

# Axis of (B, H, W, 3) that each flip reverses.
FLIP_AXES = {"vertical": 1, "horizontal": 2}


class Embedder:
    """Turns images into patch embeddings.

    Attributes:
        preprocess: Resizing, cropping, normalisation.
        patch_embedding: Feature maps to patch embeddings.
        flip: Flips of training images that are embedded in addition to the images themselves.
        grid: (h, w) patches of an image.

    Args:
        backbone: The cut network. It is not changed, so that several models can share it.
        settings: Settings of the method.
        device: Device of the computation.

    Raises:
        PatchCoreError: the backbone's maps do not fit the settings, or only one of the two applies
            the final norm.
    """

    def __init__(self, backbone: Backbone, settings: Settings, device: torch.device):
        if backbone.norm_tokens != settings.norm_tokens:
            raise PatchCoreError(
                f"expected a backbone with norm_tokens={settings.norm_tokens}, as the settings "
                f"say, found one with norm_tokens={backbone.norm_tokens} (norm_tokens)"
            )
        warn_if_emulated(settings.precision, device)
        self.device = device
        self.flip = settings.flip
        self.preprocess = preprocess_of(backbone, settings)
        self._precision = PRECISIONS[settings.precision]
        self.backbone = backbone.converted(device, self._precision.dtype)
        self.patch_embedding = PatchEmbedding(
            backbone.channels,
            settings.patch_size,
            embed_dim=settings.embed_dim,
            layer_weights=settings.layer_weights,
        ).to(device)
        self.grid = grid_of(backbone, settings)

    @property
    def patches_per_image(self) -> int:
        """Number of patches of an image: h * w."""
        return self.grid[0] * self.grid[1]

    @property
    def embed_dim(self) -> int:
        """Length of an embedding, D."""
        return self.patch_embedding.embed_dim

    def num_patches(self, num_images: int) -> int:
        """Return the number of training patches of ``num_images`` images, with their flips."""
        return num_images * (1 + len(self.flip)) * self.patches_per_image

    def crop(self, image: np.ndarray) -> np.ndarray:
        """Resize and crop one image: (H, W, 3) uint8 to (*size_crop, 3) uint8."""
        return self.preprocess.crop_image(image)

    def versions(self, batch: np.ndarray) -> Iterator[np.ndarray]:
        """Yield a batch (B, H, W, 3) without a flip, then with each of `flip`."""
        yield batch
        for flip in self.flip:
            yield flipped(batch, flip)

    @torch.inference_mode()
    def embed(self, batch: np.ndarray) -> torch.Tensor:
        """Embed the patches of a batch.

        Args:
            batch: (B, *size_crop, 3) uint8 RGB, as `crop` returns them.

        Returns:
            (B, h, w, D) float32 on the device.
        """
        images = self.preprocess.normalise(_upload(batch, self.device))
        with float32_products(self._precision.tensor_float):
            maps = self.backbone(images.to(self._precision.dtype))
        with float32_products():
            return self.patch_embedding([layer_map.float() for layer_map in maps.values()])


def preprocess_of(backbone: Backbone, settings: Settings) -> Preprocess:
    """Return the preprocessing of images for a backbone."""
    expected, interpolation = backbone.input, settings.interpolation
    return Preprocess(
        settings.size_resize,
        settings.size_crop,
        expected.mean,
        expected.std,
        expected.interpolation if interpolation == BACKBONE else interpolation,
    )


def grid_of(backbone: Backbone, settings: Settings) -> tuple[int, int]:
    """Return (h, w), the patches of an image."""
    # An even patch_size has no centre: its grid is one smaller than the layer's map.
    height, width = (length - 1 + settings.patch_size % 2 for length in backbone.grids[0])
    return height, width


def flipped(images: np.ndarray, flip: str) -> np.ndarray:
    """Return images (..., H, W, 3) flipped; the images themselves if ``flip`` is empty."""
    return np.ascontiguousarray(np.flip(images, FLIP_AXES[flip] - 4)) if flip else images


def _upload(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """Copy an array to the device; to a GPU without waiting for the copy."""
    # Contiguous and writable, since torch warns of arrays that it might write to.
    tensor = torch.from_numpy(np.require(array, requirements=("C", "W")))
    if device.type == "cuda":
        tensor = tensor.pin_memory()  # a copy from pageable memory blocks
    return tensor.to(device, non_blocking=True)
