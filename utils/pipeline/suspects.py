"""Training images with the largest held-out scores: a defect among the normal images is there."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from patchcore.trained import Trained
from utils.pipeline.reading import Reading
from utils.plots.panel_grid import Panel, compose_panels

NUM_SUSPECTS = 5
# The figure of the suspects, in the folder of the model.
SUSPECTS_FILE = "suspects.png"
SIDE, NUM_COLUMNS = 340, 5


@dataclass(frozen=True)
class Suspect:
    """A training image that the other training images do not explain well.

    Attributes:
        name: Its file, as the model records it.
        score: Its anomaly score by a coreset selected without it.
        ratio: score / threshold; None without a threshold above 0.
    """

    name: str
    score: float
    ratio: float | None


def find_suspects(trained: Trained, count: int = NUM_SUSPECTS) -> list[Suspect]:
    """Return the training images with the largest held-out scores, the largest first.

    Args:
        trained: What a model learned or was loaded with.
        count: Largest number of images.

    Returns:
        The images; none if the model has no held-out scores.
    """
    held_out, threshold = trained.held_out, trained.thresholds.image
    if held_out is None:
        return []
    names = trained.coreset.origins.names
    return [
        Suspect(names[image], score, None if threshold is None else threshold.ratio(score))
        for image, score in held_out.largest(count)
    ]


def describe_suspects(trained: Trained, count: int = NUM_SUSPECTS) -> str:
    """Return the list of `find_suspects` as text, one line for each image."""
    suspects = find_suspects(trained, count)
    if not suspects:
        return (
            f"{trained.category}: no held-out scores, so no training image can be checked for "
            "defects (needs several images, and train_quantile as --threshold or "
            "--threshold_pixel)"
        )
    num_scored, num_images = len(trained.held_out.images), len(trained.coreset.origins.names)
    lines = [
        f"  {suspect.score:8.4g}{_ratio_text(suspect.ratio)}  {suspect.name}"
        for suspect in suspects
    ]
    return "\n".join(
        [
            f"{trained.category}: the training images that are least like the others, by held-out "
            f"scores ({num_scored} of {num_images} are scored); defects among the normal images "
            "usually appear at the top:",
            *lines,
        ]
    )


def draw_suspects(trained: Trained, reading: Reading) -> np.ndarray | None:
    """Draw the images of `find_suspects`, the most suspicious first.

    Args:
        trained: What a model learned.
        reading: Reads the training images.

    Returns:
        (H, W, 3) uint8 RGB; None without held-out scores.

    Raises:
        DatasetError: An image can no longer be read.
    """
    panels = []
    for suspect in find_suspects(trained):
        subtitle = f"held-out score {suspect.score:.4g}{_ratio_text(suspect.ratio)}"
        image = _fitted(reading.image(Path(suspect.name)))
        panels.append(Panel(image, Path(suspect.name).name, subtitle))
    return compose_panels(panels, NUM_COLUMNS) if panels else None


def _fitted(image: np.ndarray) -> np.ndarray:
    """Return an image within a white square of `SIDE` pixels."""
    scale = SIDE / max(image.shape[:2])
    height, width = (max(1, round(length * scale)) for length in image.shape[:2])
    canvas = np.full((SIDE, SIDE, 3), 255, np.uint8)
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    canvas[:height, :width] = cv2.resize(image, (width, height), interpolation=interpolation)
    return canvas


def _ratio_text(ratio: float | None) -> str:
    return "" if ratio is None else f"  {ratio:6.3f} x threshold"
