"""One category from its files to its metrics, for every percentage at once."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from tqdm import tqdm

from datasets.base import Category, Sample
from datasets.images import in_batches, map_ahead, read_image, read_sample
from patchcore import PatchCore, Prediction, explain
from patchcore.model import join
from utils.metrics import Ranking, rank, rank_pixels, thin_curve
from utils.options import Options
from utils.results import ResultRow
from utils.stopwatch import Stopwatch

Curve = tuple[np.ndarray, np.ndarray, float]


@dataclass(frozen=True)
class PictureData:
    """What pictures need beside the predictions; kept only where pictures are wanted.

    Attributes:
        images: (B, H, W, 3) uint8, the cropped test images.
        coreset_patches: (M, ph, pw, 3) uint8, what each coreset patch looks like.
    """

    images: np.ndarray
    coreset_patches: np.ndarray


@dataclass(frozen=True)
class Measurement:
    """One category with one percentage.

    Attributes:
        row: The numbers.
        prediction: For all test images, in the category's order.
        image_curve: False and true positive rates (thinned) and AUROC over images.
        pixel_curve: The same over pixels; None where nothing was to be measured.
    """

    row: ResultRow
    prediction: Prediction
    image_curve: Curve | None
    pixel_curve: Curve | None


@dataclass(frozen=True)
class CategoryResult:
    """One category with all percentages.

    Attributes:
        category: Its samples.
        measurements: For each percentage, ascending.
        masks: (B, H, W) bool of the test images, cropped; None where a category has none.
        picture_data: None where no pictures are wanted.
    """

    category: Category
    measurements: tuple[Measurement, ...]
    masks: np.ndarray | None
    picture_data: PictureData | None


def measure_category(model: PatchCore, category: Category, options: Options) -> CategoryResult:
    """Fit the model on a category's training images, judge its test images, and measure.

    Raises:
        DatasetError: a file cannot be read.
        PatchCoreError: the category is too small for what was asked.
    """
    keep_images = options.pictures != "none"
    synchronise = torch.cuda.synchronize if model.device.type == "cuda" else lambda: None
    shared = Stopwatch(synchronise)
    own = [Stopwatch(synchronise) for _ in model.percentages]

    train_images = _fit(model, category, options, shared, own, keep_images=keep_images)
    patches = None
    if train_images is not None:
        places = explain.locate(model.coreset, model.grid)
        patches = explain.cut_patches(np.concatenate(train_images), places, model.grid)
        del train_images
    predictions, masks, test_images = _predict(
        model, category, options, shared, own, keep_images=keep_images
    )
    labels = np.array([sample.is_defective for sample in category.test])
    measurements = []
    for percentage, prediction, watch in zip(model.percentages, predictions, own, strict=True):
        with watch.stage("metrics"):
            image_ranking = rank(prediction.score, labels)
            pixel_ranking = None if masks is None else rank_pixels(prediction.anomaly_map, masks)
            metrics = {
                "image_auroc": image_ranking.auroc(),
                "pixel_auroc": math.nan if pixel_ranking is None else pixel_ranking.auroc(),
            }
        row = ResultRow(
            category=category.name,
            percentage_coreset=percentage,
            k=model.k,
            seed=model.seed,
            num_train=len(category.train),
            num_test=len(category.test),
            metrics=metrics,
            seconds=shared.seconds | watch.seconds,
        )
        measurements.append(Measurement(row, prediction, _roc(image_ranking), _roc(pixel_ranking)))
    picture_data = None if patches is None else PictureData(np.concatenate(test_images), patches)
    return CategoryResult(category, tuple(measurements), masks, picture_data)


def show_progress(total: int, text: str, unit: str) -> tqdm:
    """Return a progress bar that a terminal shows and a file does not."""
    return tqdm(total=total, desc=text, unit=unit, disable=None, leave=False, dynamic_ncols=True)


def _fit(
    model: PatchCore,
    category: Category,
    options: Options,
    shared: Stopwatch,
    own: list[Stopwatch],
    *,
    keep_images: bool,
) -> list[np.ndarray] | None:
    """Make the memory bank; return the cropped training images where they are to be kept."""
    kept: list[np.ndarray] | None = [] if keep_images else None

    def batches() -> Iterator[np.ndarray]:
        crops = _read(lambda sample: model.crop(read_image(sample.path)), category.train, options)
        for batch in shared.iterate("read", in_batches(crops, options.batch_size)):
            images = np.stack(batch)
            if kept is not None:
                kept.append(images)
            bar.update(len(images))
            yield images

    with (
        show_progress(len(category.train), f"{category.name}: embed", "image") as bar,
        shared.stage("embed"),
    ):
        embeddings = model.embed_all(batches(), len(category.train))
    sizes = model.sizes_of_coresets(len(embeddings))
    start = shared.now()
    with show_progress(sizes[-1], f"{category.name}: select", "patch") as bar:

        def on_progress(done: int) -> None:
            bar.update(done - bar.n)
            # The time of each percentage is that when its own part of the coreset was complete.
            for size, watch in zip(sizes, own, strict=True):
                if done >= size and "select" not in watch.seconds:
                    watch.add("select", shared.now() - start)

        model.select(embeddings, on_progress)
    return kept


def _predict(
    model: PatchCore,
    category: Category,
    options: Options,
    shared: Stopwatch,
    own: list[Stopwatch],
    *,
    keep_images: bool,
) -> tuple[list[Prediction], np.ndarray | None, list[np.ndarray]]:
    """Judge the test images; return predictions per percentage, masks, and images if kept."""

    def read(sample: Sample) -> tuple[np.ndarray, np.ndarray | None]:
        image, mask = read_sample(sample)
        return model.crop(image), None if mask is None else model.preprocess.crop_mask(mask)

    parts: list[list[Prediction]] = [[] for _ in own]
    masks: list[np.ndarray | None] = []
    images: list[np.ndarray] = []
    batches = in_batches(_read(read, category.test, options), options.batch_size)
    with show_progress(len(category.test), f"{category.name}: score", "image") as bar:
        for batch in shared.iterate("read", batches):
            crops = np.stack([crop for crop, _ in batch])
            masks.extend(mask for _, mask in batch)
            if keep_images:
                images.append(crops)
            with shared.stage("embed"):
                embeddings = model.embed(crops)
            start = shared.now()
            for index, found in enumerate(model.nearest(embeddings)):
                # What a larger percentage needs includes what the smaller ones needed.
                lap = shared.now() - start
                own[index].add("search", lap)
                with own[index].stage("score"):
                    parts[index].append(model.score(*found))
                start = shared.now() - lap
            bar.update(len(batch))
    has_masks = category.has_masks and all(mask is not None for mask in masks)
    return [join(part) for part in parts], np.stack(masks) if has_masks else None, images


def _read(function: Callable, samples: tuple[Sample, ...], options: Options) -> Iterator:
    workers = options.num_workers
    ahead = 2 * options.batch_size + workers
    return map_ahead(function, samples, num_workers=workers, ahead=ahead)


def _roc(ranking: Ranking | None) -> Curve | None:
    if ranking is None or not ranking.has_both_classes:
        return None
    return *thin_curve(*ranking.roc_curve()), ranking.auroc()
