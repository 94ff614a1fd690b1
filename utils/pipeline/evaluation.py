"""Evaluation of PatchCore on the categories of a dataset: metrics, tables and figures."""

import gc
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import cache, partial

from datasets.base import Category, DatasetError
from patchcore import PatchCore
from patchcore.engine import Engine
from patchcore.memory_bank import search_method
from utils.errors import UsageError, describe_end
from utils.files import make_writable
from utils.locks import lock_folder
from utils.logs import RunLog
from utils.machine import log_start
from utils.options.engine import LOCAL
from utils.options.evaluate import EvaluateOptions
from utils.output_names import REPORT_FILE, RESULTS_FILE, TABLES_FILE
from utils.pipeline.category_result import CategoryResult
from utils.pipeline.cluster import fit_engine
from utils.pipeline.crop import report_crop
from utils.pipeline.drawing import Drawing
from utils.pipeline.evaluate_one import Evaluated, evaluate_one
from utils.pipeline.evaluation_record import describe_fits, start_evaluation
from utils.pipeline.finished import FinishedCategory
from utils.pipeline.identity import identity_of
from utils.pipeline.models import (
    choose_device,
    first_of,
    make_models,
    print_summaries,
    with_layers,
)
from utils.pipeline.pictures import draw_category, draw_curves
from utils.pipeline.reading import log_notes
from utils.pipeline.remarks import log_remarks
from utils.pipeline.run import Run
from utils.pipeline.saved_maps import save_maps
from utils.pipeline.saving import save_evaluated
from utils.pipeline.skipping import Skipping
from utils.pipeline.sweep import Failure, describe_failures, sweep
from utils.pipeline.wanted import describe_results, own_rows
from utils.result_folder import ResultFolder
from utils.results import ResultRow, Setting, results_digest
from utils.run_texts import log_line, notes_text, seconds_line
from utils.tables import main_tables, stage_table

log = logging.getLogger(__name__)


def evaluate(
    options: EvaluateOptions, categories: Sequence[Category], skipping: Skipping, *, note: str = ""
) -> list[ResultRow]:
    """Evaluate all categories; write results after each one, curves at the end.

    Args:
        options: Options of the run.
        categories: Categories as `read_categories` returns them.
        skipping: Skips what cannot be used, and lists it for the tables.
        note: Remark for the tables and ``run.json``.

    Returns:
        One row per category, model, number of shots, seed and percentage.

    Raises:
        DatasetError, PatchCoreError, UsageError: User-fixable errors. Results of categories that
            were finished before are kept.
    """
    # The nodes of Ray have the devices; the models here only describe the run.
    device = choose_device("cpu" if options.sweeps else options.device)
    folder = ResultFolder(options.path_result)
    with folder.removed_on_error():
        models = make_models(options, device, categories)
        if options.saves_models:
            make_writable(options.path_trained, "trained models", "--path_trained")
    options = with_layers(options, models)
    if options.summary:
        print_summaries(models)
    with lock_folder(folder.path, "--path_result"), RunLog(folder.path) as run_log:
        run = Run(
            options,
            folder,
            start_evaluation(options, models, categories, note, skipping),
            [category.name for category in categories],
            list(models),
            identity_of(options, models),
        )
        run.take_over(categories)
        run_log.begin()
        run.folder.write_run(run.record)
        log_start(run.record)
        if not options.sweeps:
            log.debug("on %s; neighbours: %s", run.record["device"], search_method(device))
        is_own = any(not category.benchmark for category in categories)
        report_crop(first_of(models).preprocess, "use" if is_own else "")
        try:
            _evaluate_missing(run, models, categories, skipping)
        except BaseException as error:
            run.finish(describe_end(error))
            log.info("%s", run.describe_progress(is_fault=isinstance(error, Exception)))
            raise
        run.record["results_digest"] = results_digest(own_rows(run.rows, options, run.names))
        run.record["rows_digest"] = results_digest(run.rows)  # also those of earlier commands
        run.finish("complete")
        _report(run)
    return run.rows


def _report(run: Run) -> None:
    """Print the main tables, and log where the results are."""
    tables = [table.to_markdown() for table in main_tables(run.rows)]
    print("\n".join([*notes_text(run.record), *tables]))
    if run.options.profile:
        print(stage_table(run.rows).to_markdown())
    log.info("all tables are in %s", run.folder.path / TABLES_FILE)
    log.info("the report page is %s", run.folder.path / REPORT_FILE)


@cache
def _freeze_imports() -> None:
    """Exclude what the imports made from garbage collections, which then take 0.2 s less."""
    gc.freeze()


def _evaluate_missing(
    run: Run, models: Mapping[str, PatchCore], categories: Sequence[Category], skipping: Skipping
) -> None:
    """Evaluate what earlier runs have not finished, and draw the curves of everything."""
    failed = []
    _freeze_imports()
    with (
        Drawing(run.folder, run.options.threads) as drawing,
        closing(_evaluate_each(run, models, categories, skipping)) as found,
    ):
        for evaluated in found:
            if isinstance(evaluated, Failure):
                if run.options.skips:
                    skipping.leave_out(evaluated.category, evaluated.error)
                else:
                    failed.append(evaluated)
                continue
            results = _add_results(run, models, evaluated)
            run.keep(run.results[evaluated.category.name])
            _draw(run, results, drawing)
            drawing.then(partial(run.keep, run.results[evaluated.category.name]))
            gc.collect()  # figures refer to themselves and would keep 4 MB for each category
        for setting in run.settings_drawn():
            measurements = run.drawn(setting)
            if measurements:
                run.curves[setting] = draw_curves(measurements, run.folder, run.options.aupro_limit)
    if failed:
        raise UsageError(describe_failures(failed, len(categories)))
    if not any(name in run.results for name in run.names):
        raise DatasetError(skipping.describe_none())


