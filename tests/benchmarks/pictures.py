"""Localization pictures per second."""

import cv2
import numpy as np

from tests.benchmarks.measure import Row, time_in_turns
from utils.plots import draw_localization
from utils.results import PNG_LEVEL

SIDE = 224


def measure(quick: bool) -> list[Row]:
    """Measure drawing and encoding, as one thread on one core does it, without writing files."""
    cv2.setNumThreads(1)
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    mask = np.zeros((SIDE, SIDE), dtype=bool)
    mask[60:120, 80:150] = True
    anomaly_map = rng.random((SIDE, SIDE), dtype=np.float32) + mask

    def draw() -> None:
        picture = draw_localization(
            image,
            mask=mask,
            anomaly_map=anomaly_map,
            rebuilt=image,
            defect_type="broken",
            file_name="000.png",
            score=1.5,
            score_range=(0.0, 2.0),
        )
        bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
        cv2.imencode(".png", bgr, [cv2.IMWRITE_PNG_COMPRESSION, PNG_LEVEL])

    (duration,) = time_in_turns([draw], 5 if quick else 20)
    return [Row("localization pictures per second", "", f"{1 / duration:.0f} /s", 1 / duration)]
