"""Result rows -> tables of every metric, with the paper's results if it has any."""

import csv
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from utils.metric_columns import METRICS, MetricColumn, Output
from utils.results import NUM_TEST, ResultRow, Setting, csv_text
from utils.table import AVERAGES, Table, TableCell, TableRow, escape_markdown, markdown_table

PAPER_FILE = Path(__file__).with_name("paper_tables.csv")
PAPER_PERCENTAGES = {0.25: "25", 0.1: "10", 0.01: "1"}
# The paper measures AUPRO up to this false positive rate; other limits are not comparable.
PAPER_FPR_LIMIT = 0.3
MAIN_METRICS = tuple(m for m in METRICS if Output.MAIN_TABLE in m.outputs)
README_METRICS = tuple(m for m in METRICS if m in MAIN_METRICS or m.paper)
TABLE_METRICS = tuple(m for m in METRICS if m in MAIN_METRICS or Output.TABLE in m.outputs)


def read_paper() -> dict[str, dict[str, float]]:
    """Return the paper's results in %: {category: {``image_auroc_10``: 100.0, ...}}.

    Roth et al. 2022, arXiv 2106.08265, supplementary tables: WideResNet50, per category, for
    coresets of 25, 10 and 1 %.
    """
    with PAPER_FILE.open(newline="", encoding="utf-8") as file:
        return {
            row.pop("category"): {name: float(value) for name, value in row.items()}
            for row in csv.DictReader(file)
            if row["category"] != "mean"
        }


def main_tables(rows: Sequence[ResultRow]) -> list[Table]:
    """Return the tables that a run prints: image AUROC, pixel AUROC and time, for each model."""
    return _tables(rows, MAIN_METRICS)


def readme_tables(rows: Sequence[ResultRow]) -> list[Table]:
    """Return the main tables and those of the paper's other metrics."""
    return _tables(rows, README_METRICS)


def all_tables(rows: Sequence[ResultRow]) -> list[Table]:
    """Return a table of each metric, for each model."""
    return _tables(rows, TABLE_METRICS)


def stage_table(rows: Sequence[ResultRow]) -> Table:
    """Return the seconds that each stage took, row by row."""
    stages = list(dict.fromkeys(stage for row in rows for stage in row.seconds))
    body = []
    for row in rows:
        seconds = [*(row.seconds.get(stage, 0.0) for stage in stages), row.seconds_total]
        name = f"{row.category}, {row.model}, {row.setting}, seed {row.seed}"
        body.append(TableRow(name, tuple(map(TableCell, seconds))))
    return Table("Seconds by stage", (*stages, "total"), tuple(body), digits=2)


def tables_text(rows: Sequence[ResultRow], origin: str) -> str:
    """Return ``tables.md``.

    Args:
        rows: The results.
        origin: Description of the run, see `describe_run`.
    """
    parts = ["# PatchCore results\n", origin, *(t.to_markdown() for t in all_tables(rows))]
    defects = _defect_table(rows)
    return "\n".join([*parts, defects] if defects else parts)


def records_text(tables: Sequence[Table]) -> str:
    """Return ``tables.csv``, with one value per line."""
    return csv_text(
        [record for table in tables for record in table.to_records()],
        columns=("table", "category", "shots", "column", "value", "deviation"),
    )


def mean_of_known(values: Iterable[float]) -> float:
    """Return the mean of the values that are not NaN; NaN if there are none."""
    known = [value for value in values if not math.isnan(value)]
    return statistics.fmean(known) if known else math.nan


@dataclass(frozen=True)
class _TableContent:
    """Content of a table.

    Attributes:
        metric: The metric.
        limit: The largest false positive rate taken into account; NaN for metrics without one.
    """

    metric: MetricColumn
    limit: float = math.nan

    @property
    def title(self) -> str:
        """Title with the unit."""
        symbol = self.metric.unit.symbol
        title = f"{self.metric.title} ({symbol})" if symbol else self.metric.title
        if math.isnan(self.limit):
            return title
        return f"{title}, up to a false positive rate of {self.limit:g}"

    @property
    def paper(self) -> str:
        """Column of the paper's results, without the percentage; empty if not comparable."""
        comparable = math.isnan(self.limit) or self.limit == PAPER_FPR_LIMIT
        return self.metric.paper if comparable else ""

    def value(self, row: ResultRow) -> float:
        """Return the value of a row; NaN if it was measured with another limit."""
        if math.isnan(self.limit) or row.value(self.metric.limit) == self.limit:
            return self.metric.value(row)
        return math.nan


