"""Finished categories, which a later run with the same result folder reuses.

Each finished category has a file ``finished/<name>_<digest of the name>.json`` in the result
folder: its rows, the points of its curves, the data of its report, and the identity of the run.
"""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import cattrs
import numpy as np

from datasets.base import Category, UnusableFilesError
from datasets.transport import file_digest
from utils.output_names import FINISHED_FOLDER
from utils.pipeline.category_result import Measurement
from utils.report import ReportView
from utils.result_folder import ResultFolder
from utils.results import ResultRow, Setting

# Raised if the form of the files changes.
FORMAT = 2
# A file is larger only if it is not one of ours.
MAX_BYTES = 1 << 30

log = logging.getLogger(__name__)

# Size in bytes, time of the last change in nanoseconds, digest of the content.
FileState = tuple[int, int, str]


@dataclass(frozen=True)
class Figures:
    """The figures of a category's test images at one setting, drawn completely.

    Attributes:
        view: The report's data.
        flags: The flags that chose the figures, by name.
        seed: The seed of the results that they show.
    """

    view: ReportView
    flags: Mapping[str, str]
    seed: int

    @property
    def files(self) -> list[str]:
        """The names of the files in the result folder."""
        images = ((i.thumbnail, i.localization, i.explanation) for i in self.view.images)
        names = (self.view.distribution, *(name for of_image in images for name in of_image))
        return [name for name in names if name is not None]


@dataclass(frozen=True)
class FinishedCategory:
    """A category with everything that tables, curves and the report show.

    Attributes:
        category: The category's name.
        identity: The settings that all results of a folder have in common.
        samples: Digest of the list of the images, their labels and masks.
        data: The state of each file, by its name.
        rows: The rows of all models.
        measurements: The measurements with drawn curves, including these curves.
        figures: The figures, one for each setting with figures.
        files: Other outputs that are complete, trained models and saved maps, by path: the flags
            that they depend on and, for a model, its digest.
        record: The category's parts of ``run.json``, by key.
        skipped: The state of each image that was skipped; None for one that cannot be read.
    """

    category: str
    identity: Mapping[str, str]
    samples: str
    data: Mapping[str, FileState]
    rows: tuple[ResultRow, ...]
    measurements: tuple[Measurement, ...]
    figures: tuple[Figures, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    record: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    skipped: Mapping[str, FileState | None] = field(default_factory=dict)

    @property
    def done(self) -> frozenset[tuple[Setting, int]]:
        """The settings and seeds that are measured."""
        return frozenset((row.setting, row.seed) for row in self.rows)

    def with_files(self, other: Callable[[Path], Path]) -> "FinishedCategory":
        """Return the results with other names of the files."""
        data, skipped = (
            {str(other(Path(name))): state for name, state in states.items()}
            for states in (self.data, self.skipped)
        )
        return replace(self, data=data, skipped=skipped)

    def join(self, newer: "FinishedCategory") -> "FinishedCategory":
        """Return the results of both; of the same row, setting's figures or file the newer."""
        rows = {row.key: row for row in (*self.rows, *newer.rows)}
        measurements = {m.row.key: m for m in (*self.measurements, *newer.measurements)}
        figures = {one.view.setting: one for one in (*self.figures, *newer.figures)}
        record = {
            key: {**self.record.get(key, {}), **newer.record.get(key, {})}
            for key in (*self.record, *newer.record)
        }
        for seed, files in self.record.get("shots", {}).items():
            # Those of fewer shots are the first of those of more.
            record["shots"][seed] = max(files, record["shots"][seed], key=len)
        return replace(
            newer,
            rows=tuple(rows.values()),
            measurements=tuple(measurements.values()),
            figures=tuple(figures.values()),
            files={**self.files, **newer.files},
            record=record,
            skipped={**self.skipped, **newer.skipped},
        )


class FinishedWork:
    """The finished categories of a result folder.

    Args:
        folder: The result folder.
    """

    def __init__(self, folder: ResultFolder):
        self._folder = folder
        self._converter = cattrs.Converter(forbid_extra_keys=True)
        self._converter.register_structure_hook_func(
            lambda kind: kind is object, lambda value, _: value
        )
        self._converter.register_unstructure_hook(np.ndarray, np.ndarray.tolist)
        self._converter.register_structure_hook(
            np.ndarray, lambda values, _: np.asarray(values, dtype=np.float64)
        )

    def read(self) -> dict[str, FinishedCategory]:
        """Return all finished categories, by name; damaged files are reported and skipped."""
        found = {}
        for path in sorted((self._folder.path / FINISHED_FOLDER).glob("*.json")):
            try:
                finished = self._read(path)
            except Exception as error:  # values of wrong types may cause an error of any type
                log.warning(
                    "%s is damaged (%s): the category is evaluated again",
                    path,
                    type(error).__name__,
                )
                continue
            found[finished.category] = finished
        return found

    def write(self, finished: FinishedCategory) -> None:
        """Write a category, with file names that are valid from every current folder.

        Raises:
            UsageError: The file cannot be written.
        """
        content = json.dumps(self._converter.unstructure(finished.with_files(_real_names())))
        text = json.dumps({"format": FORMAT, "digest": _digest(content), "content": content})
        self._folder.write_text(f"{FINISHED_FOLDER}/{_file_name(finished.category)}", text)

    def _read(self, path: Path) -> FinishedCategory:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"expected at most {MAX_BYTES} bytes")
        record = json.loads(path.read_text(encoding="utf-8"))
        if (
            not isinstance(record, dict)
            or record.get("format") != FORMAT
            or not isinstance(content := record.get("content"), str)
            or _digest(content) != record.get("digest")
        ):
            raise ValueError("expected the content that the digest belongs to")
        return self._converter.structure(json.loads(content), FinishedCategory)


