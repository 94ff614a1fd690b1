"""One figure per test image: the image, its nearest normal patches, its anomaly map and mask."""

import math

import cv2
import numpy as np

from utils.plots.colour_scale import ColourScale
from utils.plots.hatching import hatch
from utils.plots.panel_grid import ColourBar, LineKey, Panel, compose_panels, draw_lines

COLUMNS = 3
PANEL_SIDE = 360  # pixels; images that are not square get the same area

NORMAL_GREY = 22  # of normal pixels in the ground truth; defects are white
# Neither colour is in the colour map. Dashes distinguish the lines without any colour.
TRUTH_COLOUR = (0, 229, 255)
THRESHOLD_COLOUR = (255, 255, 255)

OVERLAY_STRENGTH = 0.8  # opacity of the colours where the map is highest
NORMAL_BRIGHTNESS = 0.08  # brightness of the image where the map is lowest


def draw_localization(
    image: np.ndarray,
    *,
    mask: np.ndarray | None,
    anomaly_map: np.ndarray,
    rebuilt: np.ndarray,
    defect_type: str,
    file_name: str,
    score: float,
    score_range: tuple[float, float],
    threshold: float | None = None,
    image_threshold: float | None = None,
    ignored: np.ndarray | None = None,
) -> np.ndarray:
    """Draw an image, its nearest normal patches, three views of its anomaly map, its ground truth.

    Args:
        image: (H, W, 3) uint8 RGB, the cropped image.
        mask: (H, W) bool, true on the defect; None without ground truth, which leaves out its
            panel and its contour.
        anomaly_map: (H, W) float, in the unit of the score.
        rebuilt: (H, W, 3) uint8 RGB, `image` rebuilt from its nearest training patches.
        defect_type: The title of the image, such as "good" or "broken_large".
        file_name: The text below the title; the middle of a long name is left out.
        score: The anomaly score of the image, marked on the colour bar.
        score_range: Lowest and highest distance of the colour scale. Equal colours mean equal
            distances only if all images of a category have the same range.
        threshold: The distance from which a pixel counts as defective; None for no contour.
        image_threshold: The score from which an image counts as defective; None to leave it out.
        ignored: (H, W) bool, the part that is not judged, which is hatched; None for none.

    Returns:
        (H', W', 3) uint8 RGB, about 900 by 1250 pixels for square images.

    Raises:
        ValueError: an end of the score range is not finite, or the range falls.
    """
    scale = ColourScale(*score_range)
    size = panel_size(*image.shape[:2])
    resized = resize_image(image, size)
    distances = cv2.resize(anomaly_map.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
    fractions = scale.fraction(distances)
    colours = scale.colours(fractions)
    marked = _find_marked(distances, threshold, ignored)
    contours = _contours(None if mask is None else _resize_mask(mask, size), marked, threshold)

    panels = [
        Panel(resized, defect_type, file_name),
        # Next to the image, so that both can be compared.
        Panel(
            resize_image(rebuilt, size), "Nearest normal patches", "rebuilt from training images"
        ),
        Panel(
            colours,
            "Anomaly map",
            _score_text(score, image_threshold),
            bar=ColourBar(scale, score, threshold),
        ),
        Panel(
            overlay(resized, colours, fractions, contours),
            "Overlay",
            "" if contours else "anomaly map on the image",
            # The first key is that of the line on top.
            keys=tuple(key for key, _ in reversed(contours)),
        ),
        Panel(
            _seen_through(resized, fractions),
            "Seen through the map",
            _brightness_text(marked, has_ignored=ignored is not None),
        ),
        # Last, so that the other panels do not move without it.
        _truth_panel(mask, size),
    ]
    if ignored is not None:
        for panel in panels[2:]:  # all but the image and what it is compared with
            if panel is not None:
                hatch(panel.image, ignored)
    return compose_panels([panel for panel in panels if panel is not None], COLUMNS)


def _find_marked(
    distances: np.ndarray, threshold: float | None, ignored: np.ndarray | None
) -> np.ndarray | None:
    """Return the judged pixels of at least the threshold, (H, W) bool; None without threshold."""
    if threshold is None:
        return None
    marked = distances >= threshold
    if ignored is not None:
        size = marked.shape[1], marked.shape[0]
        marked &= cv2.resize(ignored.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) == 0
    return marked


def _brightness_text(marked: np.ndarray | None, *, has_ignored: bool) -> str:
    """Return what the brightness means: the brightest pixel may be below the threshold."""
    is_below = marked is not None and not marked.any()
    texts = ["all below threshold"] * is_below + ["hatched: ignored"] * has_ignored
    # All three are too long for a panel.
    return ", ".join(texts if len(texts) == 2 else ["brightness: map", *texts])


def _score_text(score: float, image_threshold: float | None) -> str:
    """Return the image's score in words, with the mark that points to it on the colour bar."""
    text = f"image score {score:.4g} ▸"
    # In brackets: the line on the colour bar is the threshold of pixels.
    return text if image_threshold is None else f"{text} (threshold {image_threshold:.4g})"


def panel_size(height: int, width: int, side: int = PANEL_SIDE) -> tuple[int, int]:
    """Return a panel's (width, height), as OpenCV orders them, in the image's proportions.

    The area is that of a square of `side` pixels; the longer side is at most `3 * side`.
    """
    scale = min(side / math.sqrt(height * width), 3 * side / max(height, width))
    return max(1, round(width * scale)), max(1, round(height * scale))


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize (H, W, 3) uint8 to (width, height): by area to shrink it, else bicubic."""
    shrinks = size[0] < image.shape[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return cv2.resize(image, size, interpolation=method)


def _resize_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize a bool mask so that even the smallest defect remains visible."""
    shrinks = size[0] < mask.shape[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_NEAREST
    return cv2.resize(mask.astype(np.float32), size, interpolation=method) > 0


def _truth_panel(mask: np.ndarray | None, size: tuple[int, int]) -> Panel | None:
    if mask is None:
        return None
    grey = np.where(_resize_mask(mask, size), np.uint8(255), np.uint8(NORMAL_GREY))
    return Panel(cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB), "Ground truth", _area(mask))


def _area(mask: np.ndarray) -> str:
    """Return the share of the image that the defect covers, in words."""
    if not mask.any():
        return "no defect"
    share = 100 * float(mask.mean())
    return f"{share:.1f} % of the image" if share >= 0.1 else "less than 0.1 % of the image"


def _contours(
    mask: np.ndarray | None, marked: np.ndarray | None, threshold: float | None
) -> list[tuple[LineKey, np.ndarray]]:
    """Return the bool regions to outline, the uppermost last, each with the style of its line."""
    contours = []
    if marked is not None:
        text = f"map ≥ {threshold:.4g}" if marked.any() else f"map ≥ {threshold:.4g}: nowhere"
        contours.append((LineKey(text, THRESHOLD_COLOUR, dashed=True), marked))
    if mask is not None and mask.any():
        contours.append((LineKey("ground truth", TRUTH_COLOUR), mask))
    return contours


def overlay(
    image: np.ndarray,
    colours: np.ndarray,
    fractions: np.ndarray,
    contours: list[tuple[LineKey, np.ndarray]],
) -> np.ndarray:
    """Draw the map's colours on the image, more opaque for higher scores, and outline regions."""
    # Squared, so that normal regions keep the colours of the image.
    strength = OVERLAY_STRENGTH * fractions**2
    blended = cv2.blendLinear(colours, image, strength, 1 - strength)
    for key, region in contours:
        draw_lines(blended, _outline(region), key)
    return blended


def _outline(region: np.ndarray) -> list[np.ndarray]:
    """Return the outer and inner edges of a bool region as lines of (n, 2) neighbouring pixels."""
    # All pixels of an edge are kept, so that all dashes have the same length.
    edges, _ = cv2.findContours(region.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    return [edge[:, 0] for edge in edges]


def _seen_through(image: np.ndarray, fractions: np.ndarray) -> np.ndarray:
    """Darken the image to nearly black where the map is low."""
    brightness = NORMAL_BRIGHTNESS + (1 - NORMAL_BRIGHTNESS) * fractions
    return cv2.blendLinear(image, np.zeros_like(image), brightness, 1 - brightness)