def _tables(rows: Sequence[ResultRow], metrics: Sequence[MetricColumn]) -> list[Table]:
    """Return a table of each metric, false positive rate limit and model."""
    paper = read_paper()
    models = list(dict.fromkeys(row.model for row in rows))
    tables = []
    for content in (content for metric in metrics for content in _contents(metric, rows)):
        for model in models:
            title = content.title if len(models) == 1 else f"{content.title}: {model}"
            of_model = [row for row in rows if row.model == model]
            tables.append(_table(title, content, of_model, paper))
    return tables


def _contents(metric: MetricColumn, rows: Sequence[ResultRow]) -> list[_TableContent]:
    if not metric.limit:
        return [_TableContent(metric)]
    limits = {row.value(metric.limit) for row in rows}
    known = sorted(limit for limit in limits if not math.isnan(limit))
    return [_TableContent(metric, limit) for limit in known]


@dataclass(frozen=True)
class _Block:
    """The columns of one percentage, for the rows with the same number of shots.

    Each column has the categories, then both averages.

    Attributes:
        papers: The paper's results.
        measured: The measured values.
        differences: Measured value minus the paper's.
        is_compared: Whether the paper has one of the measured categories.
        has_others: Whether there are also measured categories that the paper does not have.
    """

    papers: tuple[TableCell, ...]
    measured: tuple[TableCell, ...]
    differences: tuple[TableCell, ...]
    is_compared: bool
    has_others: bool


def _table(
    title: str,
    content: _TableContent,
    rows: Sequence[ResultRow],
    paper: Mapping[str, Mapping[str, float]],
) -> Table:
    """Return a table with the percentages side by side.

    The paper's result is to the left of each percentage, the difference to its right. Few-shot
    results have rows of their own, and are not compared with the paper's results of all images.
    """
    percentages = sorted({row.percentage_coreset for row in rows})
    settings = sorted({row.setting for row in rows}, key=lambda setting: setting.order)
    groups = list(dict.fromkeys(setting.shots for setting in settings))  # all images last
    blocks: list[list[_Block]] = []  # of each group: one of each percentage
    names: list[list[str]] = []  # of each group
    for shots in groups:
        of_group = [row for row in rows if row.shots == shots]
        categories = list(dict.fromkeys(row.category for row in of_group))
        blocks.append(
            [
                _block(
                    content,
                    [row for row in of_group if row.percentage_coreset == percentage],
                    categories,
                    {} if shots else _paper_results(paper, content.paper, percentage),
                )
                for percentage in percentages
            ]
        )
        # Without other categories both averages are equal: the last row is left out.
        has_others = any(block.has_others for block in blocks[-1])
        names.append([*categories, *(AVERAGES if has_others else AVERAGES[:1])])

    has_paper = bool(content.paper) and None in groups
    compared = [
        any(of_group[n].is_compared for of_group in blocks) for n in range(len(percentages))
    ]
    headings: list[str] = []
    for percentage, is_compared in zip(percentages, compared, strict=True):
        name = f"{100 * percentage:g} %"
        headings += [*([f"*Paper* {name}"] if has_paper else []), name]
        headings += ["difference"] if is_compared else []
    body, notes = [], []
    for shots, of_group, of_rows in zip(groups, blocks, names, strict=True):
        notes += _notes(shots, percentages, of_group, of_rows)
        for n, name in enumerate(of_rows):
            cells: list[TableCell] = []
            for block, is_compared in zip(of_group, compared, strict=True):
                cells += [*([block.papers[n]] if has_paper else []), block.measured[n]]
                cells += [block.differences[n]] if is_compared else []
            body.append(TableRow(name, tuple(cells), shots))
    digits = content.metric.unit.digits
    return Table(title, tuple(headings), tuple(body), digits, tuple(notes))


