"""Hatching of the part of an image that is not judged."""

import cv2
import numpy as np

GREY = 128
STRIPE_GREY = 176
PERIOD = 12  # pixels between two stripes, along a row
STRIPE = 3  # pixels of a stripe, along a row


def hatch(image: np.ndarray, region: np.ndarray) -> None:
    """Fill a region with grey and diagonal stripes, in place.

    Args:
        image: (H, W, 3) uint8 RGB.
        region: (h, w) bool of the same part of the image, resized to the nearest pixel.
    """
    size = image.shape[1], image.shape[0]
    inside = cv2.resize(region.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
    rows, columns = np.nonzero(inside)
    is_stripe = (rows + columns) % PERIOD < STRIPE
    image[rows, columns] = np.where(is_stripe, STRIPE_GREY, GREY)[:, None]
