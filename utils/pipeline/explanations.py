"""Which training patches an image's most anomalous patches were compared with: record and picture.

The record needs only names and places in the grid. The picture shows whole training images where
their files are at hand, and else the coreset patches' crops alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets.base import Sample
from patchcore import Prediction, explain
from patchcore.explain import PatchPlaces
from patchcore.origins import Origins
from utils.plots.explanation import ExplainedPatch, NormalPatch

# Crops are shown this many fields wide: of a patch alone (two) nobody could tell what it shows.
CONTEXT_FIELDS = 6


@dataclass(frozen=True)
class CoresetOrigins:
    """Where the patches of a coreset come from.

    Attributes:
        sources: For each training image in the order of embedding: its file, and how it was
            flipped (``horizontal``, ``vertical``, or empty).
        places: Of the M coreset patches; ``places.images`` counts in `sources`.
    """

    sources: tuple[tuple[str, str], ...]
    places: PatchPlaces


@dataclass(frozen=True)
class ImagePatches:
    """What the method says of one image's patches.

    Attributes:
        distance: (h, w, k) float32 distances to the nearest coreset patches, ascending.
        nearest: (h, w, k) int64, these coreset patches.
    """

    distance: np.ndarray
    nearest: np.ndarray

    @classmethod
    def of(cls, prediction: Prediction, index: int) -> "ImagePatches":
        """Take those of one image out of a prediction."""
        return cls(prediction.distance[index], prediction.nearest[index])


def relative_name(path: Path, root: Path) -> str:
    """Return a file's name from the data's folder on, with ``/``: the same on every machine."""
    return (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()


def name_sources(
    train: Sequence[Sample], origins: Origins, flips: Sequence[str], root: Path
) -> tuple[tuple[str, str], ...]:
    """Return each embedded image's file and flip, in the order of embedding.

    Args:
        train: The training images.
        origins: Which of them each embedded image is.
        flips: Of ``--flip``.
        root: The folder that files are named from.
    """
    files = [relative_name(sample.path, root) for sample in train]
    names = ("", *flips)
    return tuple(
        (files[image], names[flip])
        for image, flip in zip(origins.images, origins.flips, strict=True)
    )


def describe_patches(
    patches: ImagePatches, origins: CoresetOrigins, size: tuple[int, int], top: int
) -> list[dict[str, object]]:
    """Return a record of each of the most anomalous patches, for JSON.

    Args:
        patches: Of one image.
        origins: Of the coreset.
        size: (H, W) of the image as the model saw it, in pixels; boxes are given in these.
        top: How many patches at most.
    """
    grid = patches.distance.shape[:2]
    records = []
    for row, column in explain.find_most_anomalous(patches.distance, top):
        distances = [float(distance) for distance in patches.distance[row, column]]
        neighbours = [
            {"distance": distance, **_origin(origins, int(index), grid, size)}
            for distance, index in zip(distances, patches.nearest[row, column], strict=True)
        ]
        records.append(
            {
                "rank": len(records) + 1,
                "row": row,
                "column": column,
                "box": list(explain.patch_box(row, column, grid, size)),
                "score": float(np.mean(distances)),
                "nearest": neighbours,
            }
        )
    return records


def explained_patches(
    image: np.ndarray,
    grid: tuple[int, int],
    records: Sequence[dict],
    *,
    crops: Callable[[dict], np.ndarray],
    whole_image: Callable[[str, str], np.ndarray | None],
) -> list[ExplainedPatch]:
    """Cut out what `draw_explanation` shows.

    Args:
        image: (H, W, 3) uint8, the test image.
        grid: (h, w).
        records: As `describe_patches` returns them.
        crops: Returns the coreset patch's own crop, (ph, pw, 3) uint8, of a neighbour's record:
            what is shown where the whole image is not at hand.
        whole_image: Returns a training image, (H, W, 3) uint8, by its file and flip; None where it
            is not at hand.
    """
    explained = []
    for record in records:
        wholes = [whole_image(near["file"], near["flip"]) for near in record["nearest"]]
        # All crops of a row show equally much, or nobody could compare them.
        fields = CONTEXT_FIELDS if all(whole is not None for whole in wholes) else 2
        explained.append(
            ExplainedPatch(
                crop=_crop(image, record, grid, fields),
                field=_middle(image, grid, fields),
                box=_box(image, record, grid, fields),
                place=_place(record),
                score=record["score"],
                nearest=[
                    NormalPatch(
                        crop=crops(near)
                        if fields == 2 or whole is None
                        else _crop(whole, near, grid, fields),
                        field=_middle(image, grid, fields),
                        name=_name(near),
                        place=_place(near),
                        distance=near["distance"],
                        whole=whole,
                        box=None if whole is None else _box(whole, near, grid, fields),
                    )
                    for near, whole in zip(record["nearest"], wholes, strict=True)
                ],
            )
        )
    return explained


def _origin(
    origins: CoresetOrigins, index: int, grid: tuple[int, int], size: tuple[int, int]
) -> dict[str, object]:
    places = origins.places
    file, flip = origins.sources[int(places.images[index])]
    row, column = int(places.rows[index]), int(places.columns[index])
    return {
        "coreset_index": index,
        "file": file,
        "flip": flip,
        "row": row,
        "column": column,
        "box": list(explain.patch_box(row, column, grid, size)),
    }


def _crop(image: np.ndarray, record: dict, grid: tuple[int, int], fields: int) -> np.ndarray:
    place = PatchPlaces(
        np.zeros(1, np.int64), np.array([record["row"]]), np.array([record["column"]])
    )
    return explain.cut_patches(image[None], place, grid, fields)[0]


def _box(image: np.ndarray, record: dict, grid: tuple[int, int], fields: int) -> explain.Box:
    return explain.patch_box(record["row"], record["column"], grid, image.shape[:2], fields)


def _middle(image: np.ndarray, grid: tuple[int, int], fields: int) -> explain.Box:
    """Return where the patch's own field lies in a crop of so many fields."""
    height, width = (
        max(length / count, 1) for length, count in zip(image.shape, grid, strict=False)
    )
    margin = (fields - 1) / 2
    left, top = round(margin * width), round(margin * height)
    return left, top, left + round(width), top + round(height)


def _place(record: dict) -> str:
    return f"row {record['row']}, column {record['column']}"


def _name(record: dict) -> str:
    name = record["file"].rpartition("/")[2]
    return f"{name}, {record['flip']} flip" if record["flip"] else name
