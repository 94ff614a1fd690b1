"""The figures of a run: score distributions, curves and, by `Drawing`, those of the test images."""

import glob
import logging
from collections.abc import Callable, Mapping, Sequence, Set
from pathlib import Path

import numpy as np

from utils.encoding import write_image
from utils.metrics import Metrics
from utils.options.evaluate import EvaluateOptions
from utils.output_names import per_mille, setting_tag
from utils.pipeline.category_result import Measurement
from utils.pipeline.category_view import CategoryView
from utils.pipeline.drawing import Drawing
from utils.pipeline.image_figures import describe_images, make_figures
from utils.plots import (
    draw_precision_recall_curves,
    draw_pro_curves,
    draw_roc_curves,
    draw_score_distribution,
)
from utils.report import ReportImage, ReportView
from utils.result_folder import ResultFolder
from utils.results import ResultRow
from utils.tables import mean_of_known

CURVES = ("ROC curves", "Precision-recall curves", "Per-region overlap curves")

Curve = tuple[np.ndarray, np.ndarray, float]

log = logging.getLogger(__name__)


def draw_category(
    views: Sequence[CategoryView],
    drawing: Drawing,
    folder: ResultFolder,
    options: EvaluateOptions,
    taken: Set[str] = frozenset(),
) -> list[ReportView]:
    """Draw a category's score distributions and, if its views have images, its test images.

    Args:
        views: The results of the category, one view for each percentage and number of shots of
            the first seed. Figures of other seeds would differ by few patches.
        drawing: Draws the test images, many of them in the background.
        folder: The folder of the figures.
        options: The options of the run.
        taken: Thumbnails of other categories.

    Returns:
        The report's data of each view.

    Raises:
        UsageError: a file cannot be written.
    """
    drawing.wait()  # at most one category is drawn in the background
    reports = []
    for view in views:
        distribution = _draw_distribution(view, folder)
        described = describe_images(view, options, taken)
        if view.images is not None:
            _remove_earlier(view.row, described, folder)
            figures = make_figures(view, described, options)
            drawing.draw(figures, len(described), view.row.category)
        height, width = options.settings().size_crop
        reports.append(
            ReportView(
                category=view.row.category,
                setting=view.row.setting,
                threshold=view.row.metrics["image_threshold"],
                images=described,
                aspect=width / height,
                distribution=distribution,
            )
        )
    return reports


def _remove_earlier(row: ResultRow, described: Sequence[ReportImage], folder: ResultFolder) -> None:
    """Remove large figures of these images that show another seed, or that this run does not draw.

    Their scores and colours may differ from those of the figures that are drawn now.
    """
    drawn = {name for image in described for name in (image.localization, image.explanation)}
    names = {Path(image.thumbnail).stem for image in described}
    tag = setting_tag(row.percentage_coreset, row.k, row.shots)
    earlier = []
    for path in folder.path.glob(f"*_{tag}*"):
        kind, _, name = path.stem.partition("_")
        if kind == "localization":
            name = name.rpartition("_s")[0]
        elif kind != "explanation":
            continue
        if name in names and path.with_suffix(".png").name not in drawn:
            earlier.append(path)
    for path in earlier:
        path.unlink(missing_ok=True)
    if earlier:
        where = f"{row.category}, coreset {row.setting}"
        log.info("%s: files of earlier figures that are removed: %d", where, len(earlier))


def draw_curves(
    measurements: Sequence[Measurement], folder: ResultFolder, aupro_limit: float
) -> list[tuple[str, str]]:
    """Draw the ROC, precision-recall and per-region overlap curves of one setting.

    Args:
        measurements: One of each category.
        folder: The folder of the figures.
        aupro_limit: The false positive rate at which the per-region overlap curves end.

    Returns:
        Title and file name of each figure.

    Raises:
        UsageError: a file cannot be written.
    """
    row = measurements[0].row
    title, tag = _title(row), setting_tag(row.percentage_coreset, row.k, row.shots)

    images, pixels = _curves(measurements, _roc)
    roc = draw_roc_curves(images, pixels, title=title)
    means = f"{per_mille(_mean(images))}_rpm{per_mille(_mean(pixels))}"
    paths = [_replace(folder, f"roc-curve_{tag}_rim", means, roc)]
    write_image(folder, "roc_curve.png", roc)

    images, pixels = _curves(measurements, _precision_recall)
    figure = draw_precision_recall_curves(images, pixels, title=title)
    means = f"{per_mille(_mean(images))}_apm{per_mille(_mean(pixels))}"
    paths.append(_replace(folder, f"pr-curve_{tag}_aim", means, figure))

    _, pixels = _curves(measurements, _per_region)
    figure = draw_pro_curves(pixels, fpr_limit=aupro_limit, title=title)
    means = per_mille(_mean(pixels))
    paths.append(_replace(folder, f"pro-curve_{tag}_prm", means, figure))
    return [(curve, path.name) for curve, path in zip(CURVES, paths, strict=True)]


def _replace(folder: ResultFolder, start: str, values: str, figure: np.ndarray) -> Path:
    """Write a figure; remove those of fewer categories or of another seed, which have other values.

    Args:
        folder: The folder of the figures.
        start: Start of the file name, which tells the setting.
        values: The rest of the name: the values that the figure shows.
        figure: (H, W, 3) uint8.

    Returns:
        The file.
    """
    written = write_image(folder, f"{start}{values}.png", figure)
    for path in folder.path.glob(f"{glob.escape(start)}*.png"):
        if path != written:
            path.unlink()
    return written


def _roc(metrics: Metrics) -> Curve:
    curve = metrics.curve
    return curve.false_positive_rate, curve.true_positive_rate, metrics.auroc


def _precision_recall(metrics: Metrics) -> Curve:
    # Without the first point, where no item is found and precision is 1 by convention.
    curve = metrics.curve
    return curve.true_positive_rate[1:], curve.precision[1:], metrics.average_precision


def _per_region(metrics: Metrics) -> Curve:
    curve = metrics.curve
    return curve.false_positive_rate, curve.region_overlap, metrics.aupro


def _curves(
    measurements: Sequence[Measurement], make: Callable[[Metrics], Curve]
) -> tuple[dict[str, Curve], dict[str, Curve]]:
    """Return the curves of images and of pixels by category, if the category has any."""
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
    return mean_of_known(area for *_, area in curves.values())


def _title(row: ResultRow) -> str:
    # A run of several seeds draws one of them, and its tables have the means.
    return f"coreset {row.setting}, k = {row.k}, seed {row.seed}"


def _draw_distribution(view: CategoryView, folder: ResultFolder) -> str:
    """Draw the scores of a category's test images; return the file name."""
    row, samples = view.row, view.samples
    figure = draw_score_distribution(
        view.prediction.score,
        np.array([sample.is_defective for sample in samples]),
        [sample.defect_type for sample in samples],
        title=f"{row.category}, {_title(row)}",
        auroc=row.metrics["image_auroc"],
        threshold=view.threshold("image"),
    )
    tag = setting_tag(row.percentage_coreset, row.k, row.shots)
    auroc = per_mille(row.metrics["image_auroc"])
    return _replace(folder, f"pred-dist_{row.category}_{tag}_r", auroc, figure).name
