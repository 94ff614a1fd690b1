"""Pictures of test images per second, on one core."""

import time
from collections.abc import Callable

import cv2
import numpy as np

from datasets.synthetic.rendering import render
from patchcore import explain
from patchcore.origins import EmbeddingOrder, Origins
from patchcore.prediction import Prediction
from tests.benchmarks.measure import Row
from utils.encoding import encode_image
from utils.pipeline.explanations import crops_of_nearest, describe_patches, explained_patches
from utils.plots import draw_explanation, draw_localization, draw_thumbnail

GRID = (28, 28)
CROP = np.s_[16:240, 16:240]
RANGE = (0.0, 2.0)


def measure(quick: bool) -> list[Row]:
    """Measure what one process of the pool does for an image, encoding included, without files.

    In seconds of the processor: what else the machine does at the moment does not count.
    """
    cv2.setNumThreads(1)
    image, mask = (np.ascontiguousarray(a[CROP]) for a in render("bottle_mouth", "crack", seed=3))
    train = np.stack([render("bottle_mouth", None, seed=seed)[0][CROP] for seed in range(4)])
    names = tuple(f"widget/train/good/{number:03d}.png" for number in range(len(train)))
    order = EmbeddingOrder.of(len(train), 1, len(train))
    every_patch = np.arange(len(train) * GRID[0] * GRID[1])
    origins = Origins.locate(every_patch, GRID, order, names, ("",))
    coreset_patches = explain.crop_patches(train, origins.image, origins.row, origins.column, GRID)
    rng = np.random.default_rng(0)
    nearest = rng.integers(0, len(coreset_patches), (*GRID, 1))
    distance = rng.random((*GRID, 1), dtype=np.float32)
    anomaly_map = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 9) * 2
    prediction = Prediction(
        np.array([1.5], np.float32), anomaly_map[None], distance[None], nearest[None]
    )

    def rebuild() -> np.ndarray:
        return explain.rebuild(coreset_patches[nearest[:, :, 0]], image.shape[:2])

    def draw() -> None:
        picture = draw_localization(
            image,
            mask=mask,
            anomaly_map=anomaly_map,
            rebuilt=rebuild(),
            defect_type="crack",
            file_name="000.png",
            score=1.5,
            score_range=RANGE,
            threshold=0.7,
            image_threshold=1.0,
        )
        encode_image(picture)

    def draw_everything() -> None:
        draw()
        encode_image(draw_thumbnail(image, anomaly_map, rebuild(), RANGE), ".jpg")
        records = describe_patches(prediction, origins, image.shape[:2], 3)
        crops = crops_of_nearest(records, coreset_patches)
        explained = explained_patches(
            image, records, crops, GRID, lambda file, version: train[int(file[-7:-4])]
        )
        encode_image(draw_explanation(image, explained, title="crack", file_name="000.png"))

    repeats = 10 if quick else 50
    pictures, images = (1 / _processor_seconds(form, repeats) for form in (draw, draw_everything))
    return [
        Row(
            "localization pictures per second and core, PNG included",
            *("", f"{pictures:.0f} /s", pictures, ">= 12"),
        ),
        Row(
            "test images per second and core: localization, explanation, thumbnail",
            *("", f"{images:.0f} /s", images),
        ),
    ]


def _processor_seconds(form: Callable[[], object], repeats: int) -> float:
    """Return the mean processor time of a call, after a warm-up."""
    form()
    start = time.process_time()
    for _ in range(repeats):
        form()
    return (time.process_time() - start) / repeats
