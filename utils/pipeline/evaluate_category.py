"""Evaluation of one category: from its files to its metrics, for all settings and seeds."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from datasets.base import Category
from datasets.shots import choose_shots
from patchcore import PatchCore, Prediction
from patchcore.engine import Engine
from patchcore.fit import FitRequest, FitResult
from patchcore.prediction import Collector
from utils.metrics import metrics_record
from utils.options.evaluate import ORIGINAL, EvaluateOptions
from utils.pipeline.category_result import CategoryResult, Measurement
from utils.pipeline.evaluation_images import EvaluationImages
from utils.pipeline.fit import fit_category
from utils.pipeline.ground_truth import GroundTruth
from utils.pipeline.measuring import measure_prediction, report_hidden_defects
from utils.pipeline.observer import RunObserver
from utils.pipeline.reading import Reading, find_reading
from utils.progress import show_progress
from utils.results import ResultRow

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Fit:
    """A fit to all training images, or to the few that one seed chooses.

    Attributes:
        category: The category, with the training images of this fit.
        shots: Number of training images that was asked for; None for all.
        learned: Result of the fit, for all seeds or for one.
        observer: Measures the stages of the fit and of the predictions with its coresets.
    """

    category: Category
    shots: int | None
    learned: FitResult
    observer: RunObserver


def evaluate_category(
    model: PatchCore,
    name: str,
    category: Category,
    options: EvaluateOptions,
    engine: Engine | None = None,
) -> list[CategoryResult]:
    """Fit a model to the training images of a category, predict its test images, and measure.

    The test images are embedded once, for all seeds and numbers of shots.

    Args:
        model: The method, with its backbone.
        name: Name of the model in the tables.
        category: Samples of the category.
        options: Options of the run.
        engine: Where training patches are embedded and selected; None for this process.

    Returns:
        The results of each number of shots; a single one without ``--shots``.

    Raises:
        DatasetError: a file cannot be read.
        PatchCoreError: the category is too small for the request, or too large for the memory.
    """
    observer = RunObserver(category.name, model.device)
    # Nested as in the fit, so that the stages keep their order in the tables.
    with observer.stage("embed"), observer.stage("read"):
        reading = find_reading(category, options)
    groups = [
        _fit_shots(model, category, shots, reading, options, engine)
        for shots in options.shot_counts
    ]
    test = EvaluationImages(
        model,
        category,
        reading,
        keep_images=options.pictures != "none",
        at_original_size=options.map_size == ORIGINAL,
    )
    predicted = _predict(model, test, [fit for fits in groups for fit in fits], observer)
    truth, images, ignored = test.truth(), test.images(), model.scorer.ignored
    report_hidden_defects(category, truth.masks, ignored)
    results = []
    for fits in groups:
        found = [
            pair
            for fit in fits
            for pair in _measure_fit(model, name, fit, predicted.pop(0), truth, observer, options)
        ]
        measurements, predictions = zip(*found, strict=True)
        learned = _join_seeds([fit.learned for fit in fits])
        first = fits[0]
        results.append(
            CategoryResult(
                first.category,
                first.shots,
                measurements,
                predictions,
                truth,
                images,
                learned,
                reading,
                ignored,
                dict(_describe_coreset(one.row, learned) for one in measurements),
            )
        )
    return results


def _describe_coreset(row: ResultRow, learned: FitResult) -> tuple[str, dict[str, object]]:
    """Return the name of a coreset, its size and how well it covers the projected patches."""
    part, coreset = learned.percentages.index(row.percentage_coreset), learned.coresets[row.seed]
    coverage = coreset.coverage[part]
    return f"{row.model}, coreset {row.setting}, seed {row.seed}", {
        "size": coreset.sizes[part],
        "covering_radius": coverage.radius,
        "proven_factor": coverage.factor,
    }


def _fit_shots(
    model: PatchCore,
    category: Category,
    shots: int | None,
    reading: Reading,
    options: EvaluateOptions,
    engine: Engine | None,
) -> list[_Fit]:
    """Fit to all training images for all seeds at once, or to the few that each seed chooses."""
    seeds = tuple(dict.fromkeys(options.seed))
    chooses = shots is not None and shots < len(category.train)
    fits = []
    for group in [(seed,) for seed in seeds] if chooses else [seeds]:
        chosen = choose_shots(category, shots, group[0]) if chooses else category
        is_first = group[0] == seeds[0]
        request = fit_request(model, options, group, is_first=is_first)
        observer = RunObserver(category.name, model.device)
        learned = fit_category(model, chosen, request, reading, observer, engine)
        fits.append(_Fit(chosen, shots, learned, observer))
    return fits


def fit_request(
    model: PatchCore, options: EvaluateOptions, seeds: tuple[int, ...], *, is_first: bool = True
) -> FitRequest:
    """Return what an evaluation asks of a fit.

    Args:
        model: The method.
        options: Options of the run.
        seeds: Seeds of the fit.
        is_first: Whether the first seed of the run, of which models and figures are, is one.
    """
    return FitRequest(
        model.percentages,
        seeds,
        held_out=options.needs_held_out_scores and is_first,
        patches=options.needs_patch_images and is_first,
        normal=len(options.backbone) > 1,
        memory_budget=options.memory_budget,
    )


def _join_seeds(results: Sequence[FitResult]) -> FitResult:
    """Join the results of one seed each; the scores of held-out images are the first seed's."""
    small = [r.context for r in results if r.context is not None]
    return replace(
        results[0],
        coresets={seed: coreset for r in results for seed, coreset in r.coresets.items()},
        normal={seed: scores for r in results for seed, scores in r.normal.items()},
        context=_join_seeds(small) if small else None,
    )


