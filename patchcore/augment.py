"""Augmented versions of training images, learned in addition to the images."""

from collections.abc import Sequence

import cv2
import numpy as np

from patchcore.settings import BRIGHTNESS, HORIZONTAL, ROTATIONS, VERTICAL

# Degrees, counter-clockwise: with the image itself, the eight rotations of AnomalyDINO.
ANGLES = range(45, 360, 45)
# Factors of all pixels: the ends of the range from which SuperADD draws one for each image.
FACTORS = (0.8, 1.2)

# The versions of each choice of the setting augment, by name. A name completes "image, ...".
VERSIONS = {
    HORIZONTAL: ("horizontal flip",),
    VERTICAL: ("vertical flip",),
    ROTATIONS: tuple(f"rotated {angle}" for angle in ANGLES),
    BRIGHTNESS: tuple(f"brightness {factor}" for factor in FACTORS),
}


def versions_of(augment: Sequence[str]) -> tuple[str, ...]:
    """Return the names of an image's versions: empty for the image itself, then the others."""
    return ("", *(name for choice in augment for name in VERSIONS[choice]))


def changed(images: np.ndarray, version: str) -> np.ndarray:
    """Return a version of cropped images.

    Rotations turn about the centre and keep the size; what comes into view from outside the image
    is its mirror image, as in AnomalyDINO. Pixels are interpolated bilinearly.

    Args:
        images: (B, H, W, 3) uint8.
        version: A name that `versions_of` returns.

    Returns:
        (B, H, W, 3) uint8, contiguous; the images themselves for the empty name.
    """
    kind, _, value = version.rpartition(" ")
    if not version:
        return images
    if value == "flip":
        axis = 1 if kind == "vertical" else 2
        return np.ascontiguousarray(np.flip(images, axis))
    if kind == "rotated":
        return np.stack([_rotated(image, float(value)) for image in images])
    return np.rint(np.minimum(images * np.float32(value), 255)).astype(np.uint8)


def _rotated(image: np.ndarray, angle: float) -> np.ndarray:
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, 1.0)
    return cv2.warpAffine(
        image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
    )
