"""RGB arrays -> normalised (B, 3, H, W), the input of the backbone."""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from PIL import Image

from patchcore.errors import PatchCoreError
from patchcore.network_input import IMAGENET_MEAN, IMAGENET_STD
from patchcore.settings import SHORTER_EDGE, STRETCH

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
        resize: ``stretch`` (both sides), or ``shorter_edge``: the aspect is kept and the shorter
            edge is ``size_resize[0]`` pixels long, the longer one rounded down, as in AnomalyDINO
            (Damm et al. 2024, section 4). All images of a category need one grid, so the centre of
            ``size_crop`` is used, and a side that is shorter than it is extended by the border
            pixels on both ends.
    """

    size_resize: tuple[int, int] = (256, 256)
    size_crop: tuple[int, int] = (224, 224)
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    interpolation: str = "bilinear"
    resize: str = STRETCH

    def crop_image(self, image: np.ndarray) -> np.ndarray:
        """Resize and crop the centre.

        Args:
            image: (H, W, 3) uint8 RGB of any size.

        Returns:
            (*size_crop, 3) uint8 RGB.
        """
        height, width = self.resized(image.shape[:2])
        rows, columns = self._windows((height, width))
        if self.interpolation == "area":
            resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
            crop = resized[rows.start : rows.stop, columns.start : columns.stop]
        else:
            crop = self._crop_antialiased(image, rows, columns)
        missing = rows.missing, columns.missing, (0, 0)
        return np.pad(crop, missing, mode="edge") if any(map(any, missing)) else crop

    def check_crops(self, batch: np.ndarray) -> None:
        """Check that a batch of images is cropped and has its full range.

        Raises:
            PatchCoreError: it is not (B, *size_crop, 3) uint8 with at least one image.
        """
        is_array = isinstance(batch, np.ndarray)
        expected = (*self.size_crop, 3)
        if not is_array or batch.dtype != np.uint8 or batch.shape[1:] != expected or not len(batch):
            shape = ", ".join(map(str, expected))
            found = f"{batch.dtype} {batch.shape}" if is_array else type(batch).__name__
            raise PatchCoreError(
                f"expected batches of crops (B, {shape}) uint8, as crop returns them, found {found}"
            )

    def resized(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the height and width to which an image of a size (H, W) is resized."""
        if self.resize != SHORTER_EDGE:
            return self.size_resize
        edge, shorter = self.size_resize[0], min(size)
        height, width = (edge * length // shorter for length in size)
        return height, width

    def crop_box(self, size: tuple[int, int]) -> tuple[float, float, float, float]:
        """Return the part of an image that the crop, and so the anomaly map, shows.

        With ``shorter_edge`` it may extend beyond the image.

        Args:
            size: (H, W) in pixels of the image.

        Returns:
            (left, top, right, bottom) in pixels of the image, from its upper left corner.
        """
        height_resized, width_resized = self.resized(size)
        top, left = self._crop_origin((height_resized, width_resized))
        bottom, right = top + self.size_crop[0], left + self.size_crop[1]
        height, width = size
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
            size_crop bool; false where the crop extends beyond the image.
        """
        height, width = self.resized(mask.shape)
        rows, columns = self._windows((height, width))
        row = _nearest(mask.shape[0], height, rows.start, rows.stop - rows.start)
        column = _nearest(mask.shape[1], width, columns.start, columns.stop - columns.start)
        return np.pad(mask[np.ix_(row, column)], (rows.missing, columns.missing))

    def describe(self) -> str:
        """Return resizing and cropping in words, as an exported file's user has to do them."""
        (height, width), (crop_height, crop_width) = self.size_resize, self.size_crop
        crop = f", then centre-cropped to {crop_height}x{crop_width}"
        how = f"{'' if self.interpolation == 'area' else 'antialiased '}{self.interpolation}"
        if self.resize == SHORTER_EDGE:
            return (
                f"resized to a shorter edge of {height} pixels (the aspect kept, {how}){crop} "
                "and extended by its border pixels where it is smaller"
            )
        if self.size_crop == self.size_resize:
            crop = ""
        return f"resized to {height}x{width} (height x width, {how}){crop}"

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

    def _crop_antialiased(
        self, image: np.ndarray, rows: "_Window", columns: "_Window"
    ) -> np.ndarray:
        """Resize with one of Pillow's antialiased filters, as the reference code does."""
        # Only the part of the source that the crop shows: Pillow computes no other pixels, and its
        # filter still reads those beyond this box, so the result is the same.
        height, width = image.shape[:2]
        height_resized, width_resized = self.resized((height, width))
        # Divided last: without a crop, the box ends exactly at the image's border.
        box = (
            columns.start * width / width_resized,
            rows.start * height / height_resized,
            columns.stop * width / width_resized,
            rows.stop * height / height_resized,
        )
        size = columns.stop - columns.start, rows.stop - rows.start
        resized = Image.fromarray(image).resize(size, _FILTERS[self.interpolation], box=box)
        return np.asarray(resized)

    def _windows(self, resized: tuple[int, int]) -> list["_Window"]:
        """Return the rows and the columns of the resized image that the crop shows."""
        axes = zip(self._crop_origin(resized), self.size_crop, resized, strict=True)
        return [_Window.of(*axis) for axis in axes]

    def _crop_origin(self, resized: tuple[int, int]) -> tuple[int, int]:
        """Return (top, left) of the crop in the resized image, rounded as torchvision does.

        A number is negative where the resized image is smaller than the crop.
        """
        top, left = (
            round((size - crop) / 2) for size, crop in zip(resized, self.size_crop, strict=True)
        )
        return top, left


@dataclass(frozen=True)
class _Window:
    """The part of one axis of a resized image that its crop shows.

    Attributes:
        start: First pixel of the resized image.
        stop: Pixel after the last.
        missing: Number of pixels of the crop before and after the image.
    """

    start: int
    stop: int
    missing: tuple[int, int]

    @classmethod
    def of(cls, origin: int, count: int, length: int) -> "_Window":
        """Return the window of ``count`` pixels from ``origin`` on, of a length of pixels."""
        start, stop = max(origin, 0), min(origin + count, length)
        return cls(start, stop, (start - origin, origin + count - stop))


def _filled(values: tuple[float, float, float], device: torch.device) -> torch.Tensor:
    """Return (3,) created on the device: a copy to a GPU would wait until it has finished."""
    return torch.cat([torch.full((1,), value, device=device) for value in values])


def _nearest(size_in: int, size_resized: int, first: int, count: int) -> np.ndarray:
    """Return the source pixel under the centre of each of ``count`` pixels from ``first`` on."""
    # (i + 1/2) * in / out, rounded down, in integers: a centre may be exactly between two pixels.
    return (2 * np.arange(first, first + count) + 1) * size_in // (2 * size_resized)
