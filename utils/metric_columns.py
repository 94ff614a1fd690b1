"""Metrics: each one declared once, with its column, its unit and the outputs that show it.

To add a metric, add a field or a property to `utils.metrics.Metrics` and a line to `METRICS`. The
order here is the order in ``results.csv`` and in the tables.
"""

import math
from dataclasses import dataclass
from enum import Flag, auto

from utils.results import SECONDS_TOTAL, ResultRow

DASH = "-"  # in place of a value that was not measured
IMAGE, PIXEL = "image", "pixel"


class Output(Flag):
    """Outputs that show a metric, in addition to ``results.csv``."""

    MAIN_TABLE = auto()  # printed by a run, part of tables.md
    TABLE = auto()  # part of tables.md
    PAGE = auto()  # column of the report page
    TILE = auto()  # large number at the top of the report page
    LOG = auto()  # line that evaluate logs for each category
    DEFECTS = auto()  # measured for each defect type, in results_defects.csv and tables.md


TABLE, MAIN, PAGE, LOG = Output.TABLE, Output.MAIN_TABLE, Output.PAGE, Output.LOG
TILE, DEFECTS, NOWHERE = Output.TILE, Output.DEFECTS, Output(0)


@dataclass(frozen=True)
class Unit:
    """Unit of a metric.

    Attributes:
        symbol: Symbol after a value; empty for counts and scores.
        factor: Factor from a value of ``results.csv`` to this unit.
        digits: Digits after the decimal point.
        is_count: Whether whole numbers are written without a decimal point.
    """

    symbol: str
    factor: float
    digits: int
    is_count: bool = False

    def to_text(self, value: float) -> str:
        """Return a value without the symbol; a dash for NaN."""
        if math.isnan(value):
            return DASH
        digits = 0 if self.is_count and float(value).is_integer() else self.digits
        return f"{value:.{digits}f}"


PERCENT = Unit("%", factor=100, digits=2)
COUNT = Unit("", factor=1, digits=1, is_count=True)
SECONDS = Unit("s", factor=1, digits=1)
SCORE = Unit("", factor=1, digits=4)
UNITS = (PERCENT, COUNT, SECONDS, SCORE)


@dataclass(frozen=True)
class MetricColumn:
    """A metric: its source, its names and the outputs that show it.

    Attributes:
        key: Column of ``results.csv``.
        name: Short name, for outputs that already distinguish images and pixels.
        title: Full name, without the unit.
        unit: Unit of its values.
        items: ``image`` or ``pixel``, the items of its `utils.metrics.Metrics`.
        attribute: Attribute of these `Metrics`; empty for a metric that is not stored.
        outputs: Outputs that show it.
        page_title: Heading in the report page; by default `title`.
        tile_title: Name of its tile in the report page; by default `title`.
        sum_of: Keys of the columns to add, for a metric that is not stored.
        limit: Key of the column with the largest false positive rate of the metric. Values with
            different limits are not comparable and have separate tables.
        paper: Column of ``paper_tables.csv``, without the percentage; empty if the paper has none.
        is_optional: Whether ``results.csv`` has the column only if the metric was measured.
        bar_from: Value at which the bars in the report page begin; they end at 100. None for no
            bars.
    """

    key: str
    name: str
    title: str
    unit: Unit
    items: str = ""
    attribute: str = ""
    outputs: Output = NOWHERE
    page_title: str = ""
    tile_title: str = ""
    sum_of: tuple[str, ...] = ()
    limit: str = ""
    paper: str = ""
    is_optional: bool = False
    bar_from: float | None = None

    def value(self, row: ResultRow) -> float:
        """Return a row's value in this unit; NaN if it was not measured."""
        return self.unit.factor * sum(row.value(key) for key in self.sum_of or (self.key,))


# fmt: off
METRICS = (
    MetricColumn("image_auroc", "AUROC", "Image AUROC", PERCENT, IMAGE, "auroc",
                 MAIN | PAGE | TILE | LOG | DEFECTS, paper="image_auroc", bar_from=50),
    MetricColumn("pixel_auroc", "AUROC", "Pixel AUROC", PERCENT, PIXEL, "auroc",
                 MAIN | PAGE | TILE | LOG, paper="pixel_auroc", bar_from=50),
    MetricColumn("pixel_aupro", "AUPRO", "AUPRO", PERCENT, PIXEL, "aupro",
                 TABLE | PAGE | TILE | LOG, limit="aupro_limit", paper="pro", bar_from=0),
    MetricColumn("aupro_limit", "limit", "AUPRO limit", SCORE, PIXEL, "aupro_limit"),
    MetricColumn("au_spro", "AU-sPRO", "AU-sPRO", PERCENT, PIXEL, "au_spro", TABLE,
                 limit="spro_limit", is_optional=True),
    MetricColumn("spro_limit", "limit", "AU-sPRO limit", SCORE, PIXEL, "spro_limit",
                 is_optional=True),
    MetricColumn(SECONDS_TOTAL, "time", "Processing time", SECONDS, outputs=MAIN | PAGE | TILE,
                 page_title="Seconds", tile_title="Time per category"),
    MetricColumn("image_ap", "AP", "Image AP", PERCENT, IMAGE, "average_precision",
                 TABLE | PAGE | LOG | DEFECTS),
    MetricColumn("image_f1_max", "F1-max", "Image F1-max", PERCENT, IMAGE, "f1_max",
                 TABLE | PAGE | LOG | DEFECTS),
    MetricColumn("image_threshold", "F1-max threshold", "Image F1-max threshold", SCORE, IMAGE,
                 "threshold", LOG),
    MetricColumn("image_errors", "wrong", "Misclassified images at the F1-max threshold", COUNT,
                 IMAGE, "", TABLE | PAGE | LOG, page_title="Wrong",
                 sum_of=("image_false_positives", "image_false_negatives")),
    MetricColumn("image_false_positives", "false positives",
                 "... of which good images taken for defective (false positives)",
                 COUNT, IMAGE, "false_positives", TABLE | LOG),
    MetricColumn("image_false_negatives", "false negatives",
                 "... of which defective images taken for good (false negatives)",
                 COUNT, IMAGE, "false_negatives", TABLE | LOG),
    MetricColumn("pixel_ap", "AP", "Pixel AP", PERCENT, PIXEL, "average_precision",
                 TABLE | PAGE | LOG),
    MetricColumn("pixel_f1_max", "F1-max", "Pixel F1-max", PERCENT, PIXEL, "f1_max", TABLE | LOG),
    MetricColumn("pixel_threshold", "F1-max threshold", "Pixel F1-max threshold", SCORE, PIXEL,
                 "threshold"),
    MetricColumn("pixel_auroc_defective", "AUROC over defective images",
                 "Pixel AUROC over defective images only",
                 PERCENT, PIXEL, "auroc_defective", TABLE),
)
# fmt: on
