"""One category from its files to its metrics, for every seed and percentage at once."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from datasets.base import GOOD, Category, Sample
from datasets.images import in_batches, map_ahead, read_sample
from patchcore import PatchCore, Prediction, explain
from patchcore.ensemble import NormalScores, combine
from patchcore.explain import PatchPlaces
from patchcore.memory_plan import MemoryPlan
from utils.metrics import CPU, Metrics, measure, measure_pixels
from utils.options import Options
from utils.pipeline.explanations import name_sources
from utils.pipeline.fit import Cell, Learned, learn
from utils.progress import show_progress
from utils.results import ResultRow
from utils.stopwatch import Stopwatch, clock_of

ENSEMBLE = "ensemble"


@dataclass(frozen=True)
class PictureData:
    """What pictures need beside the predictions; kept only where pictures are wanted.

    Attributes:
        images: (B, H, W, 3) uint8, the cropped test images.
        coreset_patches: (M, ph, pw, 3) uint8, what each patch of the first seed's coreset looks
            like.
        places: Where each of these patches lies; its image counts in `sources`.
        sources: Each training image's file and flip, in the order of embedding.
    """

    images: np.ndarray
    coreset_patches: np.ndarray
    places: PatchPlaces
    sources: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Measurement:
    """One category with one seed and one percentage.

    Attributes:
        row: The numbers.
        prediction: For all test images, in the category's order.
        images: What the image scores are worth.
        pixels: What the maps are worth; all NaN without masks.
        normal: How training patches score; None where nothing asks for it.
    """

    row: ResultRow
    prediction: Prediction
    images: Metrics
    pixels: Metrics
    normal: NormalScores | None


@dataclass(frozen=True)
class CategoryResult:
    """One category with all seeds and percentages of one model.

    Attributes:
        category: Its samples.
        measurements: Seed by seed, each with the percentages ascending.
        masks: (B, H, W) bool of the test images, cropped; None where a category has none.
        picture_data: None where no pictures are wanted.
        plan: How the training embeddings were kept.
        learned: What the training images have become; None after a trained model was kept of it.
    """

    category: Category
    measurements: tuple[Measurement, ...]
    masks: np.ndarray | None
    picture_data: PictureData | None
    plan: MemoryPlan
    learned: Learned | None


def measure_category(
    model: PatchCore, name: str, category: Category, options: Options
) -> CategoryResult:
    """Fit a model on a category's training images, judge its test images, and measure.

    Args:
        model: The method, with its backbone.
        name: What the tables call it.
        category: Its samples.
        options: The run's.

    Raises:
        DatasetError: a file cannot be read.
        PatchCoreError: the category is too small for what was asked.
    """
    shared = Stopwatch(clock_of(model.device))
    learned = learn(model, category, options, shared)
    masks, test_images = _predict(model, category, options, shared, learned.cells)
    measurements = []
    for cell in learned.cells:
        with cell.watch.stage("score"):  # what is still under way, and its copy
            prediction = cell.collector.finish()
        with cell.watch.stage("metrics"):
            images, pixels, defects = _measure(
                prediction, category, masks, options.aupro_limit, model.device
            )
        row = ResultRow(
            category=category.name,
            percentage_coreset=cell.percentage,
            k=model.k,
            seed=cell.coreset.seed,
            num_train=len(category.train),
            num_test=len(category.test),
            metrics=_metrics_record(images, pixels, options.aupro_limit),
            seconds=shared.seconds | cell.watch.seconds,
            model=name,
            defects=defects,
        )
        measurements.append(Measurement(row, prediction, images, pixels, cell.normal))
    picture_data = None
    if options.pictures != "none":
        picture_data = PictureData(
            np.concatenate(test_images),
            learned.coreset_patches,
            explain.locate(learned.cells[0].coreset.indices, model.grid),
            name_sources(category.train, learned.origins, model.flip, options.path_data),
        )
    return CategoryResult(category, tuple(measurements), masks, picture_data, learned.plan, learned)


def combine_members(members: Sequence[CategoryResult], options: Options) -> CategoryResult:
    """Judge by all members together: scores normalised by each one's training patches."""
    first = members[0]
    measurements = []
    for same in zip(*(member.measurements for member in members), strict=True):
        start = time.perf_counter()
        prediction = combine([m.prediction for m in same], [m.normal for m in same])
        images, pixels, defects = _measure(
            prediction, first.category, first.masks, options.aupro_limit, CPU
        )
        stages = dict.fromkeys(stage for m in same for stage in m.row.seconds)
        seconds = {s: sum(m.row.seconds.get(s, 0.0) for m in same) for s in stages}
        seconds["combine"] = time.perf_counter() - start
        row = replace(
            same[0].row,
            metrics=_metrics_record(images, pixels, options.aupro_limit),
            seconds=seconds,
            model=ENSEMBLE,
            defects=defects,
        )
        measurements.append(Measurement(row, prediction, images, pixels, None))
    return replace(first, measurements=tuple(measurements))


