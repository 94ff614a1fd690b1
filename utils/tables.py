"""Result rows -> the tables that people compare, beside the paper's figures."""

import csv
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from utils.results import ResultRow

PAPER_FILE = Path(__file__).with_name("paper_tables.csv")
PAPER_PERCENTAGES = {0.25: "25", 0.1: "10", 0.01: "1"}
DASH = "-"


@dataclass(frozen=True)
class Table:
    """One metric: categories down, settings across.

    Attributes:
        title: What is shown, with its unit.
        columns: Headings of the columns after the first.
        rows: Category and its values in the columns' order; NaN where there is none.
        digits: After the point.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[float, ...]], ...]
    digits: int

    def average(self) -> tuple[float, ...]:
        """Return each column's mean over the categories that every column has a value of.

        So that columns beside each other are means of the same categories; a column without any
        value has no mean and takes none from the others.
        """
        values = [row[1] for row in self.rows]
        present = [not all(math.isnan(v) for v in column) for column in zip(*values, strict=True)]
        whole = [
            row
            for row in values
            if not any(math.isnan(v) for v, p in zip(row, present, strict=True) if p)
        ]
        return tuple(
            sum(row[i] for row in whole) / len(whole) if present[i] and whole else math.nan
            for i in range(len(self.columns))
        )

    def to_markdown(self) -> str:
        """Return the table with its title."""
        lines = [f"### {self.title}", ""]
        lines.append("| category | " + " | ".join(self.columns) + " |")
        lines.append("|:---" + "|---:" * len(self.columns) + "|")
        for name, values in (*self.rows, ("**Average**", self.average())):
            cells = [DASH if math.isnan(v) else f"{v:.{self.digits}f}" for v in values]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        return "\n".join(lines) + "\n"


def read_paper() -> dict[str, dict[str, float]]:
    """Return the paper's figures in %: {category: {``image_auroc_10``: 100.0, ...}}.

    Roth et al. 2022, arXiv 2106.08265, tables S1 to S3: WideResNet50, per category, for coresets
    of 25, 10 and 1 %.
    """
    with PAPER_FILE.open(newline="") as file:
        return {
            row.pop("category"): {name: float(value) for name, value in row.items()}
            for row in csv.DictReader(file)
        }


def make_tables(rows: Sequence[ResultRow]) -> list[Table]:
    """Return image AUROC, pixel AUROC and processing time, for the categories of the rows."""
    paper = read_paper()
    return [
        _metric_table("Image AUROC (%)", "image_auroc", rows, paper),
        _metric_table("Pixel AUROC (%)", "pixel_auroc", rows, paper),
        _make_table("Processing time (s)", rows, lambda row: row.seconds_total, {}, digits=1),
    ]


def _metric_table(
    title: str,
    metric: str,
    rows: Sequence[ResultRow],
    paper: Mapping[str, Mapping[str, float]],
) -> Table:
    return _make_table(
        title,
        rows,
        lambda row: 100 * row.metrics[metric],
        {
            percentage: {
                category: figures[f"{metric}_{name}"] for category, figures in paper.items()
            }
            for percentage, name in PAPER_PERCENTAGES.items()
        },
        digits=2,
    )


def _make_table(
    title: str,
    rows: Sequence[ResultRow],
    value: Callable[[ResultRow], float],
    paper: Mapping[float, Mapping[str, float]],
    digits: int,
) -> Table:
    """Put measured values side by side, each percentage behind the paper's where it has one.

    Args:
        title: The table's.
        rows: What was measured.
        value: What the table shows of a row.
        paper: {percentage: {category: value}}.
        digits: After the point.
    """
    percentages = sorted({row.percentage_coreset for row in rows})
    measured = {(row.category, row.percentage_coreset): value(row) for row in rows}
    columns, sources = [], []
    for percentage in percentages:
        name = f"{100 * percentage:g} %"
        if paper:
            columns.append(f"*Paper* {name}")
            figures = paper.get(percentage, {})
            sources.append(lambda category, figures=figures: figures.get(category, math.nan))
        columns.append(name)
        sources.append(
            lambda category, percentage=percentage: measured.get((category, percentage), math.nan)
        )
    categories = dict.fromkeys(row.category for row in rows)
    body = tuple((name, tuple(source(name) for source in sources)) for name in categories)
    return Table(title, tuple(columns), body, digits)
