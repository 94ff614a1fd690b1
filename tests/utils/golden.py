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
from utils.plots.annotation import annotate
from utils.plots.colour_scale import ColourScale
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


def localization(**changes: object) -> np.ndarray:
    image, mask = photo("crack", 3)
    arguments = {
        "mask": mask,
        "anomaly_map": anomaly_map(mask),
        "rebuilt": rebuilt_from(photo(None, 4)[0]),
        "defect_type": "crack",
        "file_name": "003.png",
        "score": 21.5,
        "score_range": (5.0, 27.0),
        "threshold": 16.0,
        "image_threshold": 14.2,
    }
    return draw_localization(image, **arguments | changes)


def ignored() -> np.ndarray:
    """Return (H, W) bool, the pixels of a corner."""
    return np.add.outer(np.arange(224), np.arange(224)) < 150


def annotation() -> np.ndarray:
    """Frames of a video: anomalous and normal, and a wide one with the lowest bar."""
    image, mask = photo("crack", 3)
    scale, found = ColourScale(5.0, 27.0), anomaly_map(mask)

    def draw(text: str, threshold: float, part: slice, **verdict: object) -> np.ndarray:
        wide = {"image": image[part], "anomaly_map": found[part], "scale": scale}
        return annotate(**wide, pixel_threshold=threshold, text=text, **verdict)

    frames = [
        draw("anomaly 21.5", 16.0, np.s_[:], is_anomaly=True, ignored=ignored()),
        draw("normal 8.25", 99.0, np.s_[:], is_anomaly=False),
        draw("anomaly 20", 12.0, np.s_[:60], is_anomaly=True),
    ]
    return np.concatenate([cv2.resize(f, None, fx=REDUCTION, fy=REDUCTION) for f in frames])


def explanation(num_patches: int, num_neighbours: int, threshold: float | None) -> np.ndarray:
    test, train = photo("crack", 3)[0], photo(None, 4)[0]
    patches, places = [], ((6, 17, 21.5), (12, 19, 17.25), (24, 3, 9.0))
    for row, column, score in places[:num_patches]:
        box = explain.patch_box(row, column, GRID, (224, 224), 6)
        position = np.array([[0], [row], [column]])
        crops = [explain.crop_patches(i[None], *position, GRID, 6)[0] for i in (test, train)]
        field, name = (20, 20, 28, 28), f"patch row {row}, column {column}"
        nearest = [
            NormalPatch(crops[1], field, f"{11 + n:03d}.png", name, score + n, train, box)
            for n in range(num_neighbours)
        ]
        patches.append(ExplainedPatch(crops[0], field, box, name, score, nearest))
    return draw_explanation(test, patches, title="crack", file_name="003.png", threshold=threshold)


def thumbnail() -> np.ndarray:
    """With all parts, and below it with ignored pixels and without the rebuilt image."""
    image, mask = photo("crack", 3)
    found, scale = anomaly_map(mask), (5.0, 27.0)
    whole = draw_thumbnail(image, found, rebuilt_from(photo(None, 4)[0]), scale)
    half = draw_thumbnail(image, found, None, scale, ignored())
    return np.concatenate(
        [whole, np.pad(half, ((0, 0), (0, whole.shape[1] - half.shape[1]), (0, 0)))]
    )


def distribution() -> np.ndarray:
    rng = np.random.default_rng(0)
    types = ["good"] * 20 + ["crack"] * 15 + ["contamination"] * 12
    centres = {"good": 10, "crack": 18, "contamination": 15}
    scores = np.array([rng.normal(centres[kind], 1.5) for kind in types])
    labels = np.array([kind != "good" for kind in types])
    return draw_score_distribution(
        scores, labels, types, title="bottle, coreset 10 %, k = 1", auroc=0.9912, threshold=13.4
    )


def curves(power: float, count: int = 15) -> dict[str, tuple[np.ndarray, np.ndarray, float]]:
    """Curves of as many categories as MVTec AD has, or of another number."""
    x = np.linspace(0, 1, 400)
    exponents = power * np.linspace(0.002, 0.12, count)
    return {f"category_{n:02d}": (x, x**e, 1 / (1 + e)) for n, e in enumerate(exponents)}


PICTURES = {
    "localization": localization,
    "localization_without_mask": lambda: localization(mask=None),
    "localization_ignored": lambda: localization(ignored=ignored(), threshold=None),
    "annotation": annotation,
    "explanation": lambda: explanation(3, 1, 16.0),
    "explanation_of_three": lambda: explanation(1, 3, None),
    "thumbnail": thumbnail,
    "distribution": distribution,
    "roc_curves": lambda: draw_roc_curves(curves(1.0), curves(2.0), title="coreset 10 %, k = 1"),
    "roc_curves_of_35": lambda: draw_roc_curves(curves(1.0, 35), curves(3.0, 35), title="of 35"),
    "precision_recall_curves": lambda: draw_precision_recall_curves(
        {name: (x, 1 - x**9 * (1 - m), m) for name, (x, _, m) in curves(1.0).items()},
        {name: (x, 1 - x**3 * 4 * (1 - m), m) for name, (x, _, m) in curves(2.0).items()},
        title="coreset 10 %, k = 1",
    ),
    "pro_curves": lambda: draw_pro_curves(curves(1.5), fpr_limit=0.3, title="coreset 10 %, k = 1"),
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