def _measure_fit(
    model: PatchCore,
    name: str,
    fit: _Fit,
    collectors: dict[tuple[int, int], Collector],
    truth: GroundTruth,
    observer: RunObserver,
    options: EvaluateOptions,
) -> Iterator[tuple[Measurement, Prediction]]:
    """Measure the predictions of a fit.

    Args:
        model: The method.
        name: Name of the model in the tables.
        fit: The fit.
        collectors: Its predictions, by seed and position of the percentage.
        truth: The ground truth of the test images.
        observer: Measured the stages that all fits share.
        options: Options of the run.

    Yields:
        The measurement and the prediction of each seed and percentage.
    """
    for (seed, part), collector in collectors.items():
        with fit.observer.stage("score", seed, part):  # waits for the device, and copies
            prediction = collector.finish()
        with fit.observer.stage("metrics", seed, part):
            images, pixels, defects = measure_prediction(
                prediction, fit.category, truth, options, model.device, model.scorer.ignored
            )
        seconds = fit.observer.seconds(seed, part)
        for stage, more in observer.seconds(seed, part).items():
            seconds[stage] = seconds.get(stage, 0.0) + more
        row = ResultRow(
            category=fit.category.name,
            percentage_coreset=model.percentages[part],
            k=model.settings.k,
            seed=seed,
            num_train=len(fit.category.train),
            num_test=len(fit.category.test),
            metrics=metrics_record(images, pixels),
            seconds=seconds,
            model=name,
            defects=defects,
            shots=fit.shots,
        )
        yield Measurement(row, images, pixels), prediction


def _predict(
    model: PatchCore, test: EvaluationImages, fits: Sequence[_Fit], observer: RunObserver
) -> list[dict[tuple[int, int], Collector]]:
    """Predict the test images.

    Args:
        model: The method.
        test: The test images.
        fits: Fits to predict with.
        observer: Measures the stages that all fits share.

    Returns:
        The predictions of each fit; the keys are the seed and the position of the percentage.
    """
    parts = range(len(model.percentages))
    predicted = [
        {(seed, part): Collector() for seed in fit.learned.coresets for part in parts}
        for fit in fits
    ]
    total = len(test.category.test)
    with show_progress(total, f"{test.category.name}: score", "image") as bar:
        for crops in observer.read(test.batches()):
            with observer.stage("embed"):
                embeddings = model.embedder.embed(crops)
                small = None if model.context is None else model.context.embed(crops)
            for fit, collectors in zip(fits, predicted, strict=True):
                for seed, coreset in fit.learned.coresets.items():
                    predictions = model.scorer.predict(
                        embeddings, coreset.bank, coreset.sizes, fit.observer, seed
                    )
                    if small is not None:
                        trained = fit.learned.context_of(seed)
                        predictions = model.context.join(
                            predictions, small, trained, fit.observer, seed
                        )
                    for part, prediction in enumerate(predictions):
                        with fit.observer.stage("score", seed, part):
                            collectors[seed, part].add(prediction)
            bar.update(len(crops))
    return predicted