def _predict(
    model: PatchCore,
    category: Category,
    options: Options,
    shared: Stopwatch,
    cells: Sequence[Cell],
) -> tuple[np.ndarray | None, list[np.ndarray]]:
    """Judge the test images into the cells; return the masks, and the images where kept."""

    def read(sample: Sample) -> tuple[np.ndarray, np.ndarray | None]:
        image, mask = read_sample(sample)
        return model.crop(image), None if mask is None else model.preprocess.crop_mask(mask)

    masks: list[np.ndarray | None] = []
    images: list[np.ndarray] = []
    items = map_ahead(
        read,
        category.test,
        num_workers=options.threads,
        ahead=2 * options.batch_size + options.threads,
    )
    batches = in_batches(items, options.batch_size)
    with show_progress(len(category.test), f"{category.name}: score", "image") as bar:
        for batch in shared.iterate("read", batches):
            crops = np.stack([crop for crop, _ in batch])
            masks.extend(mask for _, mask in batch)
            if options.pictures != "none":
                images.append(crops)
            with shared.stage("embed"):
                embeddings = model.embed(crops)
            for start in range(0, len(cells), len(model.percentages)):
                _score(model, embeddings, cells[start : start + len(model.percentages)])
            bar.update(len(batch))
    has_masks = category.has_masks and all(mask is not None for mask in masks)
    return np.stack(masks) if has_masks else None, images


def _score(model: PatchCore, embeddings: torch.Tensor, cells: Sequence[Cell]) -> None:
    """Score a batch with one seed's coreset, by each percentage of it."""
    coreset = cells[0].coreset
    neighbours = model.nearest(embeddings, coreset)
    searches = []
    for cell in cells:
        start = cell.watch.mark()
        found = next(neighbours)
        searches.append((start, cell.watch.mark()))
        # The search of a larger percentage goes on from that of the smaller ones: it needs both.
        for search in searches:
            cell.watch.add_between("search", *search)
        with cell.watch.stage("score"):
            cell.collector.add(model.score(embeddings, found, coreset))


def _measure(
    prediction: Prediction,
    category: Category,
    masks: np.ndarray | None,
    aupro_limit: float,
    device: torch.device,
) -> tuple[Metrics, Metrics, dict[str, dict[str, float]]]:
    """Measure images, pixels, and the images of each defect type against the good ones."""
    types = np.array([sample.defect_type for sample in category.test])
    scores = prediction.score
    images = measure(scores, types != GOOD)
    pixels = (
        Metrics()
        if masks is None
        else measure_pixels(prediction.anomaly_map, masks, aupro_limit, device)
    )
    defects = {}
    for defect_type in dict.fromkeys(types[types != GOOD].tolist()):
        chosen = (types == GOOD) | (types == defect_type)
        found = measure(scores[chosen], types[chosen] != GOOD)
        defects[defect_type] = {
            "num_test": int((types == defect_type).sum()),
            "image_auroc": found.auroc,
            "image_ap": found.average_precision,
            "image_f1_max": found.f1_max,
        }
    return images, pixels, defects


def _metrics_record(images: Metrics, pixels: Metrics, aupro_limit: float) -> dict[str, float]:
    """Return the metrics by the names of their columns."""
    return {
        "image_auroc": images.auroc,
        "pixel_auroc": pixels.auroc,
        "pixel_aupro": pixels.aupro,
        "aupro_limit": aupro_limit if not math.isnan(pixels.aupro) else math.nan,
        "image_ap": images.average_precision,
        "image_f1_max": images.f1_max,
        "image_threshold": images.threshold,
        "image_false_positives": images.false_positives,
        "image_false_negatives": images.false_negatives,
        "pixel_ap": pixels.average_precision,
        "pixel_f1_max": pixels.f1_max,
        "pixel_threshold": pixels.threshold,
        "pixel_auroc_defective": pixels.auroc_defective,
    }
