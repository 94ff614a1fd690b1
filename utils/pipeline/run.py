"""The state of an evaluation: results so far, those of earlier runs, and the files of both."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from datasets.base import Category
from utils.machine import now
from utils.options.evaluate import EvaluateOptions
from utils.output_names import REPORT_FILE, TABLES_FILE
from utils.pipeline.category_result import Measurement
from utils.pipeline.ensembles import ENSEMBLE
from utils.pipeline.finished import (
    Figures,
    FinishedCategory,
    FinishedWork,
    first_difference,
    in_order,
    spelled_as,
)
from utils.pipeline.wanted import Wanted
from utils.report import ReportView, render_page
from utils.result_folder import ResultFolder
from utils.results import ResultRow, Setting, numbered
from utils.run_texts import describe_run
from utils.tables import tables_text

# Entries of ``run.json`` with a part of each category.
CATEGORY_RECORDS = ("memory", "coresets", "shots", "file_notes", "skipped_images")

log = logging.getLogger(__name__)


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
        wanted: What the run was asked for.
    """

    options: EvaluateOptions
    folder: ResultFolder
    record: dict[str, object]
    names: Sequence[str]
    models: Sequence[str]
    identity: Mapping[str, str]
    results: dict[str, FinishedCategory] = field(default_factory=dict)
    curves: dict[Setting, list[tuple[str, str]]] = field(default_factory=dict)
    wanted: Wanted = field(init=False)

    def __post_init__(self) -> None:
        self.wanted = Wanted(self.options, self.folder.path, self.models)

    def take_over(self, categories: Sequence[Category]) -> None:
        """Take over the results of earlier runs, or move them away if anything differs."""
        self.folder.remove_partial_files()
        found = FinishedWork(self.folder).read()
        samples = {category.name: category for category in categories}
        for name in found.keys() & samples.keys():
            found[name] = spelled_as(found[name], samples[name])
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

    @property
    def ordered(self) -> list[FinishedCategory]:
        """The results by category: those of this run in its order, then others."""
        names = [name for name in self.names if name in self.results]
        return [self.results[name] for name in [*names, *sorted(set(self.results) - set(names))]]

    @property
    def rows(self) -> list[ResultRow]:
        """The rows of ``results.csv``."""
        wanted, models = self.wanted.results, [*self.models, ENSEMBLE]
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
            Figures(view, self.wanted.figure_flags, seed)
            for view in views
            if self.options.pictures != "none" or (view.setting, seed) not in earlier
        )
        self.results[category] = found.join(replace(found, figures=figures))

    def add_files(self, category: str) -> None:
        """Add the models and maps of a category that are complete now."""
        found, files = self.results[category], self.wanted.states_of(category)
        self.results[category] = found.join(replace(found, files=files))

    def thumbnails_of_others(self, category: str) -> set[str]:
        """Return the thumbnails of all categories but one."""
        figures = (f for one in self.results.values() for f in one.figures)
        images = (i for f in figures if f.view.category != category for i in f.view.images)
        return {image.thumbnail for image in images if image.thumbnail is not None}

    def keep(self, finished: FinishedCategory) -> None:
        """Write a category for later runs, with those of its outputs that are complete."""
        FinishedWork(self.folder).write(finished)

    def describe_progress(self, *, is_fault: bool) -> str:
        """Return a line about what is finished, for a run that ends early.

        Args:
            is_fault: Whether an error ends it, not the user.
        """
        found = FinishedWork(self.folder).read()
        condition = "once the fault is corrected, " if is_fault else ""
        done = sum(name in found and not self.wanted.missing(found[name]) for name in self.names)
        return (
            f"finished: {done} of {numbered(len(self.names), 'category')} in {self.folder.path}; "
            f"{condition}the same command computes the rest"
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
