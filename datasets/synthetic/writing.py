"""Write the procedural categories to disk in MVTec AD's layout."""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from zlib import crc32

import cv2
import numpy as np

from datasets.base import GOOD, DatasetError
from datasets.synthetic.categories import CATEGORIES
from datasets.synthetic.rendering import render

GENERATOR = "datasets.synthetic"
GENERATOR_VERSION = 1
"""Increase it with every change of the images: categories of other versions are rewritten."""

RECORD_NAME = "synthetic.json"


@dataclass(frozen=True)
class DatasetParameters:
    """The parameters that determine the images of a category."""

    num_train: int
    num_test_good: int
    num_test_per_defect: int
    size: int
    seed: int


@dataclass(frozen=True)
class _PlannedImage:
    """An image to write; `folder` is relative to the category, e.g. "test/hole"."""

    folder: str
    index: int
    defect_type: str | None


def write_dataset(
    path: Path,
    *,
    categories: Sequence[str],
    num_train: int,
    num_test_good: int,
    num_test_per_defect: int,
    size: int = 256,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Write categories to `path` in MVTec AD's layout; complete categories are not rewritten.

    A category gets its final name only when it is complete: after an interruption, call again.
    Each category holds a `synthetic.json` with its parameters; a category with other parameters
    is replaced. A larger number of images does not change the first ones. Only one process at a
    time may write to `path`.

    Args:
        path: The root of the dataset; created if missing.
        categories: Names from CATEGORIES.
        num_train: Number of good training images per category.
        num_test_good: Number of good test images per category.
        num_test_per_defect: Number of test images per defect type.
        size: Side of the images in pixels.
        seed: Seed of the dataset, at least 0.
        progress: Called with 1 after each image, and with the number of images of a category
            that is already complete.

    Raises:
        DatasetError: A folder with the name of a category was not written by this generator.
            Nothing is written then.
    """
    names = list(dict.fromkeys(categories))
    parameters = DatasetParameters(num_train, num_test_good, num_test_per_defect, size, seed)
    records = {name: _read_record(path / name) for name in names}

    report = progress or (lambda _: None)
    path.mkdir(parents=True, exist_ok=True)
    for name in names:
        planned_images = list(_plan_images(name, parameters))
        if records[name] == _record(name, parameters):
            report(len(planned_images))
        else:
            _write_category(path / name, name, planned_images, parameters, report)


def _record(name: str, parameters: DatasetParameters) -> dict[str, object]:
    """Return the content of `synthetic.json` for a category with these parameters."""
    return {
        "generator": GENERATOR,
        "generator_version": GENERATOR_VERSION,
        "category": name,
        **asdict(parameters),
    }


def _read_record(folder: Path) -> Mapping[str, object] | None:
    """Return the content of a category's `synthetic.json`; None if the folder is missing.

    Raises DatasetError for a folder (or file) that this generator did not write.
    """
    if not folder.exists():
        return None
    try:
        record = json.loads((folder / RECORD_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        record = None
    if not isinstance(record, dict) or record.get("generator") != GENERATOR:
        raise DatasetError(
            f"{folder}: expected a category written by {GENERATOR} (with its {RECORD_NAME}) or "
            "nothing, found something else; it was not changed. Choose another folder."
        )
    return record


def _plan_images(name: str, parameters: DatasetParameters) -> Iterator[_PlannedImage]:
    """Yield the images of a category in the order in which they are written."""
    for index in range(parameters.num_train):
        yield _PlannedImage(f"train/{GOOD}", index, None)
    for index in range(parameters.num_test_good):
        yield _PlannedImage(f"test/{GOOD}", index, None)
    for defect_type in CATEGORIES[name].defect_types:
        for index in range(parameters.num_test_per_defect):
            yield _PlannedImage(f"test/{defect_type}", index, defect_type)


def _write_category(
    target: Path,
    name: str,
    planned_images: Sequence[_PlannedImage],
    parameters: DatasetParameters,
    report: Callable[[int], None],
) -> None:
    """Write a category to a temporary folder and rename that when it is complete."""
    unfinished = target.with_name(f".{name}.unfinished")
    replaced = target.with_name(f".{name}.replaced")
    for leftover in (unfinished, replaced):
        shutil.rmtree(leftover, ignore_errors=True)

    for planned in planned_images:
        _write_image(unfinished, name, planned, parameters)
        report(1)
    record = json.dumps(_record(name, parameters), indent=2) + "\n"
    (unfinished / RECORD_NAME).write_text(record, encoding="utf-8")

    # A folder cannot be renamed onto another one: rename the old one first.
    if target.exists():
        target.rename(replaced)
    unfinished.rename(target)
    shutil.rmtree(replaced, ignore_errors=True)


def _write_image(
    category_folder: Path, name: str, planned: _PlannedImage, parameters: DatasetParameters
) -> None:
    image, mask = render(
        name,
        planned.defect_type,
        seed=_image_seed(parameters.seed, planned),
        size=parameters.size,
    )
    file_name = f"{planned.index:03d}"
    _write_png(category_folder / planned.folder / f"{file_name}.png", image[..., ::-1])
    if planned.defect_type is not None:
        masks = category_folder / "ground_truth" / planned.defect_type
        _write_png(masks / f"{file_name}_mask.png", mask.astype(np.uint8) * 255)


def _image_seed(seed: int, planned: _PlannedImage) -> int:
    """Return a seed that is unique within the dataset: the bits of its parts do not overlap."""
    return (seed << 64) | (crc32(planned.folder.encode()) << 32) | planned.index


def _write_png(path: Path, pixels: np.ndarray) -> None:
    """Write grey (H, W) or blue-green-red (H, W, 3) uint8."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # cv2.imwrite() fails on Windows for paths that are not plain ASCII.
    path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
