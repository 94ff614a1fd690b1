"""What a category's results look like: the pictures of a run."""

from collections.abc import Sequence

import numpy as np

from datasets.base import Sample
from datasets.images import map_ahead
from patchcore import explain
from utils.commands.category import CategoryResult, Measurement, show_progress
from utils.options import Options
from utils.plots import draw_localization, draw_roc_curves, draw_score_distribution
from utils.results import ResultFolder, per_mille, picture_tag


def draw_category(result: CategoryResult, folder: ResultFolder, options: Options) -> None:
    """Draw a category's score distributions and, where wanted, its localization pictures."""
    samples = result.category.test
    for measurement in result.measurements:
        row = measurement.row
        tag = picture_tag(row.percentage_coreset, row.k)
        auroc = row.metrics["image_auroc"]
        picture = draw_score_distribution(
            measurement.prediction.score,
            np.array([sample.is_defective for sample in samples]),
            [sample.defect_type for sample in samples],
            title=f"{row.category}, coreset {100 * row.percentage_coreset:g} %, k = {row.k}",
            auroc=auroc,
        )
        folder.write_picture(f"pred-dist_{row.category}_{tag}_r{per_mille(auroc)}.png", picture)
    if result.picture_data is None:
        return
    chosen = [
        index
        for index, sample in enumerate(samples)
        if options.pictures == "all" or sample.is_defective
    ]
    total = len(chosen) * len(result.measurements)
    with show_progress(total, f"{result.category.name}: draw", "picture") as bar:
        for measurement in result.measurements:
            drawn = map_ahead(
                lambda index, m=measurement: _draw_sample(result, m, index, folder),
                chosen,
                num_workers=options.num_workers,
                ahead=2 * options.num_workers,
            )
            for _ in drawn:
                bar.update()


def draw_curves(results: Sequence[Measurement], folder: ResultFolder) -> None:
    """Draw the ROC curves of all categories of one percentage, under both names."""
    row = results[0].row
    images = {m.row.category: m.image_curve for m in results if m.image_curve is not None}
    pixels = {m.row.category: m.pixel_curve for m in results if m.pixel_curve is not None}
    picture = draw_roc_curves(
        images, pixels, title=f"coreset {100 * row.percentage_coreset:g} %, k = {row.k}"
    )
    means = (
        per_mille(float(np.mean([auroc for *_, auroc in curves.values()] or [np.nan])))
        for curves in (images, pixels)
    )
    tag = picture_tag(row.percentage_coreset, row.k)
    folder.write_picture("roc-curve_{}_rim{}_rpm{}.png".format(tag, *means), picture)
    folder.write_picture("roc_curve.png", picture)


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
    folder.write_picture(f"{name}_s{round(100 * share):03d}.png", picture)


def _mask(result: CategoryResult, sample: Sample, index: int) -> np.ndarray | None:
    if result.masks is not None:
        return result.masks[index]
    # Without ground truth a good image is still known to have nothing to show.
    return None if sample.is_defective else np.zeros(result.picture_data.images.shape[1:3], bool)
