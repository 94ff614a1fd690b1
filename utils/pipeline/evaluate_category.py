"""Evaluation of one category: from its files to its metrics, for all settings and seeds."""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from datasets.base import GOOD, Category, Sample
from datasets.regions import read_regions
from datasets.shots import choose_shots
from patchcore import PatchCore, Prediction
from patchcore.engine import Engine
from patchcore.ensemble import combine
from patchcore.fit import FitRequest, FitResult
from patchcore.ignored import Ignored
from patchcore.prediction import Collector
from utils.metrics import (
    CPU,
    Metrics,
    defect_record,
    measure,
    measure_pixels,
    metrics_record,
)
from utils.options.evaluate import ORIGINAL, EvaluateOptions
from utils.pipeline.category_view import CategoryView
from utils.pipeline.fit import fit_category
from utils.pipeline.ground_truth import GroundTruth, OriginalTruth, number_regions, without_pixels
from utils.pipeline.observer import RunObserver
from utils.pipeline.reading import Reading, find_reading
from utils.progress import show_progress
from utils.results import ResultRow
from utils.saturated_overlap import au_spro

ENSEMBLE = "ensemble"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Measurement:
    """The metrics of one category with one model, seed, percentage and number of shots.

    Attributes:
        row: The row of ``results.csv``.
        images: Metrics of the image scores.
        pixels: Metrics of the anomaly maps; all NaN without masks.
    """

    row: ResultRow
    images: Metrics
    pixels: Metrics


