"""Explanations of predictions: an image's most anomalous patches and their nearest coreset patches.

`describe_patches` returns records for JSON and the report, `draw_patches` draws these records. The
figure shows whole training images, read again from their files; without these files it shows only
the crops of the coreset patches.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from datasets.base import DatasetError
from datasets.depth import Decoding
from datasets.entries import relative_name
from datasets.images import read_image
from patchcore import Prediction, explain
from patchcore.augment import changed
from patchcore.origins import Origins
from patchcore.preprocess import Preprocess
from utils.plots import draw_explanation
from utils.plots.explanation import ExplainedPatch, NormalPatch

# Width of the crops in fields of the grid. The crop of a patch alone (2) is too small to recognise.
CONTEXT_FIELDS = 6
# Number of training images to keep, since a category's explanations often show the same ones.
TRAINING_IMAGES_KEPT = 64

Record = dict[str, object]


def with_relative_names(origins: Origins, root: Path) -> Origins:
    """Return origins that name the training images relative to the dataset's folder."""
    return replace(origins, names=tuple(relative_name(Path(n), root) for n in origins.names))


def describe_patches(
    prediction: Prediction,
    origins: Origins,
    size: tuple[int, int],
    max_patches: int,
    ignored: np.ndarray | None = None,
) -> list[Record]:
    """Describe the most anomalous patches of an image for JSON.

    Args:
        prediction: The prediction for this image alone (B = 1).
        origins: Origins of the coreset patches.
        size: (H, W) of the cropped image in pixels, in which the boxes are given.
        max_patches: The largest number of patches to describe.
        ignored: (h, w) bool, patches that are not judged; None if all are.

    Returns:
        A record for each patch, the most anomalous first, with its ``nearest`` coreset patches.
    """
    distance, nearest = prediction.distance[0], prediction.nearest[0]  # (h, w, k) each
    records = []
    for row, column in explain.find_most_anomalous(distance, max_patches, ignored):
        distances = distance[row, column].tolist()
        records.append(
            {
                "rank": len(records) + 1,
                **_describe_place(row, column, distance.shape[:2], size),
                "score": float(np.mean(distances)),
                "nearest": [
                    {"distance": d, **_describe_origin(origins, index, distance.shape[:2], size)}
                    for d, index in zip(distances, nearest[row, column].tolist(), strict=True)
                ],
            }
        )
    return records


def draw_patches(
    image: np.ndarray,
    records: Sequence[Record],
    crops: np.ndarray,
    grid: tuple[int, int],
    *,
    root: Path,
    preprocess: Preprocess,
    decoding: Decoding,
    title: str,
    file_name: str,
    threshold: float | None,
) -> np.ndarray:
    """Draw the patches that `describe_patches` described.

    Args:
        image: (H, W, 3) uint8 RGB, the cropped test image.
        records: The records of its most anomalous patches.
        crops: (n, k, ph, pw, 3) uint8, the crop of each record's nearest coreset patches.
        grid: (h, w).
        root: The folder to which the records' files are relative.
        preprocess: Crops images for the model.
        decoding: How the training images were decoded.
        title: The title of the figure.
        file_name: The text below the title.
        threshold: The distance from which a pixel counts as defective; None if it is unknown.

    Returns:
        (H', W', 3) uint8 RGB.
    """
    patches = explained_patches(
        image,
        records,
        crops,
        grid,
        lambda file, version: read_training_image(root / file, version, preprocess, decoding),
    )
    return draw_explanation(image, patches, title=title, file_name=file_name, threshold=threshold)


def crops_of_nearest(records: Sequence[Record], patches: np.ndarray) -> np.ndarray:
    """Return the crops of the records' nearest coreset patches.

    Args:
        records: n records of `describe_patches`.
        patches: (M, ph, pw, 3) uint8, the crops of all coreset patches.

    Returns:
        (n, k, ph, pw, 3) uint8.
    """
    return patches[[[near["coreset_index"] for near in record["nearest"]] for record in records]]


def explained_patches(
    image: np.ndarray,
    records: Sequence[Record],
    crops: np.ndarray,
    grid: tuple[int, int],
    read: Callable[[str, str], np.ndarray | None],
) -> list[ExplainedPatch]:
    """Return the content of `draw_explanation`.

    Args:
        image: (H, W, 3) uint8 RGB.
        records: n records.
        crops: (n, k, ph, pw, 3) uint8.
        grid: (h, w).
        read: Returns a training image, (H, W, 3) uint8, by its file and version; None if the file
            cannot be read.
    """
    explained = []
    for record, crops_of_record in zip(records, crops, strict=True):
        wholes = [read(near["file"], near["version"]) for near in record["nearest"]]
        # All crops of a row have the same width, so that they can be compared.
        fields = 2 if any(whole is None for whole in wholes) else CONTEXT_FIELDS
        nearest = [
            NormalPatch(
                crop=crop if fields == 2 else _crop(whole, near, grid, fields),
                field=_field_in_crop(image, grid, fields),
                name=_name(near),
                place=_place(near),
                distance=near["distance"],
                whole=whole,
                box=None if whole is None else _box(whole, near, grid, fields),
            )
            for near, whole, crop in zip(record["nearest"], wholes, crops_of_record, strict=True)
        ]
        explained.append(
            ExplainedPatch(
                crop=_crop(image, record, grid, fields),
                field=_field_in_crop(image, grid, fields),
                box=_box(image, record, grid, fields),
                place=_place(record),
                score=record["score"],
                nearest=nearest,
            )
        )
    return explained


@lru_cache(maxsize=TRAINING_IMAGES_KEPT)
def read_training_image(
    path: Path, version: str, preprocess: Preprocess, decoding: Decoding
) -> np.ndarray | None:
    """Return a cropped training image, (H, W, 3) uint8; None if it cannot be read."""
    try:
        image = preprocess.crop_image(read_image(path, decoding))
    except DatasetError:
        return None
    return changed(image[None], version)[0]


def _describe_place(row: int, column: int, grid: tuple[int, int], size: tuple[int, int]) -> Record:
    return {"row": row, "column": column, "box": list(explain.patch_box(row, column, grid, size))}


def _describe_origin(
    origins: Origins, index: int, grid: tuple[int, int], size: tuple[int, int]
) -> Record:
    return {
        "coreset_index": index,
        "file": origins.names[origins.image[index]],
        "version": origins.versions[origins.version[index]],
        **_describe_place(int(origins.row[index]), int(origins.column[index]), grid, size),
    }


def _crop(image: np.ndarray, record: Record, grid: tuple[int, int], fields: int) -> np.ndarray:
    row, column = np.array([record["row"]]), np.array([record["column"]])
    return explain.crop_patches(image[None], np.array([0]), row, column, grid, fields)[0]


def _box(image: np.ndarray, record: Record, grid: tuple[int, int], fields: int) -> explain.PixelBox:
    return explain.patch_box(record["row"], record["column"], grid, image.shape[:2], fields)


def _field_in_crop(image: np.ndarray, grid: tuple[int, int], fields: int) -> explain.PixelBox:
    """Return the box of the patch's own field within a crop."""
    height, width = (
        max(length / count, 1) for length, count in zip(image.shape, grid, strict=False)
    )
    # The centre of the crop is that of the field, both rounded down.
    left, top = (round(fields * length) // 2 - int(length / 2) for length in (width, height))
    return left, top, left + round(width), top + round(height)


def _place(record: Record) -> str:
    return f"patch row {record['row']}, column {record['column']}"


def _name(record: Record) -> str:
    name = record["file"].rpartition("/")[2]
    return f"{name}, {record['version']}" if record["version"] else name
