"""What each kind of picture looked like when somebody last looked at it.

`python -m tests.utils.golden` draws them anew: look at every one of them before committing it.
"""

import json
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np

from datasets.synthetic.rendering import render
from patchcore import explain
from tests.support import write_image
from utils.plots import (
    draw_explanation,
    draw_localization,
    draw_precision_recall_curves,
    draw_pro_curves,
    draw_roc_curves,
    draw_score_distribution,
    draw_thumbnail,
)
from utils.plots.explanation import ExplainedPatch, NormalPatch

FOLDER = Path(__file__).with_name("golden_pictures")
RELEASES = FOLDER / "releases.json"  # of the libraries that drew them
# Stored and compared at a third of the size: what a person sees from some distance stays, and how
# one release of a library smooths the edge of a letter does not.
REDUCTION = 3
CROP = np.s_[16:240, 16:240]
GRID = (28, 28)


def photo(defect: str | None, seed: int) -> tuple[np.ndarray, np.ndarray]:
    picture, mask = render("bottle_mouth", defect, seed=seed)
    return np.ascontiguousarray(picture[CROP]), np.ascontiguousarray(mask[CROP])


def anomaly_map(mask: np.ndarray) -> np.ndarray:
    """A map that is high around a mask, and wavy elsewhere."""
    waves = np.sin(np.arange(224) / 9)
    blurred = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 9)
    return (7 + 1.2 * np.outer(waves, waves) + 18 * blurred / blurred.max()).astype(np.float32)


def rebuilt_from(image: np.ndarray) -> np.ndarray:
    positions = np.indices((1, *GRID)).reshape(3, -1)
    patches = explain.crop_patches(image[None], *positions, GRID)
    return explain.rebuild(patches.reshape(*GRID, *patches.shape[1:]), image.shape[:2])


def localization(*, with_mask: bool) -> np.ndarray:
    image, mask = photo("crack", 3)
    return draw_localization(
        image,
        mask=mask if with_mask else None,
        anomaly_map=anomaly_map(mask),
        rebuilt=rebuilt_from(photo(None, 4)[0]),
        defect_type="crack",
        file_name="003.png",
        score=21.5,
        score_range=(5.0, 27.0),
        threshold=16.0,
        image_threshold=14.2,
    )


def explanation() -> np.ndarray:
    test, train = photo("crack", 3)[0], photo(None, 4)[0]
    patches = []
    for row, column, score in ((6, 17, 21.5), (12, 19, 17.25), (24, 3, 9.0)):
        box = explain.patch_box(row, column, GRID, (224, 224), 6)
        position = np.array([[0], [row], [column]])
        crops = [explain.crop_patches(i[None], *position, GRID, 6)[0] for i in (test, train)]
        field, name = (20, 20, 28, 28), f"patch row {row}, column {column}"
        normal = NormalPatch(crops[1], field, "011.png", name, score, train, box)
        patches.append(ExplainedPatch(crops[0], field, box, name, score, [normal]))
    return draw_explanation(test, patches, title="crack", file_name="003.png", threshold=16.0)


def thumbnail() -> np.ndarray:
    image, mask = photo("crack", 3)
    rebuilt = rebuilt_from(photo(None, 4)[0])
    return draw_thumbnail(image, anomaly_map(mask), rebuilt, (5.0, 27.0))


def distribution() -> np.ndarray:
    rng = np.random.default_rng(0)
    types = ["good"] * 20 + ["crack"] * 15 + ["contamination"] * 12
    centres = {"good": 10, "crack": 18, "contamination": 15}
    scores = np.array([rng.normal(centres[kind], 1.5) for kind in types])
    labels = np.array([kind != "good" for kind in types])
    return draw_score_distribution(
        scores, labels, types, title="bottle, coreset 10 %, k = 1", auroc=0.9912, threshold=13.4
    )


def fifteen(power: float) -> dict[str, tuple[np.ndarray, np.ndarray, float]]:
    """Curves of as many categories as MVTec AD has."""
    x = np.linspace(0, 1, 400)
    exponents = power * np.linspace(0.002, 0.12, 15)
    return {f"category_{n:02d}": (x, x**e, 1 / (1 + e)) for n, e in enumerate(exponents)}


PICTURES = {
    "localization": lambda: localization(with_mask=True),
    "localization_without_mask": lambda: localization(with_mask=False),
    "explanation": explanation,
    "thumbnail": thumbnail,
    "distribution": distribution,
    "roc_curves": lambda: draw_roc_curves(fifteen(1.0), fifteen(2.0), title="coreset 10 %, k = 1"),
    "precision_recall_curves": lambda: draw_precision_recall_curves(
        {name: (x, 1 - x**9 * (1 - m), m) for name, (x, _, m) in fifteen(1.0).items()},
        {name: (x, 1 - x**3 * 4 * (1 - m), m) for name, (x, _, m) in fifteen(2.0).items()},
        title="coreset 10 %, k = 1",
    ),
    "pro_curves": lambda: draw_pro_curves(fifteen(1.5), fpr_limit=0.3, title="coreset 10 %, k = 1"),
}


def reduce(picture: np.ndarray) -> np.ndarray:
    size = picture.shape[1] // REDUCTION, picture.shape[0] // REDUCTION
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)


def releases() -> dict[str, str]:
    """Return the installed release of each library that draws."""
    names = ("matplotlib", "numpy", "opencv-python-headless", "pillow")
    return {name: version(name) for name in names}


if __name__ == "__main__":
    for picture_name, draw in PICTURES.items():
        print(write_image(FOLDER / f"{picture_name}.png", reduce(draw())))
    RELEASES.write_text(json.dumps(releases(), indent=2) + "\n")
