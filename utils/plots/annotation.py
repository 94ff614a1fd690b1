"""A picture or a video's frame with what was found in it drawn on."""

import cv2
import numpy as np

from utils.plots.colour_scale import ColourScale
from utils.plots.text import Label, TextStyle, draw_labels

OVERLAY_STRENGTH = 0.6  # of the colours where the map is highest
OUTLINE, CASING = (255, 255, 255), (20, 20, 20)
# The bar on top, as a part of the shorter side, and at least so many pixels.
BAR_SHARE, BAR_LEAST = 1 / 16, 22
ANOMALY_BAR, NORMAL_BAR = (158, 42, 12), (24, 78, 62)  # dark red, dark green: words say it too
WHITE = (255, 255, 255)


def annotate(
    image: np.ndarray,
    *,
    anomaly_map: np.ndarray,
    scale: ColourScale,
    pixel_threshold: float,
    text: str,
    is_anomaly: bool,
) -> np.ndarray:
    """Draw an anomaly map on its image, outline what is anomalous, and write the verdict on top.

    Args:
        image: (H, W, 3) uint8 RGB.
        anomaly_map: (H, W) float32, of the whole image.
        scale: Of the colours.
        pixel_threshold: From which value on a pixel is outlined.
        text: Verdict and score, one line.
        is_anomaly: The colour of the bar behind the text.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    fractions = scale.fraction(anomaly_map)
    # Squared: what is normal keeps its own colours.
    strength = OVERLAY_STRENGTH * fractions**2
    drawn = cv2.blendLinear(scale.colours(fractions), image, strength, 1 - strength)
    marked = (anomaly_map >= pixel_threshold).astype(np.uint8)
    edges, _ = cv2.findContours(marked, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    thickness = max(1, round(min(image.shape[:2]) / 300))
    for colour, width in ((CASING, 3 * thickness), (OUTLINE, thickness)):
        cv2.drawContours(drawn, edges, -1, colour, width, cv2.LINE_AA)
    height = max(BAR_LEAST, round(min(image.shape[:2]) * BAR_SHARE))
    drawn[:height] = ANOMALY_BAR if is_anomaly else NORMAL_BAR
    style = TextStyle(round(0.6 * height), bold=True, colour=WHITE)
    draw_labels(drawn, [Label(text, height // 3, height // 2, style, anchor="lm")])
    return drawn
