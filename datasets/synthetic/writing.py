"""Writes the made-up categories to disk in MVTec AD's layout."""

from __future__ import annotations

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
from datasets.synthetic.rendering import check_numbers, find_category, render

GENERATOR = "datasets.synthetic"
GENERATOR_VERSION = 1
"""Raise it with every change of the pictures: categories of another version are written anew."""

RECORD_NAME = "synthetic.json"


@dataclass(frozen=True)
class DatasetParameters:
    """What a category's pictures depend on."""

    num_train: int
    num_test_good: int
    num_test_per_defect: int
    size: int
    seed: int


@dataclass(frozen=True)
class _Picture:
    """One picture to write: `folder` is its place in the category, e.g. "test/hole"."""

    folder: str
    index: int
    defect_type: str | None


def write_dataset(
    path: Path,
    *,
    categories: Sequence[str] | None = None,
    num_train: int = 40,
    num_test_good: int = 12,
    num_test_per_defect: int = 6,
    size: int = 256,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> list[str]:
    """Write categories to `path` as MVTec AD's folders; a finished category is left alone.

    A category appears under its name only when it is complete, so that an interrupted run leaves
    no half-written one: run it again. Each holds a `synthetic.json` with its parameters; where
    they differ from these, the category is replaced. More pictures of one kind leave the first
    ones as they were. One run at a time may write to `path`.

    Args:
        path: The data set's root; created if missing.
        categories: Names out of CATEGORIES; None for all.
        num_train: Good training pictures a category, at least 1.
        num_test_good: Good test pictures a category.
        num_test_per_defect: Test pictures for each defect type.
        size: Side of the pictures in pixels.
        seed: Another seed gives another data set.
        progress: Called with 1 after each picture, and with a category's number of pictures when
            that is found finished.

    Returns:
        The names of the categories, in the order asked for.

    Raises:
        DatasetError: A folder of a category's name that this generator did not write. It is found
            before anything is written.
        ValueError: An unknown name or a number out of range.
    """
    names = list(CATEGORIES if categories is None else dict.fromkeys(categories))
    parameters = DatasetParameters(num_train, num_test_good, num_test_per_defect, size, seed)
    _check_counts(parameters)
    check_numbers(seed, size)
    records = {name: _read_record(path / find_category(name).name) for name in names}

    report = progress or (lambda _: None)
    path.mkdir(parents=True, exist_ok=True)
    for name in names:
        pictures = list(_pictures(name, parameters))
        if records[name] == _record(name, parameters):
            report(len(pictures))
        else:
            _write_category(path / name, name, pictures, parameters, report)
    return names


def _check_counts(parameters: DatasetParameters) -> None:
    if parameters.num_train < 1:
        raise ValueError(f"expected num_train of at least 1, found {parameters.num_train}")
    for name in ("num_test_good", "num_test_per_defect"):
        count = getattr(parameters, name)
        if count < 0:
            raise ValueError(f"expected {name} of at least 0, found {count}")


def _record(name: str, parameters: DatasetParameters) -> dict[str, object]:
    """Return what `synthetic.json` says about a category written with these parameters."""
    return {
        "generator": GENERATOR,
        "generator_version": GENERATOR_VERSION,
        "category": name,
        **asdict(parameters),
    }


def _read_record(folder: Path) -> Mapping[str, object] | None:
    """Return what a category's folder says about itself, None if there is no such folder.

    Raises DatasetError for a folder (or file) that this generator did not write.
    """
    if not folder.exists():
        return None
    try:
        record = json.loads((folder / RECORD_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        record = None
    if not isinstance(record, dict) or record.get("generator") != GENERATOR:
        raise DatasetError(
            f"{folder}: expected a category written by {GENERATOR} (with its {RECORD_NAME}) or "
            "nothing, found something else; it was left untouched. Choose another folder."
        )
    return record


def _pictures(name: str, parameters: DatasetParameters) -> Iterator[_Picture]:
    """List a category's pictures in the order they are written."""
    for index in range(parameters.num_train):
        yield _Picture(f"train/{GOOD}", index, None)
    for index in range(parameters.num_test_good):
        yield _Picture(f"test/{GOOD}", index, None)
    for defect_type in CATEGORIES[name].defect_types:
        for index in range(parameters.num_test_per_defect):
            yield _Picture(f"test/{defect_type}", index, defect_type)


def _write_category(
    target: Path,
    name: str,
    pictures: Sequence[_Picture],
    parameters: DatasetParameters,
    report: Callable[[int], None],
) -> None:
    """Write a category beside its place, and move it there when it is complete."""
    unfinished = target.with_name(f".{name}.unfinished")
    replaced = target.with_name(f".{name}.replaced")
    for leftover in (unfinished, replaced):
        shutil.rmtree(leftover, ignore_errors=True)

    for picture in pictures:
        _write_picture(unfinished, name, picture, parameters)
        report(1)
    record = json.dumps(_record(name, parameters), indent=2) + "\n"
    (unfinished / RECORD_NAME).write_text(record, encoding="utf-8")

    # A folder cannot be renamed onto another, so the old one steps aside first.
    if target.exists():
        target.rename(replaced)
    unfinished.rename(target)
    shutil.rmtree(replaced, ignore_errors=True)


def _write_picture(
    category_folder: Path, name: str, picture: _Picture, parameters: DatasetParameters
) -> None:
    image, mask = render(
        name,
        picture.defect_type,
        seed=_picture_seed(parameters.seed, picture),
        size=parameters.size,
    )
    file_name = f"{picture.index:03d}"
    _write_png(category_folder / picture.folder / f"{file_name}.png", image[..., ::-1])
    if picture.defect_type is not None:
        masks = category_folder / "ground_truth" / picture.defect_type
        _write_png(masks / f"{file_name}_mask.png", mask.astype(np.uint8) * 255)


def _picture_seed(seed: int, picture: _Picture) -> int:
    """Return a seed that no other picture of the data set has: its parts do not overlap."""
    return (seed << 64) | (crc32(picture.folder.encode()) << 32) | picture.index


def _write_png(path: Path, pixels: np.ndarray) -> None:
    """Write grey (H, W) or blue-green-red (H, W, 3) uint8."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # cv2.imwrite() fails on Windows for paths that are not plain ASCII.
    path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