def spelled_as(finished: FinishedCategory, category: Category) -> FinishedCategory:
    """Return a finished category with the names that its files have in the present run.

    The same files may be named from another current folder, or through a link to their folder.
    """
    real = _real_names()
    names = {real(path): path for path in files_of(category)}
    return finished.with_files(lambda path: names.get(real(path), path))


def _real_names() -> Callable[[Path], Path]:
    """Return a function to absolute names; it follows links to folders, not those to files."""
    real = cache(os.path.realpath)
    return lambda path: Path(real(path.parent), path.name)


def first_difference(
    finished: FinishedCategory, identity: Mapping[str, str], category: Category | None
) -> str:
    """Return what differs between a finished category and the present run; empty if nothing does.

    Args:
        finished: The finished category.
        identity: The settings of the present run.
        category: The samples of the category now; None if the present run does not process it.
    """
    for name in dict.fromkeys((*identity, *finished.identity)):
        before, after = finished.identity.get(name, "unknown"), identity.get(name, "unknown")
        if before != after:
            return f"{name} is {after}, was {before}"
    return "" if category is None else _data_difference(finished, category)


def _data_difference(finished: FinishedCategory, listed: Category) -> str:
    for name, before in finished.skipped.items():
        if not _is_unchanged(Path(name), before):
            return f"{name} was skipped and has changed"
    category = listed.without(finished.skipped)
    files = {str(path): path for path in files_of(category)}
    for name in dict.fromkeys((*finished.data, *files)):
        if name not in files:
            return f"{name} is no longer among the files of {category.name}"
        if name not in finished.data:
            return f"{name} is new among the files of {category.name}"
        if not _is_unchanged(files[name], finished.data[name]):
            return f"{name} has changed"
    if finished.samples != digest_of_samples(category):
        return f"the list of images, labels and masks of {category.name} has changed"
    return ""


def digest_of_samples(category: Category) -> str:
    """Return a digest of the images, their labels, masks and saturations, in order.

    It does not depend on how the files are named, as `spelled_as` describes it.
    """
    real = _real_names()
    train, test = (
        tuple(sample.with_files(real) for sample in part)
        for part in (category.train, category.test)
    )
    return _digest(repr((train, test, *category.saturations)))


def data_state(category: Category) -> dict[str, FileState]:
    """Return the state of each file of a category.

    Raises:
        UnusableFilesError: Files can no longer be read.
    """
    states = states_of(map(str, files_of(category)))
    gone = [name for name, state in states.items() if state is None]
    _refuse(gone, category, "cannot read")
    return states


def check_unchanged(category: Category, states: Mapping[str, FileState]) -> None:
    """Check that the files of a category have not changed since their states were noted.

    Raises:
        UnusableFilesError: Some have.
    """
    changed = [name for name, state in states.items() if not _is_unchanged(Path(name), state)]
    _refuse(changed, category, "found changes in")


def _refuse(names: Sequence[str], category: Category, text: str) -> None:
    """Raise UnusableFilesError about files; without any, do nothing."""
    expected = f"expected the files of {category.name} to stay unchanged during the run, {text}"
    if names:
        raise UnusableFilesError({name: f"{expected} {name}" for name in names})


def states_of(names: Iterable[str]) -> dict[str, FileState | None]:
    """Return the state of each file; None for one that cannot be read."""
    return {name: _state(Path(name)) for name in names}


def files_of(category: Category) -> list[Path]:
    """Return the images and masks of a category."""
    samples = (*category.train, *category.test)
    return list(dict.fromkeys(path for sample in samples for path in sample.files))


def in_order(
    rows: Iterable[ResultRow],
    wanted: Sequence[tuple[Setting, int]],
    models: Sequence[str],
) -> list[ResultRow]:
    """Return a category's rows in the order of the present run; others follow in theirs.

    Args:
        rows: Rows of one category.
        wanted: Settings and seeds of the present run, in order.
        models: Names of the models, in order.
    """
    places = {one: place for place, one in enumerate(wanted)}

    def key(row: ResultRow) -> tuple:
        one, (shots, percentage) = (row.setting, row.seed), row.setting.order
        place = places.get(one, 0), percentage, row.seed
        return one not in places, shots, models.index(row.model), place

    return sorted(rows, key=key)


def _state(path: Path) -> FileState | None:
    try:
        status = path.stat()
        return status.st_size, status.st_mtime_ns, file_digest(path)
    except OSError:
        return None


def _is_unchanged(path: Path, before: FileState | None) -> bool:
    """Compare sizes and times and, if the times differ, the contents."""
    if before is None:
        return _state(path) is None
    try:
        status = path.stat()
        if status.st_size != before[0]:
            return False
        return status.st_mtime_ns == before[1] or file_digest(path) == before[2]
    except OSError:
        return False


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(errors="surrogatepass")).hexdigest()


def _file_name(category: str) -> str:
    """Return a file name that no other category has, also where upper and lower case are equal."""
    readable = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in category)
    return f"{readable[:80]}_{_digest(category)[:12]}.json"
