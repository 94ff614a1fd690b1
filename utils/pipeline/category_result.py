"""Result of the evaluation of one category."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from datasets.base import Category
from patchcore import Prediction
from patchcore.fit import FitResult
from patchcore.ignored import Ignored
from utils.metrics import Metrics
from utils.pipeline.category_view import CategoryView
from utils.pipeline.ground_truth import GroundTruth
from utils.pipeline.reading import Reading
from utils.results import ResultRow


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