def _evaluate_each(
    run: Run, models: Mapping[str, PatchCore], categories: Sequence[Category], skipping: Skipping
) -> Iterator[Evaluated | Failure]:
    """Evaluate what is missing: one category after another, or all as tasks of Ray."""
    tasks = _missing_tasks(run, categories)
    if run.options.engine == LOCAL:
        yield from _evaluate_in_turn(models, tasks, skipping)
        return
    tasks = list(tasks)
    if run.options.sweeps:
        yield from sweep(run, models, tasks)
        return
    missing = [category for category, _ in tasks]
    with fit_engine(run.options, missing, first_of(models).device.type, run.record) as engine:
        run.folder.write_run(run.record)
        yield from _evaluate_in_turn(models, tasks, skipping, engine)


def _evaluate_in_turn(
    models: Mapping[str, PatchCore],
    tasks: Iterable[tuple[Category, EvaluateOptions]],
    skipping: Skipping,
    engine: Engine | None = None,
) -> Iterator[Evaluated]:
    """Evaluate one category after another."""
    for category, options in tasks:
        evaluated = skipping.attempt(
            category.name, partial(evaluate_one, models, category, options, engine)
        )
        if evaluated is not None:
            yield evaluated


def _missing_tasks(
    run: Run, categories: Sequence[Category]
) -> Iterator[tuple[Category, EvaluateOptions]]:
    """Yield the categories that earlier runs have not finished, with the options to compute."""
    for category in categories:
        found = run.results.get(category.name)
        missing = run.wanted.missing(found)
        if not missing:
            log.info("%s: finished by an earlier run", category.name)
            continue
        if reason := run.wanted.missing_output(found):
            log.info("%s: finished by an earlier run, computed again: %s", category.name, reason)
        log.info("%s: %s", category.name, category.describe())
        log.debug("%s: to compute: %s", category.name, describe_results(missing))
        log_remarks(category)
        # Images that an earlier run skipped are skipped again: all rows are of the same images.
        known = () if found is None else found.skipped
        yield category.without(known), _restrict(run.options, missing)


def _add_results(
    run: Run, models: Mapping[str, PatchCore], evaluated: Evaluated
) -> Sequence[Sequence[CategoryResult]]:
    """Write and log the results of a category.

    Returns:
        The results to draw: all, or none if they belong to other seeds.
    """
    category, options, results = evaluated.category, evaluated.options, evaluated.results
    # All models read the same files.
    notes = log_notes(results[0][0].reading.notes, category.name)
    is_first = options.seed[0] == run.options.seed[0]  # figures and models are of the first seed
    run.add(
        FinishedCategory(
            category.name,
            run.identity,
            evaluated.samples,
            evaluated.data,
            rows=tuple(m.row for group in results for one in group for m in one.measurements),
            # Curves and figures show the ensemble, if there is one.
            measurements=tuple(m for group in results for m in group[-1].measurements),
            record=describe_fits(run.options, list(models), category, results)
            | {"file_notes": notes, "notes": run.notes_of(category.name)}
            | ({"skipped_images": evaluated.skipped_images} if evaluated.skipped_images else {}),
            skipped=evaluated.skipped,
        )
    )
    if options.saves_models and is_first:
        for group in results:
            for (name, model), member in zip(models.items(), group, strict=False):
                save_evaluated(model, name, member, options)
    num_rows = sum(len(one.measurements) for group in results for one in group)
    is_brief = options.sweeps and num_rows > 1  # a line for a category
    for result in (result for group in results for result in group):
        for measurement, prediction in zip(result.measurements, result.predictions, strict=True):
            if not is_brief:
                log.info(log_line(measurement.row))
            log.debug("%s", seconds_line(measurement.row))
            if options.save_maps:
                save_maps(measurement.row, prediction, result, run.folder)
    if is_brief:
        last = results[-1][-1].measurements[-1].row
        log.info("%s (one of %d rows in %s)", log_line(last), num_rows, RESULTS_FILE)
    run.add_files(category.name)
    return results if is_first else []


def _restrict(options: EvaluateOptions, missing: Sequence[tuple[Setting, int]]) -> EvaluateOptions:
    """Return the options that compute what is missing, and as little more as possible.

    All combinations of the missing percentages, numbers of shots and seeds are computed.
    """
    percentages = tuple(dict.fromkeys(setting.percentage for setting, _ in missing))
    shots = tuple({setting.shots for setting, _ in missing} - {None})
    seeds = tuple(dict.fromkeys(seed for _, seed in missing))
    return replace(options, percentage_coreset=percentages, shots=shots, seed=seeds)


def _draw(run: Run, results: Sequence[Sequence[CategoryResult]], drawing: Drawing) -> None:
    """Draw the figures of a category, many in the background, and write the report.

    The results were written and kept before, so that a crash while drawing loses none.
    """
    views = [view for group in results for view in group[-1].views()]
    if not views:
        return
    name = views[0].row.category
    taken = run.thumbnails_of_others(name)
    run.add_figures(name, draw_category(views, drawing, run.folder, run.options, taken))
    run.write_report()
