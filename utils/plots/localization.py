"""One picture per test image: what the method saw, where it fired and what it compared with."""

import math

import cv2
import numpy as np

from utils.plots.colour_scale import ColourScale
from utils.plots.panel_grid import ColourBar, LineKey, Panel, compose_panels, draw_lines

COLUMNS = 3
PANEL_SIDE = 360  # pixels; pictures that are not square get the same area

NORMAL_GREY = 22  # in the ground truth, where a defect is white
# Neither colour is in the colour map, and a dash tells the lines apart without any colour.
TRUTH_COLOUR = (0, 229, 255)
THRESHOLD_COLOUR = (255, 255, 255)

OVERLAY_STRENGTH = 0.8  # of the colours where the map is highest; the image shows elsewhere
NORMAL_BRIGHTNESS = 0.08  # of the image where the map is lowest


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
) -> np.ndarray:
    """Draw an image, what it was compared with, its anomaly map in three views, its ground truth.

    Args:
        image: (H, W, 3) uint8 RGB, the image as the model saw it.
        mask: (H, W) bool, true on the defect; None where there is no ground truth, which leaves
            out its panel and its contour.
        anomaly_map: (H, W) float, in the unit of the score.
        rebuilt: (H, W, 3) uint8 RGB, `image` rebuilt from its nearest normal training patches.
        defect_type: title of the image, such as "good" or "broken_large".
        file_name: written below the title; long names lose their middle.
        score: anomaly score of the whole image, marked on the colour bar.
        score_range: lowest and highest distance of the colour scale. Give all images of a category
            the same one: only then equal colours mean equal distances.
        threshold: distance from which a pixel counts as defective; outlined if given.
        image_threshold: score from which an image counts as defective; written if given.

    Returns:
        (H', W', 3) uint8 RGB, about 900 by 1250 pixels for square images.

    Raises:
        ValueError: shapes or dtypes that do not fit, numbers that are not finite, or a range whose
            low end is above its high end.
    """
    _check_pictures(image, mask, anomaly_map, rebuilt)
    _check_numbers(anomaly_map, score, threshold)
    scale = ColourScale(*score_range)
    size = panel_size(*image.shape[:2])
    photo = resize_photo(image, size)
    distances = cv2.resize(anomaly_map.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
    fractions = scale.fraction(distances)
    colours = scale.colours(fractions)
    contours = _contours(None if mask is None else _resize_mask(mask, size), distances, threshold)

    panels = [
        Panel(photo, defect_type, file_name),
        # Beside the image, since to compare the two is what it is for.
        Panel(
            resize_photo(rebuilt, size), "Nearest normal patches", "rebuilt from training images"
        ),
        Panel(
            colours,
            "Anomaly map",
            _score_text(score, image_threshold),
            bar=ColourBar(scale, score, threshold),
        ),
        Panel(
            overlay(photo, colours, fractions, contours),
            "Overlay",
            "" if contours else "anomaly map on the image",
            # The first key is that of the line on top.
            keys=tuple(key for key, _ in reversed(contours)),
        ),
        Panel(_seen_through(photo, fractions), "Seen through the map", "bright where anomalous"),
        # Last, so that without it no other panel moves.
        _truth_panel(mask, size),
    ]
    return compose_panels([panel for panel in panels if panel is not None], COLUMNS)


def _check_pictures(
    image: np.ndarray, mask: np.ndarray | None, anomaly_map: np.ndarray, rebuilt: np.ndarray
) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ValueError(f"image must be (H, W, 3) with pixels, got {image.shape}")
    for name, picture in (("image", image), ("rebuilt", rebuilt)):
        if picture.dtype != np.uint8:
            raise ValueError(f"{name} must be uint8, got {picture.dtype}")
    if rebuilt.shape != image.shape:
        raise ValueError(f"rebuilt must be as large as the image: {rebuilt.shape}, {image.shape}")
    if anomaly_map.shape != image.shape[:2]:
        raise ValueError(f"anomaly_map must be {image.shape[:2]}, got {anomaly_map.shape}")
    if mask is not None and (mask.shape != image.shape[:2] or mask.dtype != np.bool_):
        raise ValueError(f"mask must be bool {image.shape[:2]}, got {mask.dtype} {mask.shape}")


def _check_numbers(anomaly_map: np.ndarray, score: float, threshold: float | None) -> None:
    if not np.isfinite(anomaly_map).all():
        raise ValueError("anomaly_map must be finite")
    if not math.isfinite(score):
        raise ValueError(f"score must be finite, got {score}")
    if threshold is not None and not math.isfinite(threshold):
        raise ValueError(f"threshold must be finite or None, got {threshold}")


def _score_text(score: float, image_threshold: float | None) -> str:
    """Say the image's score; the mark is that of the colour bar."""
    text = f"image score {score:.4g} ▸"
    return text if image_threshold is None else f"{text}  threshold {image_threshold:.4g}"


def panel_size(height: int, width: int, side: int = PANEL_SIDE) -> tuple[int, int]:
    """Return a panel's (width, height), as OpenCV orders them, in the image's proportions.

    Its area is that of a square of `side` pixels, unless that made it longer than three sides.
    """
    scale = min(side / math.sqrt(height * width), 3 * side / max(height, width))
    return max(1, round(width * scale)), max(1, round(height * scale))


def resize_photo(photo: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize (H, W, 3) uint8 to (width, height), with the method that suits the direction."""
    shrinks = size[0] < photo.shape[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return cv2.resize(photo, size, interpolation=method)


def _resize_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return a bool mask of the new size in which no defect vanishes, however small."""
    shrinks = size[0] < mask.shape[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_NEAREST
    return cv2.resize(mask.astype(np.float32), size, interpolation=method) > 0


def _truth_panel(mask: np.ndarray | None, size: tuple[int, int]) -> Panel | None:
    if mask is None:
        return None
    grey = np.where(_resize_mask(mask, size), np.uint8(255), np.uint8(NORMAL_GREY))
    return Panel(cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB), "Ground truth", _area(mask))


def _area(mask: np.ndarray) -> str:
    """Say how much of the image the defect covers."""
    if not mask.any():
        return "no defect"
    share = 100 * float(mask.mean())
    return f"{share:.1f} % of the image" if share >= 0.1 else "less than 0.1 % of the image"


def _contours(
    mask: np.ndarray | None, distances: np.ndarray, threshold: float | None
) -> list[tuple[LineKey, np.ndarray]]:
    """Return the bool regions to outline, the uppermost last, each with the look of its line."""
    contours = []
    if threshold is not None:
        key = LineKey(f"map ≥ {threshold:.4g}", THRESHOLD_COLOUR, dashed=True)
        contours.append((key, distances >= threshold))
    if mask is not None and mask.any():
        contours.append((LineKey("ground truth", TRUTH_COLOUR), mask))
    return contours


def overlay(
    photo: np.ndarray,
    colours: np.ndarray,
    fractions: np.ndarray,
    contours: list[tuple[LineKey, np.ndarray]],
) -> np.ndarray:
    """Lay the map's colours on the image, the denser the higher the map, and outline regions."""
    # Squared: what is normal keeps the image's own colours.
    strength = OVERLAY_STRENGTH * fractions**2
    blended = cv2.blendLinear(colours, photo, strength, 1 - strength)
    for key, region in contours:
        draw_lines(blended, _outline(region), key)
    return blended


def _outline(region: np.ndarray) -> list[np.ndarray]:
    """Return the outer and inner edges of a bool region as lines of (n, 2) neighbouring pixels."""
    # Every pixel of an edge is kept, so that dashes are equally long.
    edges, _ = cv2.findContours(region.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    return [edge[:, 0] for edge in edges]


def _seen_through(photo: np.ndarray, fractions: np.ndarray) -> np.ndarray:
    """Dim the image to near black, the more the lower the map."""
    brightness = NORMAL_BRIGHTNESS + (1 - NORMAL_BRIGHTNESS) * fractions
    return cv2.blendLinear(photo, np.zeros_like(photo), brightness, 1 - brightness)
