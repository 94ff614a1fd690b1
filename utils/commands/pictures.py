"""What a category's results look like: the pictures of a run."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from datasets.base import Sample
from datasets.images import map_ahead
from patchcore import explain
from utils.commands.category import CategoryResult, Measurement
from utils.commands.progress import show_progress
from utils.metrics import Metrics
from utils.options import Options
from utils.plots import (
    draw_localization,
    draw_precision_recall_curves,
    draw_pro_curves,
    draw_roc_curves,
    draw_score_distribution,
)
from utils.results import ResultFolder, per_mille, picture_tag

Curve = tuple[np.ndarray, np.ndarray, float]


def draw_category(result: CategoryResult, folder: ResultFolder, options: Options) -> None:
    """Draw a category's score distributions and, where wanted, its localization pictures.

    Those of the first seed: another one moves a few patches, which no picture shows.
    """
    measurements = [m for m in result.measurements if m.row.seed == options.seed[0]]
    for measurement in measurements:
        _draw_distribution(result, measurement, folder)
    if result.picture_data is None:
        return
    chosen = [
        index
        for index, sample in enumerate(result.category.test)
        if options.pictures == "all" or sample.is_defective
    ]
    total = len(chosen) * len(measurements)
    with show_progress(total, f"{result.category.name}: draw", "picture") as bar:
        for measurement in measurements:
            drawn = map_ahead(
                lambda index, m=measurement: _draw_sample(result, m, index, folder),
                chosen,
                num_workers=options.threads,
                ahead=2 * options.threads,
            )
            for _ in drawn:
                bar.update()


def draw_curves(
    measurements: Sequence[Measurement], folder: ResultFolder, aupro_limit: float
) -> None:
    """Draw ROC, precision-recall and per-region curves of all categories of one percentage.

    Args:
        measurements: One of each category.
        folder: Where to.
        aupro_limit: Where the curves of the per-region overlap end.
    """
    row = measurements[0].row
    title = f"coreset {100 * row.percentage_coreset:g} %, k = {row.k}"
    tag = picture_tag(row.percentage_coreset, row.k)

    images, pixels = _curves(measurements, _roc)
    roc = draw_roc_curves(images, pixels, title=title)
    means = f"rim{per_mille(_mean(images))}_rpm{per_mille(_mean(pixels))}"
    folder.write_picture(f"roc-curve_{tag}_{means}.png", roc)
    folder.write_picture("roc_curve.png", roc)

    images, pixels = _curves(measurements, _precision_recall)
    picture = draw_precision_recall_curves(images, pixels, title=title)
    means = f"aim{per_mille(_mean(images))}_apm{per_mille(_mean(pixels))}"
    folder.write_picture(f"pr-curve_{tag}_{means}.png", picture)

    _, pixels = _curves(measurements, _per_region)
    picture = draw_pro_curves(pixels, fpr_limit=aupro_limit, title=title)
    folder.write_picture(f"pro-curve_{tag}_prm{per_mille(_mean(pixels))}.png", picture)


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
) -> None:
    row, samples = measurement.row, result.category.test
    picture = draw_score_distribution(
        measurement.prediction.score,
        np.array([sample.is_defective for sample in samples]),
        [sample.defect_type for sample in samples],
        title=f"{row.category}, coreset {100 * row.percentage_coreset:g} %, k = {row.k}",
        auroc=row.metrics["image_auroc"],
    )
    tag = picture_tag(row.percentage_coreset, row.k)
    auroc = per_mille(row.metrics["image_auroc"])
    folder.write_picture(f"pred-dist_{row.category}_{tag}_r{auroc}.png", picture)


def _draw_sample(
    result: CategoryResult, measurement: Measurement, index: int, folder: ResultFolder
) -> None:
    sample, prediction, row = result.category.test[index], measurement.prediction, measurement.row
    image = result.picture_data.images[index]
    # (h, w): the nearest coreset patch of each of the image's patches
    nearest = prediction.nearest[index, :, :, 0]
    picture = draw_localization(
        image,
        mask=_mask(result, sample, index),
        anomaly_map=prediction.anomaly_map[index],
        rebuilt=explain.rebuild(result.picture_data.coreset_patches[nearest], image.shape[:2]),
        defect_type=sample.defect_type,
        file_name=sample.path.name,
        score=float(prediction.score[index]),
        score_range=(float(prediction.anomaly_map.min()), float(prediction.anomaly_map.max())),
    )
    share = prediction.score[index] / max(float(prediction.score.max()), np.finfo(np.float32).tiny)
    tag = picture_tag(row.percentage_coreset, row.k)
    name = f"localization_{row.category}_{sample.defect_type}_{sample.path.stem}_{tag}"
    folder.write_picture(f"{name}_s{round(100 * max(share, 0)):03d}.png", picture)


def _mask(result: CategoryResult, sample: Sample, index: int) -> np.ndarray | None:
    if result.masks is not None:
        return result.masks[index]
    # Without ground truth a good image is still known to have nothing to show.
    return None if sample.is_defective else np.zeros(result.picture_data.images.shape[1:3], bool)
