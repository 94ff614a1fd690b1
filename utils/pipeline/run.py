"""The state of an evaluation: results so far, those of earlier runs, and the files of both."""

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path

from datasets.base import Category
from patchcore import PatchCore
from patchcore.errors import PatchCoreError
from patchcore.record import read_record
from patchcore.version import RESULTS_VERSION
from utils.machine import now
from utils.options.evaluate import EvaluateOptions
from utils.output_names import REPORT_FILE, TABLES_FILE, setting_tag
from utils.pipeline.category_result import Measurement
from utils.pipeline.ensembles import ENSEMBLE
from utils.pipeline.finished import (
    Figures,
    FinishedCategory,
    FinishedWork,
    first_difference,
    in_order,
)
from utils.pipeline.trained_models import model_folder
from utils.report import ReportView, render_page
from utils.result_folder import ResultFolder
from utils.results import ResultRow, Setting, numbered
from utils.tables import describe_run, tables_text

# Options that change no number: what to process, the machine, figures, the log, and models that
# are saved. All others must be the same for a run to resume an earlier one.
IRRELEVANT = frozenset(
    {
        *("path_data", "categories", "percentage_coreset", "seed", "shots"),
        *("dataset", "holdout", "normal_dir", "abnormal_dir", "mask_dir"),  # the images count
        *("protocol", "weights", "ignore_mask"),  # settings and contents of the files count
        *("device", "batch_size", "num_workers", "memory_budget", "max_megapixels"),
        *("engine", "address", "shards", "task_cpus"),
        *("path_result", "fresh", "pictures", "pictures_limit", "explain_top", "score_max"),
        *("save_maps", "profile", "summary", "on_error", "quiet", "verbose"),
        *("path_trained", "trained_dtype", "save_index"),
        *("threshold", "threshold_pixel", "nominal_fpr", "nominal_fpr_pixel"),
    }
)
# Options that saved models depend on, in addition to those that must be the same.
MODEL_FLAGS = (
    *("trained_dtype", "save_index", "threshold", "threshold_pixel"),
    *("nominal_fpr", "nominal_fpr_pixel"),
)
# Entries of ``run.json`` with a part of each category.
CATEGORY_RECORDS = ("memory", "coresets", "shots", "file_notes", "skipped_images")
FIGURE_FLAGS = ("pictures", "pictures_limit", "explain_top", "score_max")

log = logging.getLogger(__name__)


def identity_of(options: EvaluateOptions, models: Mapping[str, PatchCore]) -> dict[str, str]:
    """Return all that results depend on except the data, the setting and the seed, by name."""
    weights = {f"the digest of {n}'s weights": m.backbone.weights_digest for n, m in models.items()}
    masks = {
        f"the ignored pixels of {n}": hashlib.sha256(m.mask.pixels.tobytes()).hexdigest()
        for n, m in models.items()
        if m.mask is not None
    }
    version = {"the program's version of results": str(RESULTS_VERSION)}
    return version | options.texts(without=IRRELEVANT) | weights | masks


def wanted_results(options: EvaluateOptions) -> list[tuple[Setting, int]]:
    """Return the settings and seeds of a run, in the order of its rows."""
    percentages = options.settings().percentage_coreset
    return [
        (Setting(percentage, shots), seed)
        for shots, seed, percentage in product(
            options.shot_counts, dict.fromkeys(options.seed), percentages
        )
    ]


def own_rows(
    rows: Sequence[ResultRow], options: EvaluateOptions, names: Sequence[str]
) -> list[ResultRow]:
    """Return the rows that a run was asked for, without others of earlier runs.

    Args:
        rows: All rows of a result folder.
        options: Options of the run.
        names: Names of its categories.
    """
    wanted = set(wanted_results(options))
    return [row for row in rows if row.category in names and (row.setting, row.seed) in wanted]


def describe_results(wanted: Sequence[tuple[Setting, int]]) -> str:
    """Return settings and seeds in words."""
    return "; ".join(f"{setting}, seed {seed}" for setting, seed in wanted)


