"""Arrays, PIL images and tensors -> (H, W, 3) uint8 RGB arrays."""

import os
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from PIL import Image

from patchcore.errors import PatchCoreError

AnyImage = np.ndarray | Image.Image | torch.Tensor
EXPECTED = (
    "(H, W, 3) or (H, W) uint8 arrays, PIL images, or (3, H, W) or (1, H, W) tensors (uint8, or "
    "floats in [0, 1])"
)


def as_rgb(image: AnyImage) -> np.ndarray:
    """Return an image as (H, W, 3) uint8 RGB.

    Args:
        image: One of

            - an array (H, W, 3) uint8 RGB, or (H, W) uint8 grey;
            - a PIL image; palettes become their colours, the upper 8 of 16 bits are kept,
              transparency is dropped, and the EXIF orientation is ignored (apply
              ``PIL.ImageOps.exif_transpose`` first);
            - a tensor (3, H, W) RGB or (1, H, W) grey: uint8, or floats in [0, 1], *not* normalised
              by a mean and a standard deviation, since PatchCore does that itself.

    Raises:
        PatchCoreError: it is none of these.
    """
    if isinstance(image, Image.Image):
        return _from_pil(image)
    if isinstance(image, torch.Tensor):
        return _from_tensor(image)
    if not isinstance(image, np.ndarray):
        raise PatchCoreError(f"expected {EXPECTED}, found {type(image).__name__}")
    if image.ndim == 2:
        image = np.repeat(image[:, :, None], 3, axis=2)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise PatchCoreError(f"expected {EXPECTED}, found {image.dtype} {image.shape}")
    return image


def each_image(images: Iterable) -> Iterator[np.ndarray]:
    """Yield the images of a list, a batch or a loader as (H, W, 3) uint8 RGB, one by one.

    Args:
        images: Single images as `as_rgb` takes them; batches, (B, 3, H, W) tensors or (B, H, W, 3)
            arrays; or the entries of data loaders for (image, label) data sets: a list or tuple
            with a batch or an image first, and labels after it.

    Raises:
        PatchCoreError: an entry is none of these or holds several images, or a single image was
            given instead of several.
    """
    if isinstance(images, np.ndarray | torch.Tensor) and images.ndim != 4:
        raise PatchCoreError(
            f"expected several images, found one array of shape {tuple(images.shape)}: put a "
            "single image into a list"
        )
    if isinstance(images, Image.Image | str | os.PathLike):
        raise PatchCoreError(f"expected several images, found one {type(images).__name__}")
    try:
        entries = iter(images)
    except TypeError as error:
        raise PatchCoreError(f"expected several images, found {type(images).__name__}") from error
    for entry in entries:
        item, *others = entry if isinstance(entry, list | tuple) and entry else (entry,)
        if isinstance(item, np.ndarray | torch.Tensor) and item.ndim == 4:
            yield from map(as_rgb, item)
        elif any(map(_is_image, others)):  # all but the first would be lost
            raise PatchCoreError(
                f"expected single images, batches, or (image, label) pairs, found a "
                f"{type(entry).__name__} of {len(entry)} images within the images"
            )
        else:
            yield as_rgb(item)


def _is_image(value: object) -> bool:
    return isinstance(value, Image.Image) or (
        isinstance(value, np.ndarray | torch.Tensor) and value.ndim >= 2
    )


def _from_pil(image: Image.Image) -> np.ndarray:
    try:
        image.load()  # a file may have been opened only
    except (OSError, SyntaxError, ValueError) as error:
        raise PatchCoreError(
            f"expected a complete PIL image, found a damaged one: {error}"
        ) from error
    if image.mode.startswith("I;16"):  # Pillow would turn values above 255 into white
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F") or not image.width or not image.height:
        raise PatchCoreError(
            f"expected {EXPECTED}, found a PIL image of mode {image.mode} and size {image.size}: "
            "numbers without a known range must be scaled to 8 bits first"
        )
    return np.asarray(image.convert("RGB"))


def _from_tensor(image: torch.Tensor) -> np.ndarray:
    if image.ndim != 3 or image.shape[0] not in (1, 3) or not image.numel():
        raise PatchCoreError(f"expected {EXPECTED}, found a tensor {tuple(image.shape)}")
    image = image.detach()
    if image.is_floating_point():
        lowest, highest = float(image.min()), float(image.max())
        if not (lowest >= 0 and highest <= 1):  # also if a value is undefined
            raise PatchCoreError(
                f"expected a tensor of floats in [0, 1], found {lowest:.3g} to {highest:.3g}: give "
                "images as they are, PatchCore normalises them itself"
            )
        image = (image.float() * 255).round().to(torch.uint8)
    if image.dtype != torch.uint8:
        raise PatchCoreError(f"expected a tensor of uint8 or floats, found {image.dtype}")
    return image.expand(3, -1, -1).permute(1, 2, 0).contiguous().cpu().numpy()