@dataclass(frozen=True)
class CategoryResult:
    """One category with all seeds and percentages of one model, for one number of shots.

    Attributes:
        category: Samples of the category; the training images are those of the first seed.
        shots: Number of training images that was asked for; None for all.
        measurements: Measurements by seed, then by ascending percentage.
        predictions: Prediction for all test images of each measurement.
        truth: The ground truth of the test images.
        images: (B, H, W, 3) uint8, the cropped test images; None if no figures are drawn.
        learned: Result of the fit; of the first member for an ensemble.
        reading: How the files were read, and remarks about them.
        ignored: Positions that are not judged; None if all are. Patches are those of the first
            member of an ensemble.
        coresets: How well the coreset of each measurement covers the training patches, by the name
            of model, setting and seed, for ``run.json``.
    """

    category: Category
    shots: int | None
    measurements: tuple[Measurement, ...]
    predictions: tuple[Prediction, ...]
    truth: GroundTruth
    images: np.ndarray | None
    learned: FitResult
    reading: Reading
    ignored: Ignored | None = None
    coresets: Mapping[str, Mapping[str, object]] = field(default_factory=dict)

    @property
    def masks(self) -> np.ndarray | None:
        """The masks of the test images as in `GroundTruth`."""
        return self.truth.masks

    def of_first_seed(self) -> list[tuple[Measurement, Prediction]]:
        """Return the measurement and the prediction of each percentage of the first seed."""
        pairs = zip(self.measurements, self.predictions, strict=True)
        return [(m, p) for m, p in pairs if m.row.seed == self.learned.first.seed]

    def views(self) -> list[CategoryView]:
        """Return the views for figures and report: each percentage of the first seed."""
        coreset = self.learned.first
        return [
            CategoryView(
                measurement.row,
                self.category.test,
                prediction,
                self.images,
                self.masks,
                coreset.origins,
                coreset.patches,
                self.reading.decoding,
                self.ignored,
            )
            for measurement, prediction in self.of_first_seed()
        ]


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
    test = _TestImages(
        model,
        category,
        reading,
        keep_images=options.pictures != "none",
        at_original_size=options.map_size == ORIGINAL,
    )
    predicted = _predict(model, test, [fit for fits in groups for fit in fits], observer)
    truth, images, ignored = test.truth(), test.images(), model.scorer.ignored
    _report_hidden_defects(category, truth.masks, ignored)
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
            images, pixels, defects = _measure(
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


def combine_members(members: Sequence[CategoryResult], options: EvaluateOptions) -> CategoryResult:
    """Evaluate the ensemble of all members, with scores normalised by training patches."""
    first = members[0]
    ignored = _joined_pixels(members)
    measurements, predictions = [], []
    for number, of_first in enumerate(first.measurements):
        start = time.perf_counter()
        row = of_first.row
        part = first.learned.percentages.index(row.percentage_coreset)
        prediction = combine(
            [member.predictions[number] for member in members],
            [member.learned.normal[row.seed][part] for member in members],
        )
        images, pixels, defects = _measure(
            prediction, first.category, first.truth, options, CPU, ignored
        )
        rows = [member.measurements[number].row for member in members]
        stages = dict.fromkeys(stage for one in rows for stage in one.seconds)
        seconds = {s: sum(one.seconds.get(s, 0.0) for one in rows) for s in stages}
        seconds["combine"] = time.perf_counter() - start
        row = replace(
            row,
            metrics=metrics_record(images, pixels),
            seconds=seconds,
            model=ENSEMBLE,
            defects=defects,
        )
        measurements.append(Measurement(row, images, pixels))
        predictions.append(prediction)
    return replace(
        first,
        measurements=tuple(measurements),
        predictions=tuple(predictions),
        ignored=ignored,
    )


def _joined_pixels(members: Sequence[CategoryResult]) -> Ignored | None:
    """Return the pixels that any member ignores, with the patches of the first."""
    first = members[0].ignored
    if first is None:
        return None
    pixels = np.any([member.ignored.pixels for member in members], axis=0)
    return Ignored(pixels, first.patches)


def _report_hidden_defects(
    category: Category, masks: np.ndarray | None, ignored: Ignored | None
) -> None:
    """Log the number of defects that no score can find, since they are ignored entirely."""
    if masks is None or ignored is None:
        return
    is_hidden = masks.any((1, 2)) & ~(masks & ~ignored.pixels).any((1, 2))
    if is_hidden.any():
        log.warning(
            "%s: in %d of %d defective test images the whole defect is ignored (--ignore_mask); "
            "they still count as defective in the metrics of images",
            category.name,
            is_hidden.sum(),
            masks.any((1, 2)).sum(),
        )


class _TestImages:
    """Reads the test images of a category in batches, and keeps masks and images.

    Args:
        model: Crops the images.
        category: Samples of the category.
        reading: Reads the files.
        keep_images: Whether to keep the cropped images, for figures.
        at_original_size: Whether to keep masks at the size of the images, for the metrics.
    """

    def __init__(
        self,
        model: PatchCore,
        category: Category,
        reading: Reading,
        *,
        keep_images: bool,
        at_original_size: bool,
    ):
        self.category = category
        self._model = model
        self._reading = reading
        self._keep_images = keep_images
        self._at_original_size = at_original_size
        self._originals: list[OriginalTruth] = []
        self._masks: list[np.ndarray | None] = []
        self._regions: list[list[tuple[np.ndarray, float]]] = []
        self._images: list[np.ndarray] = []

    def batches(self) -> Iterator[np.ndarray]:
        """Yield the cropped images, (B, *size_crop, 3) uint8 RGB.

        Raises:
            DatasetError: a file cannot be read.
        """
        samples = self.category.test
        for batch in self._reading.batches(self._read, samples, lambda sample: sample.path):
            crops = np.stack([one.crop for one in batch])
            self._masks.extend(one.mask for one in batch)
            self._regions.extend(one.regions for one in batch)
            self._originals.extend(one.original for one in batch if one.original is not None)
            if self._keep_images:
                self._images.append(crops)
            yield crops

    def truth(self) -> GroundTruth:
        """Return the ground truth of the images that were read."""
        if not self.category.has_masks:
            return GroundTruth(None, originals=tuple(self._originals))
        size = self._model.preprocess.size_crop
        masks = [np.zeros(size, bool) if mask is None else mask for mask in self._masks]
        regions = number_regions(self._regions)
        return GroundTruth(np.stack(masks), regions, tuple(self._originals))

    def images(self) -> np.ndarray | None:
        """Return all images (B, H, W, 3) uint8; None if no figures are drawn."""
        return np.concatenate(self._images) if self._images else None

    def _read(self, sample: Sample) -> "_TestImage":
        image, mask = self._reading.sample(sample)
        preprocess, saturations = self._model.preprocess, self.category.saturations
        regions = read_regions(sample, saturations) if saturations else []
        original = None
        if self._at_original_size:
            size = image.shape[:2]
            original = OriginalTruth.of(size, preprocess.crop_box(size), mask, regions)
        return _TestImage(
            self._model.crop(image),
            None if mask is None else preprocess.crop_mask(mask),
            [(preprocess.crop_mask(region), share) for region, share in regions],
            original,
        )


@dataclass(frozen=True)
class _TestImage:
    """A test image, its mask and its regions, cropped, and its truth at the image's own size."""

    crop: np.ndarray
    mask: np.ndarray | None
    regions: list[tuple[np.ndarray, float]]
    original: OriginalTruth | None


def _predict(
    model: PatchCore, test: _TestImages, fits: Sequence[_Fit], observer: RunObserver
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


def _measure(
    prediction: Prediction,
    category: Category,
    truth: GroundTruth,
    options: EvaluateOptions,
    device: torch.device,
    ignored: Ignored | None,
) -> tuple[Metrics, Metrics, dict[str, dict[str, float]]]:
    """Measure images, pixels, and the images of each defect type against the good ones."""
    types = np.array([sample.defect_type for sample in category.test])
    scores = prediction.score
    images = measure(scores, types != GOOD)
    hidden = None if ignored is None else ignored.pixels
    pixels = Metrics()
    if truth.masks is not None:
        known = np.array([sample.has_ground_truth for sample in category.test])
        judged = truth.pixels(prediction.anomaly_map, hidden)
        pixels = measure_pixels(
            _chosen(judged.maps, known),
            _chosen(judged.masks, known),
            options.aupro_limit,
            device,
            judged.hidden if judged.hidden is hidden else _chosen(judged.hidden, known),
        )
        if judged.regions:
            seen = without_pixels(judged)
            area = au_spro(seen.maps, seen.masks, seen.regions, options.spro_limit)
            pixels = replace(pixels, au_spro=area, spro_limit=options.spro_limit)
    defects = {}
    for defect_type in dict.fromkeys(types[types != GOOD].tolist()):
        chosen = (types == GOOD) | (types == defect_type)
        found = measure(scores[chosen], types[chosen] != GOOD)
        num_test = int((types == defect_type).sum())
        defects[defect_type] = {"num_test": num_test} | defect_record(found)
    return images, pixels, defects


def _chosen(arrays: Sequence[np.ndarray], chosen: np.ndarray) -> Sequence[np.ndarray]:
    """Return the chosen ones of a stack or a list of arrays, without a copy if all are."""
    if chosen.all():
        return arrays
    if isinstance(arrays, np.ndarray):
        return arrays[chosen]
    return [array for array, is_chosen in zip(arrays, chosen, strict=True) if is_chosen]
