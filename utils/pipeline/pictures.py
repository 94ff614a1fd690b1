"""What a category's results look like: the pictures of a run."""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from patchcore.preprocess import Preprocess
from utils.metrics import Metrics
from utils.options.evaluate import EvaluateOptions
from utils.pipeline.category_view import make_view
from utils.pipeline.drawing import Drawing
from utils.pipeline.evaluate_category import CategoryResult, Measurement
from utils.pipeline.scene import Scene, SceneArrays, choose_images
from utils.plots import (
    draw_precision_recall_curves,
    draw_pro_curves,
    draw_roc_curves,
    draw_score_distribution,
)
from utils.report import ReportView
from utils.results import ResultFolder, per_mille, picture_tag

CURVES = ("ROC curves", "Precision-recall curves", "Per-region overlap curves")

Curve = tuple[np.ndarray, np.ndarray, float]


def draw_category(
    result: CategoryResult, drawing: Drawing, folder: ResultFolder, options: EvaluateOptions
) -> list[ReportView]:
    """Draw a category's score distributions and, where wanted, its test images.

    Those of the first seed: another one moves a few patches, which no picture shows.

    Args:
        result: What was found.
        drawing: Draws the test images, in the background where they are many.
        folder: Where to.
        options: The run's.

    Returns:
        For each percentage what the report shows of it.
    """
    measurements = [m for m in result.measurements if m.row.seed == options.seed[0]]
    if result.picture_data is not None:
        drawing.wait()  # for the category before
    views = []
    for measurement in measurements:
        distribution = _draw_distribution(result, measurement, folder)
        scene, arrays = make_scene(result, measurement, options), None
        if result.picture_data is not None:
            arrays = _arrays(result, measurement)
            drawing.draw(scene, arrays)
        views.append(make_view(scene, arrays, distribution))
    return views


def make_scene(result: CategoryResult, measurement: Measurement, options: EvaluateOptions) -> Scene:
    """Gather what pictures and report say of one category at one percentage."""
    row, prediction, category = measurement.row, measurement.prediction, result.category
    threshold = row.metrics["image_threshold"]
    data = result.picture_data
    chosen = choose_images(
        category.test, prediction.score, threshold, options.pictures, options.pictures_limit
    )
    maps = prediction.anomaly_map
    return Scene(
        category=row.category,
        tag=picture_tag(row.percentage_coreset, row.k),
        percentage=row.percentage_coreset,
        samples=category.test,
        scores=prediction.score,
        chosen=frozenset(chosen),
        score_range=(
            (0.0, options.score_max)
            if options.score_max
            else (float(maps.min()), float(maps.max()))
        ),
        image_threshold=_known(threshold),
        pixel_threshold=_known(row.metrics["pixel_threshold"]),
        sources=() if data is None else data.sources,
        root=options.path_data,
        preprocess=Preprocess(
            options.size("size_resize"),
            options.size("size_crop"),
            interpolation=options.interpolation,
        ),
        explain_top=options.explain_top,
    )


def _arrays(result: CategoryResult, measurement: Measurement) -> SceneArrays:
    data, prediction = result.picture_data, measurement.prediction
    return SceneArrays(
        images=data.images,
        anomaly_maps=prediction.anomaly_map,
        distance=prediction.distance,
        nearest=prediction.nearest,
        coreset_patches=data.coreset_patches,
        places=np.stack([data.places.images, data.places.rows, data.places.columns], axis=1),
        masks=result.masks,
    )


def _known(threshold: float) -> float | None:
    return None if math.isnan(threshold) else float(threshold)


def draw_curves(
    measurements: Sequence[Measurement], folder: ResultFolder, aupro_limit: float
) -> list[tuple[str, str]]:
    """Draw ROC, precision-recall and per-region curves of all categories of one percentage.

    Args:
        measurements: One of each category.
        folder: Where to.
        aupro_limit: Where the curves of the per-region overlap end.

    Returns:
        Title and file of each picture.
    """
    row = measurements[0].row
    title = f"coreset {100 * row.percentage_coreset:g} %, k = {row.k}"
    tag = picture_tag(row.percentage_coreset, row.k)

    images, pixels = _curves(measurements, _roc)
    roc = draw_roc_curves(images, pixels, title=title)
    means = f"rim{per_mille(_mean(images))}_rpm{per_mille(_mean(pixels))}"
    paths = [folder.write_picture(f"roc-curve_{tag}_{means}.png", roc)]
    folder.write_picture("roc_curve.png", roc)

    images, pixels = _curves(measurements, _precision_recall)
    picture = draw_precision_recall_curves(images, pixels, title=title)
    means = f"aim{per_mille(_mean(images))}_apm{per_mille(_mean(pixels))}"
    paths.append(folder.write_picture(f"pr-curve_{tag}_{means}.png", picture))

    _, pixels = _curves(measurements, _per_region)
    picture = draw_pro_curves(pixels, fpr_limit=aupro_limit, title=title)
    name = f"pro-curve_{tag}_prm{per_mille(_mean(pixels))}.png"
    paths.append(folder.write_picture(name, picture))
    return [(curve, path.name) for curve, path in zip(CURVES, paths, strict=True)]


def _roc(metrics: Metrics) -> Curve:
    curve = metrics.curve
    return curve.false_positive_rate, curve.true_positive_rate, metrics.auroc


def _precision_recall(metrics: Metrics) -> Curve:
    # Without the first point, where nothing is found and the precision is a convention.
    curve = metrics.curve
    return curve.true_positive_rate[1:], curve.precision[1:], metrics.average_precision


def _per_region(metrics: Metrics) -> Curve:
    curve = metrics.curve
    return curve.false_positive_rate, curve.region_overlap, metrics.aupro


def _curves(
    measurements: Sequence[Measurement], make: Callable[[Metrics], Curve]
) -> tuple[dict[str, Curve], dict[str, Curve]]:
    """Return the curves by category, of images and of pixels, where there is something measured."""
    images, pixels = (
        {
            measurement.row.category: make(getattr(measurement, kind))
            for measurement in measurements
            if getattr(measurement, kind).curve is not None
        }
        for kind in ("images", "pixels")
    )
    return images, pixels


def _mean(curves: Mapping[str, Curve]) -> float:
    return float(np.mean([area for *_, area in curves.values()])) if curves else float("nan")


def _draw_distribution(
    result: CategoryResult, measurement: Measurement, folder: ResultFolder
) -> str:
    """Draw the scores of a category's test images; return the picture's name."""
    row, samples = measurement.row, result.category.test
    picture = draw_score_distribution(
        measurement.prediction.score,
        np.array([sample.is_defective for sample in samples]),
        [sample.defect_type for sample in samples],
        title=f"{row.category}, coreset {100 * row.percentage_coreset:g} %, k = {row.k}",
        auroc=row.metrics["image_auroc"],
        threshold=_known(row.metrics["image_threshold"]),
    )
    tag = picture_tag(row.percentage_coreset, row.k)
    auroc = per_mille(row.metrics["image_auroc"])
    return folder.write_picture(f"pred-dist_{row.category}_{tag}_r{auroc}.png", picture).name