@dataclass
class Run:
    """The state of a run.

    Attributes:
        options: The options of the run.
        folder: The result folder.
        record: Content of ``run.json``.
        names: Names of the categories of this run, in order.
        models: Names of the models, in order.
        identity: All that results depend on except the data, the setting and the seed.
        results: The results so far and those that are kept of earlier runs, by category.
        curves: Titles and files of the curves of each setting.
    """

    options: EvaluateOptions
    folder: ResultFolder
    record: dict[str, object]
    names: Sequence[str]
    models: Sequence[str]
    identity: Mapping[str, str]
    results: dict[str, FinishedCategory] = field(default_factory=dict)
    curves: dict[Setting, list[tuple[str, str]]] = field(default_factory=dict)

    def take_over(self, categories: Sequence[Category]) -> None:
        """Take over the results of earlier runs, or move them away if anything differs."""
        self.folder.remove_partial_files()
        found = FinishedWork(self.folder).read()
        samples = {category.name: category for category in categories}
        if self.options.fresh:
            reason = "--fresh"
        else:
            differences = (
                first_difference(one, self.identity, samples.get(name))
                for name, one in found.items()
            )
            reason = next(filter(None, differences), "")
        if reason or not found:
            self.folder.move_earlier_run(reason=reason or "it has no finished category")
            return
        self.results = found
        for one in found.values():
            self._record(one)
        self._write_tables()
        log.info(
            "resuming from the results of %s in %s (--fresh starts from the beginning)",
            numbered(len(found), "category"),
            self.folder.path,
        )

    def missing(self, found: FinishedCategory | None) -> list[tuple[Setting, int]]:
        """Return the settings and seeds of a category that this run has to compute.

        Args:
            found: The results so far of this category; None if there are none.
        """
        wanted = wanted_results(self.options)
        if found is None or self.missing_output(found):
            return wanted
        return [one for one in wanted if one not in found.done]

    def missing_output(self, found: FinishedCategory | None) -> str:
        """Return why outputs of finished results are made again; empty if none is missing."""
        if found is None:
            return ""
        wanted = [one for one in wanted_results(self.options) if one in found.done]
        reasons = (*self._missing_figures(found, wanted), *self._missing_files(found, wanted))
        return next(iter(reasons), "")

    @property
    def figure_flags(self) -> dict[str, str]:
        """The flags that choose figures."""
        return {name: str(getattr(self.options, name)) for name in FIGURE_FLAGS}

    @property
    def ordered(self) -> list[FinishedCategory]:
        """The results by category: those of this run in its order, then others."""
        names = [name for name in self.names if name in self.results]
        return [self.results[name] for name in [*names, *sorted(set(self.results) - set(names))]]

    @property
    def rows(self) -> list[ResultRow]:
        """The rows of ``results.csv``."""
        wanted, models = wanted_results(self.options), [*self.models, ENSEMBLE]
        return [row for one in self.ordered for row in in_order(one.rows, wanted, models)]

    @property
    def views(self) -> list[ReportView]:
        """The test images in the report, of the first seed."""
        return [
            figures.view
            for one in self.ordered
            for figures in sorted(one.figures, key=lambda figures: figures.view.setting.order)
            if figures.seed == self.options.seed[0]
        ]

    def settings_drawn(self) -> list[Setting]:
        """Return the settings with curves."""
        found = {m.row.setting for one in self.results.values() for m in one.measurements}
        return sorted(found, key=lambda setting: setting.order)

    def drawn(self, setting: Setting) -> list[Measurement]:
        """Return the first seed's measurements of a setting, which its curves show."""
        return [
            m
            for one in self.ordered
            for m in one.measurements
            if m.row.setting == setting and m.row.seed == self.options.seed[0]
        ]

    def add(self, finished: FinishedCategory) -> None:
        """Add the results of a category, and write the tables.

        Earlier figures of the settings that are drawn now no longer count as complete.
        """
        before = self.results.get(finished.category)
        if before and self.options.pictures != "none":
            seed = self.options.seed[0]
            drawn = {row.setting for row in finished.rows if row.seed == seed}
            kept = tuple(one for one in before.figures if one.view.setting not in drawn)
            before = replace(before, figures=kept)
        self.results[finished.category] = before.join(finished) if before else finished
        self._record(self.results[finished.category])
        self._write_tables()

    def add_figures(self, category: str, views: Sequence[ReportView]) -> None:
        """Add the figures of a category that are drawn now.

        Views without images (``--pictures none``) do not replace images of the same results.
        """
        found, seed = self.results[category], self.options.seed[0]
        earlier = {(one.view.setting, one.seed) for one in found.figures}
        figures = tuple(
            Figures(view, self.figure_flags, seed)
            for view in views
            if self.options.pictures != "none" or (view.setting, seed) not in earlier
        )
        self.results[category] = found.join(replace(found, figures=figures))

    def add_files(self, category: str) -> None:
        """Add the models and maps of a category that are complete now."""
        wanted = wanted_results(self.options)
        files = {
            name: _state(self.folder.path / name, flags)
            for name, flags in self.files_of(category, wanted)
        }
        found = self.results[category]
        self.results[category] = found.join(replace(found, files=files))

    def thumbnails_of_others(self, category: str) -> set[str]:
        """Return the thumbnails of all categories but one."""
        figures = (f for one in self.results.values() for f in one.figures)
        images = (i for f in figures if f.view.category != category for i in f.view.images)
        return {image.thumbnail for image in images if image.thumbnail is not None}

    def keep(self, finished: FinishedCategory) -> None:
        """Write a category for later runs, with those of its outputs that are complete."""
        FinishedWork(self.folder).write(finished)

    def describe_progress(self) -> str:
        """Return a line about what is finished, for a run that ends early."""
        found = FinishedWork(self.folder).read()
        done = sum(name in found and not self.missing(found[name]) for name in self.names)
        return (
            f"finished: {done} of {numbered(len(self.names), 'category')} in {self.folder.path}; "
            "the same command computes the rest"
        )

    def write_report(self) -> None:
        """Write the report page of the results so far."""
        page = render_page(self.record, self.rows, self.views, self.curves)
        self.folder.write_text(REPORT_FILE, page)

    def finish(self, state: str) -> None:
        """Record how the run ended, also in the report page."""
        self.record |= {"state": state, "end": now()}
        self.folder.write_run(self.record)
        if self.results:
            self.write_report()

    def _write_tables(self) -> None:
        rows = self.rows
        self.folder.write_rows(rows)
        self.folder.write_text(TABLES_FILE, tables_text(rows, describe_run(self.record, rows)))

    def notes_of(self, category: str) -> dict[str, str]:
        """Return the notes of ``run.json`` about a category, as keys."""
        return {n: category for n in self.record["notes"] if n.startswith(f"{category}: ")}

    def _record(self, finished: FinishedCategory) -> None:
        notes = self.record["notes"]  # those of categories of earlier runs are still in the tables
        notes += [note for note in finished.record.get("notes", {}) if note not in notes]
        for key in CATEGORY_RECORDS:
            if key in finished.record:
                self.record.setdefault(key, {})[finished.category] = finished.record[key]

    def _missing_figures(
        self, found: FinishedCategory, wanted: Sequence[tuple[Setting, int]]
    ) -> Iterator[str]:
        """Yield what is missing of the figures that this run asks for."""
        drawn, seed = {one.view.setting: one for one in found.figures}, self.options.seed[0]
        if self.options.pictures == "none":
            return
        for setting in self._of_first_seed(wanted):
            figures = drawn.get(setting)
            if figures is None or figures.seed != seed:
                yield f"the figures of {setting}, seed {seed} are missing"
            elif gone := [name for name in figures.files if not (self.folder.path / name).exists()]:
                yield f"{self.folder.path / gone[0]} is missing"
            else:
                for name, now in self.figure_flags.items():
                    if figures.flags[name] != now:
                        yield f"{name} of the figures is {now}, was {figures.flags[name]}"

    def _missing_files(
        self, found: FinishedCategory, wanted: Sequence[tuple[Setting, int]]
    ) -> Iterator[str]:
        """Yield what is missing of the models and maps that this run asks for."""
        for name, flags in self.files_of(found.category, wanted):
            path = self.folder.path / name
            state = _state(path, flags)
            if not path.exists():
                yield f"{path} is missing"
            elif flags and not state:
                yield f"{path} is damaged"
            elif found.files.get(name) != state:
                yield f"{path} was made with other flags or by another run"

    def files_of(
        self, category: str, wanted: Sequence[tuple[Setting, int]]
    ) -> Iterator[tuple[str, str]]:
        """Yield the trained models and maps of a category, each with its flags.

        Names of maps are relative to the result folder, which may move; those of models are
        absolute.

        Args:
            category: Name of the category.
            wanted: The settings and seeds.
        """
        options = self.options
        if options.saves_models:
            flags = [f"{name} {getattr(options, name)}" for name in MODEL_FLAGS]
            flags = ", ".join([*flags, f"seed {options.seed[0]}"])
            for model, one in product(self.models, self._of_first_seed(wanted)):
                setting = one.percentage, options.k, one.shots
                root = options.path_trained.absolute()
                yield str(model_folder(root, category, model, *setting)), flags
        if options.save_maps:
            models = [*self.models, ENSEMBLE] if len(self.models) > 1 else self.models
            for model, (setting, seed) in product(models, wanted):
                yield maps_name(category, model, setting, options.k, seed), ""

    def _of_first_seed(self, wanted: Sequence[tuple[Setting, int]]) -> list[Setting]:
        """Return the settings of the first seed, which figures and models belong to."""
        return [setting for setting, seed in wanted if seed == self.options.seed[0]]


def _state(path: Path, flags: str) -> str:
    """Return the flags that a file or model depends on, and a model's digest."""
    try:
        return f"{flags}, digest {read_record(path)['digest']}" if flags else ""
    except PatchCoreError:  # it is missing or damaged
        return ""


def maps_name(category: str, model: str, setting: Setting, k: int, seed: int) -> str:
    """Return the name of the file with the maps of a category."""
    tag = setting_tag(setting.percentage, k, setting.shots)
    return f"maps_{category}_{model.replace(':', '-')}_{tag}_seed{seed}.npz"
