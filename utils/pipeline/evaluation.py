"""Evaluation of PatchCore on the categories of a dataset: metrics, tables and figures."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from tqdm.contrib.logging import logging_redirect_tqdm

from datasets.base import Category
from patchcore import PatchCore, Prediction
from patchcore.memory_bank import search_method
from patchcore.weights import RANDOM
from utils.encoding import write_arrays
from utils.files import make_writable
from utils.machine import now, start_record
from utils.options.evaluate import EvaluateOptions
from utils.output_names import REPORT_FILE, TABLES_FILE, setting_tag
from utils.pipeline.drawing import Drawing
from utils.pipeline.evaluate_category import (
    CategoryResult,
    Measurement,
    combine_members,
    evaluate_category,
)
from utils.pipeline.models import (
    choose_device,
    describe_ignored,
    make_models,
    summarise,
    with_layers,
)
from utils.pipeline.pictures import draw_category, draw_curves
from utils.pipeline.saving import save_evaluated
from utils.report import ReportView, render_page
from utils.result_folder import ResultFolder
from utils.results import ResultRow
from utils.tables import describe_run, log_line, main_tables, stage_table, tables_text

log = logging.getLogger(__name__)


def evaluate(
    options: EvaluateOptions, categories: Sequence[Category], *, note: str = ""
) -> list[ResultRow]:
    """Evaluate all categories; write results after each one, curves at the end.

    Args:
        options: Options of the run.
        categories: Categories as `read_categories` returns them.
        note: Remark for the tables and ``run.json``.

    Returns:
        One row per category, model, seed and percentage.

    Raises:
        DatasetError, PatchCoreError, UsageError: User-fixable errors. Results of categories that
            were finished before are kept.
    """
    device, options = choose_device(options.device), with_layers(options)
    folder = ResultFolder(options.path_result)
    models = make_models(options, device, categories)
    if options.summary:
        print("\n".join(summarise(model) for model in models.values()))
    if options.saves_models:
        make_writable(options.path_trained, "trained models", "--path_trained")
    folder.move_earlier_run()
    run = Run(options, folder, _start_record(options, models, note))
    run.folder.write_run(run.record)
    log.info("on %s; neighbours: %s", run.record["device"], search_method(device))
    try:
        with logging_redirect_tqdm(), Drawing(run.folder, options.threads) as drawing:
            for category in categories:
                log.info("%s: %s", category.name, category.describe())
                _evaluate_category(run, models, category, drawing)
            for percentage in next(iter(models.values())).percentages:
                run.curves[percentage] = draw_curves(
                    run.drawn(percentage), run.folder, options.aupro_limit
                )
    except BaseException as error:
        run.finish(f"stopped: {str(error) or type(error).__name__}")
        raise
    run.finish("complete")
    notes = [f"> {note}\n" for note in run.record["notes"]]
    print("\n".join([*notes, *(table.to_markdown() for table in main_tables(run.rows))]))
    if options.profile:
        print(stage_table(run.rows).to_markdown())
    log.info("all tables are in %s", run.folder.path / TABLES_FILE)
    log.info("the report page is %s", run.folder.path / REPORT_FILE)
    return run.rows


@dataclass
class Run:
    """The state of a run: its options, folder and record, and its results so far."""

    options: EvaluateOptions
    folder: ResultFolder
    record: dict[str, object]
    rows: list[ResultRow] = field(default_factory=list)
    measurements: list[Measurement] = field(default_factory=list)
    views: list[ReportView] = field(default_factory=list)
    curves: dict[float, list[tuple[str, str]]] = field(default_factory=dict)

    def drawn(self, percentage: float) -> list[Measurement]:
        """Return the first seed's measurements of a percentage, which its curves show."""
        return [
            m
            for m in self.measurements
            if m.row.percentage_coreset == percentage and m.row.seed == self.options.seed[0]
        ]

    def write_report(self) -> None:
        """Write the report page of the results so far."""
        page = render_page(self.record, self.rows, self.views, self.curves)
        self.folder.write_text(REPORT_FILE, page)

    def finish(self, state: str) -> None:
        """Record how the run ended, also in the report page."""
        self.record |= {"state": state, "end": now()}
        self.folder.write_run(self.record)
        if self.rows:
            self.write_report()


def _start_record(
    options: EvaluateOptions, models: Mapping[str, PatchCore], note: str
) -> dict[str, object]:
    notes = [note] if note else []
    if RANDOM in options.weights:
        notes.append(
            "RANDOM WEIGHTS: these results show that the program runs, and have no other meaning."
        )
    if ignored := describe_ignored(next(iter(models.values()))):
        notes.append(f"{ignored} nor measured.")
    device = next(iter(models.values())).device
    return start_record(options, device) | {
        "notes": notes,
        "weights_digest": {n: m.backbone.weights_digest for n, m in models.items()},
        "patches_per_image": {
            name: model.embedder.patches_per_image for name, model in models.items()
        },
        "memory": {},
    }


def _evaluate_category(
    run: Run, models: Mapping[str, PatchCore], category: Category, drawing: Drawing
) -> None:
    """Evaluate a category, write and log the results, then draw.

    In this order, a crash while drawing loses no result.
    """
    members = [
        evaluate_category(model, name, category, run.options) for name, model in models.items()
    ]
    results = [*members, combine_members(members, run.options)] if len(members) > 1 else members
    run.record["memory"][category.name] = {
        name: member.learned.plan.describe() for name, member in zip(models, members, strict=True)
    }
    run.rows.extend(m.row for result in results for m in result.measurements)
    run.folder.write_rows(run.rows)
    run.folder.write_text(TABLES_FILE, tables_text(run.rows, describe_run(run.record)))
    if run.options.saves_models:
        for name, member in zip(models, members, strict=True):
            save_evaluated(models[name], name, member, run.options)
    for result in results:
        for measurement, prediction in zip(result.measurements, result.predictions, strict=True):
            log.info(log_line(measurement.row))
            if run.options.save_maps:
                _save_maps(measurement.row, prediction, result, run.folder)
    last = results[-1]  # figures show the ensemble, if there is one
    run.measurements.extend(last.measurements)
    run.views.extend(draw_category(last.views(), drawing, run.folder, run.options))
    run.write_report()


def _save_maps(
    row: ResultRow, prediction: Prediction, result: CategoryResult, folder: ResultFolder
) -> None:
    """Write the arrays from which the metrics were computed."""
    samples = result.category.test
    arrays = {
        "scores": prediction.score,
        "labels": np.array([sample.is_defective for sample in samples]),
        "files": np.array([f"{sample.defect_type}/{sample.path.name}" for sample in samples]),
        "anomaly_maps": prediction.anomaly_map,
    }
    if result.masks is not None:
        arrays["masks"] = result.masks
    if result.ignored is not None:
        arrays["ignored"] = result.ignored.pixels
    tag = setting_tag(row.percentage_coreset, row.k)
    model = row.model.replace(":", "-")
    write_arrays(folder, f"maps_{row.category}_{model}_{tag}_seed{row.seed}.npz", arrays)
