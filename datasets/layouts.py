"""The layouts of datasets by name, and how the layout of a folder is recognised.

To add a layout, write its module with the functions of `Layout` and add a line to `LAYOUTS`.

Only masks are decoded here, where an empty mask marks a good image. Neither torch nor OpenCV is
imported, so that a missing folder is reported immediately.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from datasets import (
    bmad,
    coco,
    csv_list,
    dagm,
    kaputt,
    kolektor_sdd,
    kolektor_sdd2,
    labelme,
    magnetic_tile,
    mvtec,
    mvtec_3d,
    mvtec_ad_2,
    mvtec_loco,
    plain_folder,
    real_iad,
    visa,
)
from datasets.base import Category, DatasetError, did_you_mean
from datasets.content import HEAD_BYTES, is_archive
from datasets.entries import ReadOptions
from datasets.listing import has_images, list_folders
from datasets.published import PUBLISHED, benchmark_of


class Layout(Protocol):
    """A module that lists the images of datasets in one layout."""

    def match(self, path: Path) -> str | None:
        """Compare a file or folder with the layout.

        Returns:
            An empty text if it is in this layout; what is missing, for example
            ``split_csv/1cls.csv``, if it looks like this layout and cannot be read; None otherwise.

        Raises:
            DatasetError: A file that decides it cannot be read.
        """

    def find_categories(self, path: Path, options: ReadOptions) -> list[str]:
        """Return the names of the categories, sorted.

        Raises:
            DatasetError: A list of images cannot be read.
        """

    def read_category(self, path: Path, name: str, options: ReadOptions) -> Category:
        """List the training and test images of a category.

        Raises:
            DatasetError: There is no such category, or a folder or file of it is missing.
        """


AUTO, PLAIN = "auto", "folder"
LAYOUTS: Mapping[str, Layout] = MappingProxyType(
    {
        "mvtec_ad_2": mvtec_ad_2,
        "mvtec_loco": mvtec_loco,
        "mvtec_3d": mvtec_3d,
        "visa": visa,
        "kolektor_sdd": kolektor_sdd,
        "kolektor_sdd2": kolektor_sdd2,
        "magnetic_tile": magnetic_tile,
        "dagm": dagm,
        "real_iad": real_iad,
        "bmad": bmad,
        "kaputt": kaputt,
        "csv": csv_list,
        "coco": coco,
        "labelme": labelme,
        "mvtec": mvtec,
        PLAIN: plain_folder,
    }
)
# Layouts that also fit folders in other layouts: considered in this order if no other one fits.
GENERAL = ("mvtec", PLAIN)
# Folders in which an archive may have wrapped a dataset.
MAX_WRAPPERS = 2

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Dataset:
    """A dataset with its layout.

    Attributes:
        path: The folder or file of the dataset.
        layout: Name of the layout, a key of `LAYOUTS`.
        reader: The module of the layout.
        options: What to read.
    """

    path: Path
    layout: str
    reader: Layout
    options: ReadOptions

    def find_categories(self) -> list[str]:
        """Return the names of the categories, sorted.

        Raises:
            DatasetError: There is none.
        """
        names = self.reader.find_categories(self.path, self.options)
        if not names:
            raise DatasetError(
                f"expected categories in the layout {self.layout} in {self.path}, found none "
                "(--path_data, --dataset, --normal_dir)"
            )
        return names

    def read_category(self, name: str) -> Category:
        """List the training and test images of a category.

        Raises:
            DatasetError: There is no such category, or a folder or file of it is missing.
        """
        category = self.reader.read_category(self.path, name, self.options)
        return replace(category, benchmark=benchmark_of(self.layout, category))

    def read_training(self, name: str) -> Category:
        """List the training images of a category; no test image need exist.

        Raises:
            DatasetError: There is no such category, or it has no training images.
        """
        return replace(self, options=replace(self.options, training_only=True)).read_category(name)


def open_dataset(
    path: Path,
    name: str = AUTO,
    options: ReadOptions | None = None,
    layouts: Mapping[str, Layout] = LAYOUTS,
) -> Dataset:
    """Find the layout of a dataset.

    Args:
        path: Folder or file of the dataset.
        name: Name of a layout or of a published dataset, or ``auto`` to recognise the layout.
        options: What to read; the defaults if None.
        layouts: Layouts to choose from.

    Raises:
        DatasetError: The path is missing, no layout fits, several fit, or something is missing.
    """
    options = options or ReadOptions()
    if not path.exists():
        raise DatasetError(f"expected a dataset, found nothing at {path} (--path_data)")
    if options.normal_dir or options.abnormal_dir or options.mask_dir:
        if name not in (AUTO, PLAIN):
            raise DatasetError(
                "expected --dataset folder with --normal_dir, --abnormal_dir or --mask_dir, "
                f"found --dataset {name}"
            )
        return Dataset(path, PLAIN, layouts[PLAIN], options)
    if name == AUTO:
        return _recognise(path, options, layouts)
    layout = _layout_named(name, layouts)
    found = next((p for p in _unwrapped(path) if layouts[layout].match(p) == ""), None)
    if found is None:
        lacking = layouts[layout].match(path)
        what = f"{lacking} is missing" if lacking else "it is not in this layout"
        raise DatasetError(f"expected --dataset {name} at {path}: {what} (docs/datasets.md)")
    return Dataset(found, layout, layouts[layout], options)


def _recognise(path: Path, options: ReadOptions, layouts: Mapping[str, Layout]) -> Dataset:
    """Find the layout that fits a path, or a folder that an archive has put around it."""
    for folder in _unwrapped(path):
        matches, faults = _match_all(folder, layouts)
        fitting = [n for n, lacking in matches.items() if lacking == "" and n not in GENERAL]
        if faults and not fitting:
            raise faults[0]
        for fault in faults:
            log.warning("not used to recognise the layout: %s", fault)
        if len(fitting) > 1:
            raise DatasetError(
                f"expected one layout in {folder}, found several that fit: choose --dataset "
                f"{' or '.join(fitting)}"
            )
        lacking = [name for name, text in matches.items() if text and name not in GENERAL]
        general = [name for name in GENERAL if matches.get(name) is not None]
        for name in (*fitting, *lacking, *general):
            if matches[name]:
                raise DatasetError(
                    f"expected the layout {name} in {folder}, found no {matches[name]}; if it is "
                    f"another layout, give --dataset {', '.join(layouts)} (docs/datasets.md)"
                )
            return Dataset(folder, name, layouts[name], options)
    if path.is_file():
        with path.open("rb") as file:
            what = "an archive: unpack" if is_archive(file.read(HEAD_BYTES)) else "another file:"
        raise DatasetError(
            f"expected a folder, a CSV list or COCO annotations, found {what} {path} (--path_data)"
        )
    raise DatasetError(
        "expected folders <category>/train/good and <category>/test, a folder of good images, or "
        f"another layout of docs/datasets.md under {path}, found none (--path_data)"
    )


def _match_all(
    folder: Path, layouts: Mapping[str, Layout]
) -> tuple[dict[str, str | None], list[DatasetError]]:
    """Return what each layout finds in a folder, and the errors of those that cannot decide."""
    matches: dict[str, str | None] = {}
    faults = []
    for name, layout in layouts.items():
        try:
            matches[name] = layout.match(folder)
        except DatasetError as error:
            faults.append(error)
    return matches, faults


def _unwrapped(path: Path) -> list[Path]:
    """Return a path, and the only folder in it as long as it has nothing else."""
    found = [path]
    while len(found) <= MAX_WRAPPERS:
        folders = list_folders(found[-1])
        if len(folders) != 1 or has_images(found[-1]):
            break
        found.append(folders[0])
    return found


def _layout_named(name: str, layouts: Mapping[str, Layout]) -> str:
    """Return the layout of this name, or of the published dataset of this name."""
    published = {entry.key: entry.layout for entry in PUBLISHED}
    found = name if name in layouts else published.get(name)
    if found not in layouts:
        names = sorted({*layouts, *published})
        raise DatasetError(
            f"expected a dataset name (auto, {', '.join(names)}), found {name!r} (--dataset)"
            f"{did_you_mean(name, names)}"
        )
    return found
