"""RGB arrays -> normalised (B, 3, H, W), the input of the backbone."""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from PIL import Image

from patchcore.network_input import IMAGENET_MEAN, IMAGENET_STD

# Filters of Pillow; each averages over all pixels of the area that a pixel covers.
_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@dataclass(frozen=True)
class Preprocess:
    """Resize, centre crop and normalise (section 4.1 of the paper).

    Resizing and cropping work image by image on the CPU (any size in, one size out), so that
    batches are uint8 and small until `normalise` runs on the device.

    `patchcore.settings.Settings` checks the values.

    Attributes:
        size_resize: (height, width) in pixels of the resized image.
        size_crop: (height, width) in pixels of the centre crop.
        mean: Mean of each RGB channel, in [0, 1].
        std: Standard deviation of each RGB channel, in [0, 1].
        interpolation: ``bilinear`` (antialiased, as the reference code), ``bicubic`` (antialiased,
            as many vision transformers are trained with) or ``area`` (each pixel is the mean of the
            area it covers, as in PatchCore-ex).
    """

    size_resize: tuple[int, int] = (256, 256)
    size_crop: tuple[int, int] = (224, 224)
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    interpolation: str = "bilinear"

    def crop_image(self, image: np.ndarray) -> np.ndarray:
        """Resize and crop the centre.

        Args:
            image: (H, W, 3) uint8 RGB of any size.

        Returns:
            (*size_crop, 3) uint8 RGB.
        """
        if self.interpolation == "area":
            resized = cv2.resize(image, self.size_resize[::-1], interpolation=cv2.INTER_AREA)
            top, left = self._crop_origin()
            return resized[top : top + self.size_crop[0], left : left + self.size_crop[1]]
        return self._crop_antialiased(image)

    def crop_box(self, size: tuple[int, int]) -> tuple[float, float, float, float]:
        """Return the part of an image that the crop, and so the anomaly map, shows.

        Args:
            size: (H, W) in pixels of the image.

        Returns:
            (left, top, right, bottom) in pixels of the image, from its upper left corner.
        """
        top, left = self._crop_origin()
        bottom, right = top + self.size_crop[0], left + self.size_crop[1]
        (height, width), (height_resized, width_resized) = size, self.size_resize
        # Divided last: without a crop, the box ends exactly at the image's border.
        return (
            left * width / width_resized,
            top * height / height_resized,
            right * width / width_resized,
            bottom * height / height_resized,
        )

    def crop_mask(self, mask: np.ndarray) -> np.ndarray:
        """Resize a mask to the nearest pixel and crop the centre, as its image.

        Args:
            mask: (H, W) bool of any size.

        Returns:
            size_crop bool.
        """
        top, left = self._crop_origin()
        rows = _nearest(mask.shape[0], self.size_resize[0], top, self.size_crop[0])
        columns = _nearest(mask.shape[1], self.size_resize[1], left, self.size_crop[1])
        return mask[np.ix_(rows, columns)]

    def normalise(self, images: torch.Tensor) -> torch.Tensor:
        """Scale to [0, 1], subtract the mean, divide by the standard deviation.

        Args:
            images: (B, H, W, 3) uint8 RGB on any device.

        Returns:
            (B, 3, H, W) float32 on the same device, channels last in memory (the order of the
            given images, and the fastest one for convolutions).
        """
        mean, std = (_filled(values, images.device) * 255 for values in (self.mean, self.std))
        return images.permute(0, 3, 1, 2).float().sub_(mean[:, None, None]).div_(std[:, None, None])

    def _crop_antialiased(self, image: np.ndarray) -> np.ndarray:
        """Resize with one of Pillow's antialiased filters, as the reference code does."""
        # Only the part of the source that the crop shows: Pillow computes no other pixels, and its
        # filter still reads those beyond this box, so the result is the same.
        box = self.crop_box(image.shape[:2])
        resized = Image.fromarray(image).resize(
            self.size_crop[::-1], _FILTERS[self.interpolation], box=box
        )
        return np.asarray(resized)

    def _crop_origin(self) -> tuple[int, int]:
        """Return (top, left) of the crop in the resized image, rounded as torchvision does."""
        top, left = (
            round((size - crop) / 2)
            for size, crop in zip(self.size_resize, self.size_crop, strict=True)
        )
        return top, left


def _filled(values: tuple[float, float, float], device: torch.device) -> torch.Tensor:
    """Return (3,) created on the device: a copy to a GPU would wait until it has finished."""
    return torch.cat([torch.full((1,), value, device=device) for value in values])


def _nearest(size_in: int, size_resized: int, first: int, count: int) -> np.ndarray:
    """Return the source pixel under the centre of each of ``count`` pixels from ``first`` on."""
    # (i + 1/2) * in / out, rounded down, in integers: a centre may be exactly between two pixels.
    return (2 * np.arange(first, first + count) + 1) * size_in // (2 * size_resized)
