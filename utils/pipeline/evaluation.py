"""Evaluation of PatchCore on the categories of a dataset: metrics, tables and figures."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from tqdm.contrib.logging import logging_redirect_tqdm

from datasets.base import Category, DatasetError
from datasets.shots import shuffled_training
from patchcore import PatchCore, Prediction
from patchcore.memory_bank import search_method
from patchcore.weights import RANDOM
from utils.encoding import write_arrays
from utils.errors import describe_end
from utils.files import make_writable
from utils.locks import lock_folder
from utils.machine import start_record
from utils.options.evaluate import EvaluateOptions
from utils.output_names import REPORT_FILE, TABLES_FILE
from utils.pipeline.crop import report_crop
from utils.pipeline.drawing import Drawing
from utils.pipeline.evaluate_category import (
    CategoryResult,
    combine_members,
    evaluate_category,
)
from utils.pipeline.finished import (
    FileState,
    FinishedCategory,
    check_unchanged,
    data_state,
    digest_of_samples,
    files_of,
    states_of,
)
from utils.pipeline.models import (
    choose_device,
    describe_ignored,
    make_models,
    summarise,
    with_layers,
)
from utils.pipeline.pictures import draw_category, draw_curves
from utils.pipeline.reading import log_notes
from utils.pipeline.remarks import log_remarks
from utils.pipeline.run import Run, identity_of, maps_name
from utils.pipeline.saving import save_evaluated
from utils.pipeline.skipping import Skipping
from utils.result_folder import ResultFolder
from utils.results import ResultRow, Setting, shots_text
from utils.tables import log_line, main_tables, notes_text, stage_table

log = logging.getLogger(__name__)


def evaluate(
    options: EvaluateOptions, categories: Sequence[Category], skipping: Skipping, *, note: str = ""
) -> int:
    """Evaluate all categories; write results after each one, curves at the end.

    Args:
        options: Options of the run.
        categories: Categories as `read_categories` returns them.
        skipping: Leaves out what cannot be used.
        note: Remark for the tables and ``run.json``.

    Returns:
        The exit status.

    Raises:
        DatasetError, PatchCoreError, UsageError: User-fixable errors. Results of categories that
            were finished before are kept.
    """
    device = choose_device(options.device)
    folder = ResultFolder(options.path_result)
    models = make_models(options, device, categories)
    options = with_layers(options, models)
    if options.summary:
        print("\n".join(summarise(model) for model in models.values()))
    if options.saves_models:
        make_writable(options.path_trained, "trained models", "--path_trained")
    with lock_folder(folder.path, "--path_result"):
        run = Run(
            options,
            folder,
            _start_record(options, models, categories, note, skipping),
            [category.name for category in categories],
            list(models),
            identity_of(options, models),
        )
        run.take_over(categories)
        run.folder.write_run(run.record)
        log.info("on %s; neighbours: %s", run.record["device"], search_method(device))
        is_own = any(not category.benchmark for category in categories)
        report_crop(next(iter(models.values())).preprocess, "use" if is_own else "")
        try:
            _evaluate_missing(run, models, categories, skipping)
        except BaseException as error:
            run.finish(describe_end(error))
            log.info("%s", run.describe_progress())
            raise
        run.finish("complete")
    tables = [table.to_markdown() for table in main_tables(run.rows)]
    print("\n".join([*notes_text(run.record), *tables]))
    if options.profile:
        print(stage_table(run.rows).to_markdown())
    log.info("all tables are in %s", run.folder.path / TABLES_FILE)
    log.info("the report page is %s", run.folder.path / REPORT_FILE)
    return run.status


def _evaluate_missing(
    run: Run, models: Mapping[str, PatchCore], categories: Sequence[Category], skipping: Skipping
) -> None:
    """Evaluate what earlier runs have not finished, and draw the curves of everything."""
    with logging_redirect_tqdm(), Drawing(run.folder, run.options.threads) as drawing:
        for category in categories:
            missing = run.missing(category)
            if not missing:
                log.info("%s: finished by an earlier run", category.name)
                continue
            log.info("%s: %s", category.name, category.describe())
            log_remarks(category)
            evaluated = _evaluate_category(run, models, category, missing, skipping)
            if evaluated is None:
                continue
            results = _add_results(run, models, evaluated)
            _draw(run, results, drawing)
            drawing.then(partial(run.keep, run.results[category.name]))
        if not run.results:
            raise DatasetError(skipping.describe_none())
        for setting in run.settings_drawn():
            measurements = run.drawn(setting)
            if measurements:
                run.curves[setting] = draw_curves(measurements, run.folder, run.options.aupro_limit)


def _start_record(
    options: EvaluateOptions,
    models: Mapping[str, PatchCore],
    categories: Sequence[Category],
    note: str,
    skipping: Skipping,
) -> dict[str, object]:
    notes = [note] if note else []
    notes += [f"{category.name}: {text}" for category in categories for text in category.notes]
    if RANDOM in options.weights:
        notes.append(
            "RANDOM WEIGHTS: these results show that the program runs, and have no other meaning."
        )
    if ignored := describe_ignored(next(iter(models.values()))):
        notes.append(f"{ignored} nor measured.")
    device = next(iter(models.values())).device
    return start_record(options, device) | {
        "notes": notes,
        "remarks": {category.name: category.remarks() for category in categories},
        "weights_digest": {n: m.backbone.weights_digest for n, m in models.items()},
        "licence": {n: m.backbone.licence for n, m in models.items()},
        "patches_per_image": {
            name: model.embedder.patches_per_image for name, model in models.items()
        },
        "memory": {},
        "shots": {},
        "skipped_images": {},
        "skipped_categories": skipping.categories,
    }


@dataclass(frozen=True)
class _Evaluated:
    """The results of a category that are not written yet.

    Attributes:
        category: The samples that were used.
        options: The options that computed what was missing.
        data: The state of each file that was used.
        skipped: The state of each file that was left out.
        skipped_images: The reasons, by image.
        by_shots: For each number of shots, the results of all models.
    """

    category: Category
    options: EvaluateOptions
    data: dict[str, FileState]
    skipped: dict[str, FileState | None]
    skipped_images: dict[str, str]
    by_shots: list[tuple[CategoryResult, ...]]


def _evaluate_category(
    run: Run,
    models: Mapping[str, PatchCore],
    listed: Category,
    missing: Sequence[tuple[Setting, int]],
    skipping: Skipping,
) -> _Evaluated | None:
    """Evaluate a category; return None if it is left out.

    Args:
        run: The run.
        models: The models by name.
        listed: Samples of the category.
        missing: Settings and seeds to compute.
        skipping: Leaves out what cannot be used.
    """
    options, models = _restrict(run.options, models, missing)
    earlier = run.results.get(listed.name)

    def evaluated(category: Category) -> _Evaluated:
        state = data_state(category)
        by_model = [evaluate_category(m, name, category, options) for name, m in models.items()]
        check_unchanged(category, state)
        left_out = set(map(str, files_of(listed))) - state.keys()
        reasons = skipping.images.get(listed.name, {})
        by_shots = list(zip(*by_model, strict=True))  # each: one result of each model
        return _Evaluated(category, options, state, states_of(left_out), reasons, by_shots)

    # What an earlier run has left out is left out again, so that all rows are of the same images.
    return skipping.compute(listed.without(earlier.skipped if earlier else ()), evaluated)


def _add_results(
    run: Run, models: Mapping[str, PatchCore], evaluated: _Evaluated
) -> list[list[CategoryResult]]:
    """Write and log the results of a category.

    Returns:
        For each number of shots, the results of all models and of their ensemble.
    """
    category, options, by_shots = evaluated.category, evaluated.options, evaluated.by_shots
    # All models read the same files.
    notes = log_notes(by_shots[0][0].reading.notes, category.name)
    results = [_with_ensemble(members, options) for members in by_shots]
    is_first = options.seed[0] == run.options.seed[0]  # figures and models are of the first seed
    skipped = evaluated.skipped_images
    run.add(
        FinishedCategory(
            category.name,
            run.identity,
            digest_of_samples(category),
            evaluated.data,
            rows=tuple(m.row for group in results for one in group for m in one.measurements),
            # Curves and figures show the ensemble, if there is one.
            measurements=tuple(m for group in results for m in group[-1].measurements),
            files=run.files_of(category.name),
            record=_describe_fits(run.options, list(models), category, by_shots)
            | {"file_notes": notes}
            | ({"skipped_images": skipped} if skipped else {}),
            skipped=evaluated.skipped,
        )
    )
    if options.saves_models and is_first:
        for members in by_shots:
            for name, member in zip(models, members, strict=True):
                model = models[name].with_percentages(member.learned.percentages)
                save_evaluated(model, name, member, options)
    for result in (result for group in results for result in group):
        for measurement, prediction in zip(result.measurements, result.predictions, strict=True):
            log.info(log_line(measurement.row))
            if options.save_maps:
                _save_maps(measurement.row, prediction, result, run.folder)
    return results if is_first else []


def _restrict(
    options: EvaluateOptions,
    models: Mapping[str, PatchCore],
    missing: Sequence[tuple[Setting, int]],
) -> tuple[EvaluateOptions, dict[str, PatchCore]]:
    """Return the options and models that compute what is missing, and as little more as possible.

    All combinations of the missing percentages, numbers of shots and seeds are computed.
    """
    percentages = tuple(dict.fromkeys(setting.percentage for setting, _ in missing))
    shots = tuple({setting.shots for setting, _ in missing} - {None})
    seeds = tuple(dict.fromkeys(seed for _, seed in missing))
    options = replace(options, percentage_coreset=percentages, shots=shots, seed=seeds)
    return options, {name: m.with_percentages(percentages) for name, m in models.items()}


def _draw(run: Run, results: Sequence[Sequence[CategoryResult]], drawing: Drawing) -> None:
    """Draw the figures of a category, many in the background, and write the report.

    The results were written before, so that a crash while drawing loses none.
    """
    views = [view for group in results for view in group[-1].views()]
    if not views:
        return
    drawn = draw_category(views, drawing, run.folder, run.options)
    run.add_figures(views[0].row.category, drawn)
    run.write_report()


def _with_ensemble(
    members: Sequence[CategoryResult], options: EvaluateOptions
) -> list[CategoryResult]:
    """Return the results of all members and, if there are several, of their ensemble."""
    return [*members, combine_members(members, options)] if len(members) > 1 else [*members]


def _describe_fits(
    options: EvaluateOptions,
    names: Sequence[str],
    category: Category,
    by_shots: Sequence[Sequence[CategoryResult]],
) -> dict[str, dict[str, object]]:
    """Describe how memory was used and, if a few training images were chosen, which ones."""
    record: dict[str, dict[str, object]] = {
        "memory": {
            name if member.shots is None else f"{name}, {shots_text(member.shots)}": (
                member.learned.plan.describe()
            )
            for members in by_shots
            for name, member in zip(names, members, strict=True)
        }
    }
    if options.shots:
        record["shots"] = {
            str(seed): [
                str(category.train[index].path)
                for index in shuffled_training(category, seed)[: max(options.shots)]
            ]
            for seed in dict.fromkeys(options.seed)
        }
    return record


def _save_maps(
    row: ResultRow, prediction: Prediction, result: CategoryResult, folder: ResultFolder
) -> None:
    """Write the arrays from which the metrics were computed."""
    samples = result.category.test
    arrays = {
        "scores": prediction.score,
        "labels": np.array([sample.is_defective for sample in samples]),
        "files": np.array([f"{s.defect_type}/{s.name}{s.path.suffix}" for s in samples]),
    }
    arrays |= _saved_pixels(prediction.anomaly_map, result)
    if result.masks is not None:
        known = np.array([sample.has_ground_truth for sample in samples])
        if not known.all():
            arrays["has_ground_truth"] = known
    write_arrays(folder, maps_name(row.category, row.model, row.setting, row.k, row.seed), arrays)


def _saved_pixels(maps: np.ndarray, result: CategoryResult) -> dict[str, np.ndarray]:
    """Return maps, masks and ignored pixels: stacks, or an array per image of several sizes."""
    ignored = None if result.ignored is None else result.ignored.pixels
    pixels = result.truth.pixels(maps, ignored)
    named = {"anomaly_maps": pixels.maps}
    if result.masks is not None:
        named["masks"] = pixels.masks
    arrays: dict[str, np.ndarray] = {}
    if pixels.hidden is ignored:
        arrays |= {} if ignored is None else {"ignored": ignored}
    else:
        named["ignored"] = pixels.hidden
    for name, values in named.items():
        if isinstance(values, np.ndarray) or len({value.shape for value in values}) == 1:
            arrays[name] = np.asarray(values)
        else:
            arrays |= {f"{name}_{index:04d}": value for index, value in enumerate(values)}
    return arrays
