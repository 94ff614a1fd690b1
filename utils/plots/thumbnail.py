"""Three small views of a test image side by side, of which a page shows one at a time."""

import cv2
import numpy as np

from utils.plots.colour_scale import ColourScale
from utils.plots.localization import overlay, panel_size, resize_photo

SIDE = 192  # pixels: sharp on a phone, whose pixels are half of a page's


def draw_thumbnail(
    image: np.ndarray,
    anomaly_map: np.ndarray,
    rebuilt: np.ndarray,
    score_range: tuple[float, float],
) -> np.ndarray:
    """Draw an image, its anomaly map laid on it, and what it was compared with.

    Args:
        image: (H, W, 3) uint8 RGB.
        anomaly_map: (H, W) float.
        rebuilt: (H, W, 3) uint8 RGB, `image` rebuilt from its nearest normal training patches.
        score_range: lowest and highest distance of the colour scale.

    Returns:
        (H', 3 W', 3) uint8 RGB in the image's proportions, H' W' of about 192 by 192 pixels.
    """
    size = panel_size(*image.shape[:2], side=SIDE)
    scale = ColourScale(*score_range)
    photo = resize_photo(image, size)
    distances = cv2.resize(anomaly_map.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    fractions = scale.fraction(distances)
    on_image = overlay(photo, scale.colours(fractions), fractions, [])
    return np.concatenate([photo, on_image, resize_photo(rebuilt, size)], axis=1)
