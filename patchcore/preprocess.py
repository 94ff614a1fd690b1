"""RGB arrays -> normalised (B, 3, H, W), as the backbone was trained."""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from PIL import Image

from patchcore.errors import PatchCoreError
from patchcore.settings import INTERPOLATIONS

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocess:
    """Resize, centre crop and normalise (section 4.1 of the paper).

    Resizing and cropping work image by image on the CPU (any size in, one size out), so that
    batches are uint8 and small until `normalise` runs on the device.

    Attributes:
        size_resize: (height, width) in pixels of the resized image.
        size_crop: (height, width) in pixels of the part that is kept from its middle.
        mean: Of each RGB channel, in [0, 1].
        std: Of each RGB channel, in [0, 1].
        interpolation: ``bilinear`` (antialiased, the reference) or ``area`` (each pixel the mean of
            the area it covers, as PatchCore-ex resizes).

    Raises:
        PatchCoreError: the crop is larger than the resized image, a size is not positive, or the
            interpolation is unknown.
    """

    size_resize: tuple[int, int] = (256, 256)
    size_crop: tuple[int, int] = (224, 224)
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        if min(*self.size_resize, *self.size_crop) < 1:
            raise PatchCoreError(
                f"expected positive sizes, found size_resize {self.size_resize} "
                f"and size_crop {self.size_crop}"
            )
        if any(crop > size for crop, size in zip(self.size_crop, self.size_resize, strict=True)):
            raise PatchCoreError(
                f"expected size_crop at most size_resize, found size_crop {self.size_crop} "
                f"and size_resize {self.size_resize} (height, width)"
            )

        if self.interpolation not in INTERPOLATIONS:
            raise PatchCoreError(
                f"expected interpolation {' or '.join(INTERPOLATIONS)}, found "
                f"{self.interpolation!r}"
            )

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
        return self._crop_bilinear(image)

    def crop_box(self, size: tuple[int, int]) -> tuple[float, float, float, float]:
        """Return which part of an image the crop, and so the anomaly map, shows.

        Args:
            size: (H, W) in pixels of the image.

        Returns:
            (left, top, right, bottom) in pixels of the image, from its upper left corner.
        """
        top, left = self._crop_origin()
        bottom, right = top + self.size_crop[0], left + self.size_crop[1]
        (height, width), (height_resized, width_resized) = size, self.size_resize
        # Divided last: the box of all of an image ends at its border to the last bit.
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
            (B, 3, H, W) float32 on the same device, channels last in memory (the fast order for
            convolutions, and the one in which the images already lie).
        """
        mean, std = (_filled(values, images.device) * 255 for values in (self.mean, self.std))
        return images.permute(0, 3, 1, 2).float().sub_(mean[:, None, None]).div_(std[:, None, None])

    def _crop_bilinear(self, image: np.ndarray) -> np.ndarray:
        """Resize with Pillow's antialiased bilinear, which is the reference's."""
        # Of the source only what ends up in the crop: Pillow then skips what is cut off, and its
        # filter still sees the pixels beyond this box, so that nothing changes by it.
        box = self.crop_box(image.shape[:2])
        resized = Image.fromarray(image).resize(
            self.size_crop[::-1], Image.Resampling.BILINEAR, box=box
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
    """Return (3,) on the device, made there: a copy to a GPU would wait for all of its work."""
    return torch.cat([torch.full((1,), value, device=device) for value in values])


def _nearest(size_in: int, size_resized: int, first: int, count: int) -> np.ndarray:
    """Return the source pixel under the centre of each of ``count`` pixels from ``first`` on."""
    # (i + 1/2) * in / out, rounded down, in integers: a centre may lie just between two pixels.
    return (2 * np.arange(first, first + count) + 1) * size_in // (2 * size_resized)
