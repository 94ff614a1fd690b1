"""What the pictures of one category at one percentage are made from, and the names they get."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets.base import Sample
from patchcore.explain import PatchPlaces
from patchcore.preprocess import Preprocess
from utils.pipeline.explanations import CoresetOrigins
from utils.results import THUMBNAIL_FOLDER

# How many pictures `worst` draws of a category where no limit is given.
WORST_LIMIT = 10


@dataclass(frozen=True)
class SceneArrays:
    """The large part of what is drawn; saved and loaded without copies in memory.

    Attributes:
        images: (B, H, W, 3) uint8, the cropped test images.
        anomaly_maps: (B, H, W) float32.
        distance: (B, h, w, k) float32 distances to the nearest coreset patches, ascending.
        nearest: (B, h, w, k) int64, these coreset patches.
        coreset_patches: (M, ph, pw, 3) uint8, what each coreset patch looks like.
        places: (M, 3) int64, each one's training image in the order of embedding, row and column.
        masks: (B, H, W) bool; None where there is no ground truth.
    """

    images: np.ndarray
    anomaly_maps: np.ndarray
    distance: np.ndarray
    nearest: np.ndarray
    coreset_patches: np.ndarray
    places: np.ndarray
    masks: np.ndarray | None

    def save(self, folder: Path) -> None:
        """Write each array to a file of its own."""
        for name, array in vars(self).items():
            if array is not None:
                np.save(folder / f"{name}.npy", array)

    @classmethod
    def load(cls, folder: Path) -> "SceneArrays":
        """Open saved arrays; only what is used of them is read."""
        arrays = {}
        for name in cls.__annotations__:
            path = folder / f"{name}.npy"
            arrays[name] = (
                np.load(path, mmap_mode="r", allow_pickle=False) if path.is_file() else None
            )
        return cls(**arrays)


@dataclass(frozen=True)
class PictureNames:
    """The files of one test image in the result folder; None where a file is not wanted."""

    thumbnail: str
    localization: str | None
    explanation: str | None
    record: str | None


@dataclass(frozen=True)
class Scene:
    """The small part of what is drawn.

    Attributes:
        category: Its name.
        tag: Percentage and k, as picture names say them.
        percentage: The coreset's share.
        samples: The test images.
        scores: (B,) float32, theirs.
        chosen: Of which of them large pictures are wanted.
        score_range: Lowest and highest distance of the colours.
        image_threshold: From which an image counts as defective; None where there is none.
        pixel_threshold: From which a pixel does; None where there is none.
        sources: Each training image's file and flip, in the order of embedding.
        root: The folder that files are named from.
        preprocess: How images were resized and cropped.
        explain_top: How many patches of a chosen image are explained.
    """

    category: str
    tag: str
    percentage: float
    samples: tuple[Sample, ...]
    scores: np.ndarray
    chosen: frozenset[int]
    score_range: tuple[float, float]
    image_threshold: float | None
    pixel_threshold: float | None
    sources: tuple[tuple[str, str], ...]
    root: Path
    preprocess: Preprocess
    explain_top: int

    def names(self, index: int) -> PictureNames:
        """Return the names of a test image's files."""
        sample = self.samples[index]
        name = f"{self.category}_{sample.defect_type}_{sample.path.stem}_{self.tag}"
        largest = max(float(self.scores.max()), np.finfo(np.float32).tiny)
        share = round(100 * max(float(self.scores[index]) / largest, 0))
        drawn = index in self.chosen
        explained = drawn and self.explain_top > 0
        return PictureNames(
            thumbnail=f"{THUMBNAIL_FOLDER}/{name}.jpg",
            localization=f"localization_{name}_s{share:03d}.png" if drawn else None,
            explanation=f"explanation_{name}.png" if explained else None,
            record=f"explanation_{name}.json" if explained else None,
        )

    def origins(self, arrays: SceneArrays) -> CoresetOrigins:
        """Return where the coreset's patches come from."""
        return CoresetOrigins(self.sources, PatchPlaces(*np.asarray(arrays.places).T))


def choose_images(
    samples: Sequence[Sample], scores: np.ndarray, threshold: float, which: str, limit: int
) -> list[int]:
    """Choose the test images of which large pictures are drawn.

    Args:
        samples: All test images of a category.
        scores: (B,), theirs.
        threshold: From which an image counts as defective; NaN where there is none.
        which: Of ``--pictures``.
        limit: At most so many; 0 for no limit, but 10 of the worst.

    Returns:
        Their numbers: for ``worst`` the most wrongly judged first, and where a limit cuts some off
        otherwise, as many of each defect type as can be.
    """
    if which == "none":
        return []
    if which == "worst":
        hardest = np.argsort(-wrongness(samples, scores, threshold), kind="stable")
        return [int(index) for index in hardest[: limit or WORST_LIMIT]]
    numbers = [n for n, sample in enumerate(samples) if which == "all" or sample.is_defective]
    if not limit or limit >= len(numbers):
        return numbers
    seen: dict[str, int] = {}
    turns = []
    for number in numbers:
        defect_type = samples[number].defect_type
        turns.append(seen.get(defect_type, 0))
        seen[defect_type] = turns[-1] + 1
    by_turn = sorted(zip(turns, numbers, strict=True))  # the first of each type, then the second
    return sorted(number for _, number in by_turn[:limit])


def wrongness(samples: Sequence[Sample], scores: np.ndarray, threshold: float) -> np.ndarray:
    """Return (B,) by how much each score is on the wrong side of the threshold, below 0 if not."""
    signs = np.where([sample.is_defective for sample in samples], -1.0, 1.0)
    return signs * (scores.astype(np.float64) - (0.0 if math.isnan(threshold) else threshold))
