"""The overlay of a prediction on an image or on a frame of a video."""

import cv2
import numpy as np

from utils.plots.colour_scale import ColourScale
from utils.plots.hatching import hatch
from utils.plots.text import Label, TextStyle, draw_labels

OVERLAY_STRENGTH = 0.6  # opacity of the colours where the map is highest
OUTLINE, CASING = (255, 255, 255), (20, 20, 20)
# Height of the bar on top: a share of the image's shorter side, and the least number of pixels.
BAR_SHARE, MIN_BAR_HEIGHT = 1 / 16, 22
ANOMALY_BAR, NORMAL_BAR = (158, 42, 12), (24, 78, 62)  # dark red, dark green; the text says it too
WHITE = (255, 255, 255)


def annotate(
    image: np.ndarray,
    *,
    anomaly_map: np.ndarray,
    scale: ColourScale,
    pixel_threshold: float,
    text: str,
    is_anomaly: bool,
    ignored: np.ndarray | None = None,
) -> np.ndarray:
    """Draw an anomaly map on its image with outlines of anomalous regions and the verdict on top.

    Args:
        image: (H, W, 3) uint8 RGB.
        anomaly_map: (H, W) float32, the map of the whole image.
        scale: The colour scale of the map.
        pixel_threshold: Regions of at least this value are outlined.
        text: Verdict and score in one line.
        is_anomaly: Chooses the colour of the bar behind the text.
        ignored: (H, W) bool, the part that is not judged, which is hatched; None for none.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    fractions = scale.fraction(anomaly_map)
    # Squared, so that normal regions keep the colours of the image.
    strength = OVERLAY_STRENGTH * fractions**2
    drawn = cv2.blendLinear(scale.colours(fractions), image, strength, 1 - strength)
    marked = (anomaly_map >= pixel_threshold).astype(np.uint8)
    if ignored is not None:
        hatch(drawn, ignored)
        marked[ignored] = 0
    edges, _ = cv2.findContours(marked, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    thickness = max(1, round(min(image.shape[:2]) / 300))
    for colour, width in ((CASING, 3 * thickness), (OUTLINE, thickness)):
        cv2.drawContours(drawn, edges, -1, colour, width, cv2.LINE_AA)
    height = max(MIN_BAR_HEIGHT, round(min(image.shape[:2]) * BAR_SHARE))
    drawn[:height] = ANOMALY_BAR if is_anomaly else NORMAL_BAR
    style = TextStyle(round(0.6 * height), bold=True, colour=WHITE)
    draw_labels(drawn, [Label(text, height // 3, height // 2, style, anchor="lm")])
    return drawn
