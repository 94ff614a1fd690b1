"""Three small views of a test image side by side; the report shows one at a time."""

import cv2
import numpy as np

from utils.plots.colour_scale import ColourScale
from utils.plots.hatching import hatch
from utils.plots.localization import overlay, panel_size, resize_image

SIDE = 192  # pixels; sharp also on screens with two pixels per CSS pixel


def draw_thumbnail(
    image: np.ndarray,
    anomaly_map: np.ndarray,
    rebuilt: np.ndarray | None,
    score_range: tuple[float, float],
    ignored: np.ndarray | None = None,
) -> np.ndarray:
    """Draw an image, its anomaly map on the image, and the image rebuilt from training patches.

    Args:
        image: (H, W, 3) uint8 RGB.
        anomaly_map: (H, W) float.
        rebuilt: (H, W, 3) uint8 RGB, `image` rebuilt from its nearest training patches; None to
            leave it out.
        score_range: Lowest and highest distance of the colour scale.
        ignored: (H, W) bool, the part that is not judged, which is hatched on the map; None for
            none.

    Returns:
        (H', 3 W', 3) uint8 RGB, or (H', 2 W', 3) without `rebuilt`; H' by W' has the image's
        proportions and about 192 x 192 pixels.
    """
    size = panel_size(*image.shape[:2], side=SIDE)
    scale = ColourScale(*score_range)
    resized = resize_image(image, size)
    distances = cv2.resize(anomaly_map.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    fractions = scale.fraction(distances)
    on_image = overlay(resized, scale.colours(fractions), fractions, [])
    if ignored is not None:
        hatch(on_image, ignored)
    views = [resized, on_image]
    if rebuilt is not None:
        views.append(resize_image(rebuilt, size))
    return np.concatenate(views, axis=1)