def _notes(
    shots: int | None, percentages: Sequence[float], blocks: Sequence[_Block], names: Sequence[str]
) -> list[str]:
    """Return a note about each average that is not of all categories."""
    setting = "" if shots is None else f", {shots} shots"
    total = sum(name not in AVERAGES for name in names)
    counts = [sum(cell.is_known for cell in block.measured[:total]) for block in blocks]
    return [
        f"The average at {100 * percentage:g} %{setting} is of {count} of {total} categories."
        for percentage, count in zip(percentages, counts, strict=True)
        if 0 < count < total
    ]


def _block(
    content: _TableContent,
    rows: Sequence[ResultRow],
    categories: Sequence[str],
    published: Mapping[str, float],
) -> _Block:
    """Return the columns of one percentage.

    Args:
        content: Content of the table.
        rows: Results of this percentage.
        categories: The categories of the table's rows.
        published: The paper's results by category.
    """
    by_seed = _by_seed(content, rows)
    known = [c for c in categories if any(c in values for values in by_seed)]
    compared = [c for c in known if c in published]
    measured = [_cell(values[c] for values in by_seed if c in values) for c in categories]
    measured += [_average(by_seed, known), _average(by_seed, compared)]
    mean = TableCell(mean_of_known(published[c] for c in compared))
    papers = [TableCell(published.get(c, math.nan)) for c in categories]
    # The paper's average is only comparable with an average over the same categories.
    papers += [mean if compared == known else TableCell(), mean]
    return _Block(
        tuple(papers),
        tuple(measured),
        tuple(_differences(measured, papers)),
        is_compared=bool(compared),
        has_others=bool(compared) and compared != known,
    )


def _by_seed(content: _TableContent, rows: Sequence[ResultRow]) -> list[dict[str, float]]:
    """Return the measured values of each seed by category."""
    seeds: dict[int, dict[str, float]] = {row.seed: {} for row in rows}
    for row in rows:
        value = content.value(row)
        if not math.isnan(value):
            seeds[row.seed][row.category] = value
    return list(seeds.values())


def _paper_results(
    paper: Mapping[str, Mapping[str, float]], name: str, percentage: float
) -> dict[str, float]:
    """Return the paper's results of one metric and percentage by category; empty if it has none."""
    key = f"{name}_{PAPER_PERCENTAGES.get(percentage)}"
    return {category: results[key] for category, results in paper.items() if key in results}


def _average(measured: Sequence[Mapping[str, float]], categories: Sequence[str]) -> TableCell:
    """Return the mean of the categories' means.

    The standard deviation is over the averages of those seeds that have all categories.
    """
    means = [mean_of_known(v[c] for v in measured if c in v) for c in categories]
    complete = [values for values in measured if all(c in values for c in categories)]
    averages = _cell(mean_of_known(values[c] for c in categories) for values in complete)
    return TableCell(mean_of_known(means), averages.standard_deviation)


def _cell(values: Iterable[float]) -> TableCell:
    """Return the mean and the standard deviation over seeds."""
    known = [value for value in values if not math.isnan(value)]
    spread = statistics.stdev(known) if len(known) > 1 else math.nan
    return TableCell(mean_of_known(known), spread)


def _differences(measured: Sequence[TableCell], papers: Sequence[TableCell]) -> list[TableCell]:
    return [TableCell(m.value - p.value) for m, p in zip(measured, papers, strict=True)]


def _defect_table(rows: Sequence[ResultRow]) -> str:
    """Return a table of the defect types, with means over seeds; empty without defect types."""
    metrics = [m for m in METRICS if Output.DEFECTS in m.outputs]
    columns = ["category", "defect type", "model", "coreset", "images", *(m.name for m in metrics)]
    by_type: dict[tuple[str, str, str, Setting], list[Mapping[str, float]]] = {}
    for row in rows:
        for defect_type, values in row.defects.items():
            key = row.category, defect_type, row.model, row.setting
            by_type.setdefault(key, []).append(values)
    body = [
        [
            *map(escape_markdown, (category, defect_type, model)),
            str(setting),
            f"{seeds[0].get(NUM_TEST, math.nan):g}",
            *(
                _cell(m.unit.factor * one.get(m.key, math.nan) for one in seeds).to_text(
                    m.unit.digits
                )
                for m in metrics
            ),
        ]
        for (category, defect_type, model, setting), seeds in by_type.items()
    ]
    title = "Each defect type against the good images (%)"
    return markdown_table(title, columns, body, num_texts=3) if body else ""
