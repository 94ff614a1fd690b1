"""The part of all images that is neither learned nor judged, such as a fixture or a time stamp."""

from dataclasses import dataclass

import cv2
import numpy as np

from patchcore.errors import PatchCoreError
from patchcore.preprocess import Preprocess

# Largest difference in pixels between a mask's side and its length by the image's aspect ratio.
ROUNDING = 1.0


@dataclass(frozen=True)
class IgnoreMask:
    """A mask of ignored pixels, cropped as the images are.

    Attributes:
        pixels: (H, W) bool of the crop, True where ignored; neither empty nor full.
        size: (height, width) in pixels of the mask as it was given. Images must have its
            aspect ratio.
    """

    pixels: np.ndarray
    size: tuple[int, int]

    @classmethod
    def of(cls, mask: np.ndarray, preprocess: Preprocess) -> "IgnoreMask":
        """Resize a mask to the nearest pixel and crop it, as its images.

        Args:
            mask: (H, W) bool of any size, True where ignored.
            preprocess: Crops the images.

        Raises:
            PatchCoreError: it is no such mask, or ignores nothing or everything in the crop.
        """
        if (
            not isinstance(mask, np.ndarray)
            or mask.ndim != 2
            or mask.dtype != bool
            or not mask.size
        ):
            found = (
                f"{mask.dtype} {mask.shape}"
                if isinstance(mask, np.ndarray)
                else type(mask).__name__
            )
            raise PatchCoreError(f"expected a mask (H, W) bool, found {found} (ignore_mask)")
        pixels = preprocess.crop_mask(mask)
        if pixels.all() or not pixels.any():
            found = "everything" if pixels.all() else "nothing"
            raise PatchCoreError(
                "expected a mask that is white where images are ignored and black elsewhere, found "
                f"one that ignores {found} in the crop of {pixels.shape[1]}x{pixels.shape[0]} "
                "pixels (ignore_mask)"
            )
        return cls(pixels, mask.shape)

    def check(self, size: tuple[int, int]) -> None:
        """Check that an image has the aspect ratio of the mask.

        Args:
            size: (H, W) of the image in pixels.

        Raises:
            PatchCoreError: the aspect ratios differ, so the mask would cover other things.
        """
        (height, width), (own_height, own_width) = size, self.size
        difference = min(
            abs(own_height - own_width * height / width),
            abs(own_width - own_height * width / height),
        )
        if difference > ROUNDING:
            raise PatchCoreError(
                f"expected an image with the aspect ratio of the mask of ignored pixels, "
                f"{own_width}x{own_height}, found {width}x{height}: give a mask for images of this "
                "size (ignore_mask)"
            )

    def joined(self, other: "IgnoreMask") -> "IgnoreMask":
        """Return a mask that ignores what either mask ignores.

        Raises:
            PatchCoreError: the aspect ratios differ, or both masks together ignore everything.
        """
        self.check(other.size)
        pixels = self.pixels | other.pixels
        if pixels.all():
            raise PatchCoreError(
                "expected at least one pixel that is not ignored, found that the model's mask and "
                "the given mask together ignore everything (ignore_mask)"
            )
        return IgnoreMask(pixels, self.size)

    def resized(self, size: tuple[int, int]) -> "IgnoreMask | None":
        """Return the mask for smaller copies (H, W) of the crops; None if it vanishes there."""
        shares = cv2.resize(
            self.pixels.astype(np.float32), size[::-1], interpolation=cv2.INTER_AREA
        )
        pixels = shares >= 0.5
        return IgnoreMask(pixels, self.size) if pixels.any() else None

    def patches(self, grid: tuple[int, int]) -> np.ndarray:
        """Return the ignored patches: those with at least half of their cell ignored.

        The cell of a patch is its share of the image: the image divided by the grid. Its receptive
        field is larger, so a judged patch next to an ignored one still sees ignored pixels.

        Args:
            grid: (h, w).

        Returns:
            (h, w) bool.

        Raises:
            PatchCoreError: every patch is ignored.
        """
        rows, columns = (
            _overlaps(*lengths) for lengths in zip(grid, self.pixels.shape, strict=True)
        )
        ignored = rows @ self.pixels.astype(np.int64) @ columns.T  # in parts of a pixel
        found = (
            2 * ignored >= self.pixels.size
        )  # a cell is 1 / (h w) of all pixels, each in h w parts
        if found.all():
            raise PatchCoreError(
                "expected a mask that leaves a patch to judge, found that at least half of each of "
                f"the {grid[0]}x{grid[1]} cells is ignored (ignore_mask)"
            )
        return found


@dataclass(frozen=True)
class Cropper:
    """Crops images; another process can have it without the network.

    Attributes:
        preprocess: Resizes and crops.
        mask: Mask of ignored pixels; None for none.
    """

    preprocess: Preprocess
    mask: IgnoreMask | None

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Resize and crop one image, as `PatchCore.crop`."""
        if self.mask is not None:
            self.mask.check(image.shape[:2])
        return self.preprocess.crop_image(image)


@dataclass(frozen=True)
class Ignored:
    """The ignored positions of a model.

    Attributes:
        pixels: (H, W) bool of the crop and of anomaly maps.
        patches: (h, w) bool of the grid.
    """

    pixels: np.ndarray
    patches: np.ndarray


def _overlaps(count: int, length: int) -> np.ndarray:
    """Return (count, length) int64: how much of each pixel is in each cell, in 1 / count."""
    # In units of 1 / count of a pixel, all borders are integers.
    pixels, cells = np.arange(length) * count, np.arange(count)[:, None] * length
    return np.clip(np.minimum(pixels + count, cells + length) - np.maximum(pixels, cells), 0, None)
