"""Result rows -> the tables that people compare, beside the paper's figures."""

import csv
import io
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from utils.results import ResultRow

PAPER_FILE = Path(__file__).with_name("paper_tables.csv")
PAPER_PERCENTAGES = {0.25: "25", 0.1: "10", 0.01: "1"}
# The paper's PRO is measured up to this false positive rate: others are not comparable.
PAPER_FPR_LIMIT = 0.3
DASH = "-"
AVERAGE = "Average"
# Where others were measured too: what may be compared with the paper's.
AVERAGE_COMPARED = "Average of the paper's categories"
AVERAGES = (AVERAGE, AVERAGE_COMPARED)


@dataclass(frozen=True)
class Cell:
    """A value of a table: the mean over seeds, and how they spread.

    Attributes:
        value: The mean; NaN where there is none.
        deviation: The standard deviation (n - 1) over seeds; NaN with one.
    """

    value: float = math.nan
    deviation: float = math.nan

    @property
    def is_known(self) -> bool:
        """Whether there is a value."""
        return not math.isnan(self.value)

    def to_text(self, digits: int, plus_minus: str = "±") -> str:
        """Return the value with so many digits after the point; a dash where there is none."""
        if math.isnan(self.value):
            return DASH
        spread = "" if math.isnan(self.deviation) else f" {plus_minus} {self.deviation:.{digits}f}"
        return f"{self.value:.{digits}f}{spread}"


@dataclass(frozen=True)
class Table:
    """One metric: categories down, settings across, their average last.

    Attributes:
        title: What is shown, with its unit.
        columns: Headings of the columns after the first.
        rows: Category and its cells in the columns' order.
        digits: After the point.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    digits: int

    def to_markdown(self) -> str:
        """Return the table with its title."""
        lines = [f"### {self.title}", "", "| category | " + " | ".join(self.columns) + " |"]
        lines.append("|:---" + "|---:" * len(self.columns) + "|")
        for name, cells in self.rows:
            shown = f"**{name}**" if name in AVERAGES else name
            values = " | ".join(cell.to_text(self.digits) for cell in cells)
            lines.append(f"| {shown} | {values} |")
        return "\n".join(lines) + "\n"

    def to_latex(self) -> str:
        """Return a tabular that needs the package booktabs."""
        lines = [
            f"% {self.title}",
            rf"\begin{{tabular}}{{l{'r' * len(self.columns)}}}",
            r"\toprule",
        ]
        head = ["category", *(column.replace("*", "") for column in self.columns)]
        lines.append(" & ".join(map(_latex, head)) + r" \\")
        lines.append(r"\midrule")
        for name, cells in self.rows:
            if name == AVERAGE:
                lines.append(r"\midrule")
            values = [cell.to_text(self.digits, r"$\pm$") for cell in cells]
            lines.append(" & ".join([_latex(name), *values]) + r" \\")
        return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"

    def to_records(self) -> list[dict[str, str]]:
        """Return a record for each value: table, category, column, value, deviation."""
        return [
            {
                "table": self.title,
                "category": name,
                "column": column.replace("*", ""),
                "value": Cell(cell.value).to_text(self.digits).replace(DASH, "")
                if math.isnan(cell.value)
                else f"{cell.value:.{self.digits}f}",
                "deviation": ""
                if math.isnan(cell.deviation)
                else f"{cell.deviation:.{self.digits}f}",
            }
            for name, cells in self.rows
            for column, cell in zip(self.columns, cells, strict=True)
        ]


@dataclass(frozen=True)
class _Kind:
    """What one table shows of a row: its title, its value, and the paper's name for it."""

    title: str
    value: Callable[[ResultRow], float]
    paper: str | None = None
    digits: int = 2


def _percent(metric: str) -> Callable[[ResultRow], float]:
    return lambda row: 100 * row.metrics.get(metric, math.nan)


def _misclassified(row: ResultRow) -> float:
    counts = (
        row.metrics.get(f"image_false_{kind}", math.nan) for kind in ("positives", "negatives")
    )
    return sum(counts)


MAIN_KINDS = (
    _Kind("Image AUROC (%)", _percent("image_auroc"), "image_auroc"),
    _Kind("Pixel AUROC (%)", _percent("pixel_auroc"), "pixel_auroc"),
    _Kind("Processing time (s)", lambda row: row.seconds_total, digits=1),
)
FURTHER_KINDS = (
    _Kind("Image AP (%)", _percent("image_ap")),
    _Kind("Image F1-max (%)", _percent("image_f1_max")),
    _Kind("Misclassified images at the F1-max threshold", _misclassified, digits=1),
    _Kind(
        "... of which good images taken for defective (false positives)",
        lambda row: row.metrics.get("image_false_positives", math.nan),
        digits=1,
    ),
    _Kind(
        "... of which defective images taken for good (false negatives)",
        lambda row: row.metrics.get("image_false_negatives", math.nan),
        digits=1,
    ),
    _Kind("Pixel AP (%)", _percent("pixel_ap")),
    _Kind("Pixel F1-max (%)", _percent("pixel_f1_max")),
    _Kind("Pixel AUROC over defective images only (%)", _percent("pixel_auroc_defective")),
)


def read_paper() -> dict[str, dict[str, float]]:
    """Return the paper's figures in %: {category: {``image_auroc_10``: 100.0, ...}}.

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
    """Return image AUROC, pixel AUROC and processing time, of each model."""
    return _tables(rows, MAIN_KINDS)


def all_tables(rows: Sequence[ResultRow]) -> list[Table]:
    """Return a table of each metric, of each model: the paper's measures first."""
    limits = {row.metrics.get("aupro_limit", math.nan) for row in rows}
    region_kinds = [
        _Kind(
            f"AUPRO (%), up to a false positive rate of {limit:g}",
            lambda row, limit=limit: (
                100 * row.metrics["pixel_aupro"]
                if row.metrics.get("aupro_limit") == limit
                else math.nan
            ),
            "pro" if limit == PAPER_FPR_LIMIT else None,
        )
        for limit in sorted(limit for limit in limits if not math.isnan(limit))
    ]
    *auroc_kinds, time_kind = MAIN_KINDS
    return _tables(rows, (*auroc_kinds, *region_kinds, time_kind, *FURTHER_KINDS))


def stage_table(rows: Sequence[ResultRow]) -> Table:
    """Return the seconds of each stage, for each row: where the time goes."""
    stages = list(dict.fromkeys(stage for row in rows for stage in row.seconds))
    body = [
        (
            f"{row.category}, {row.model}, {100 * row.percentage_coreset:g} %, seed {row.seed}",
            tuple(Cell(s) for s in (*(row.seconds.get(n, 0.0) for n in stages), row.seconds_total)),
        )
        for row in rows
    ]
    return Table("Seconds by stage", (*stages, "total"), tuple(body), 2)


def tables_text(rows: Sequence[ResultRow], origin: str) -> str:
    """Return ``tables.md``: where the results come from, every table, and each defect type's.

    Args:
        rows: What was measured.
        origin: What was run, on what.
    """
    parts = ["# PatchCore results\n", origin, *(t.to_markdown() for t in all_tables(rows))]
    defects = _defect_table(rows)
    return "\n".join([*parts, defects] if defects else parts)


def records_text(tables: Sequence[Table]) -> str:
    """Return tables as CSV, one value a line."""
    text = io.StringIO()
    columns = ["table", "category", "column", "value", "deviation"]
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(record for table in tables for record in table.to_records())
    return text.getvalue()


def describe_run(record: Mapping[str, object]) -> str:
    """Return what ``run.json`` says of the origin of results, as Markdown."""
    options = record["options"]
    layers = ", ".join(" ".join(group) for group in options["layers"])
    lines = [f"> {note}\n" for note in record["notes"]]
    lines.append(f"    {record['command']}\n")
    lines.append(
        f"Backbone {', '.join(options['backbone'])}; weights {', '.join(options['weights'])}; "
        f"layers {layers}; k = {options['k']}; seed {' '.join(map(str, options['seed']))}; "
        f"protocol {options['protocol']}; on {record['device']} ({record['cpu']}); "
        f"{record['start']}. *Paper*: Roth et al. 2022, arXiv 2106.08265, WideResNet50.\n"
    )
    return "\n".join(lines)


def _tables(rows: Sequence[ResultRow], kinds: Sequence[_Kind]) -> list[Table]:
    paper = read_paper()
    models = list(dict.fromkeys(row.model for row in rows))
    return [
        _table(
            kind if len(models) == 1 else _named(kind, model),
            [row for row in rows if row.model == model],
            paper,
        )
        for kind in kinds
        for model in models
    ]


def _named(kind: _Kind, model: str) -> _Kind:
    return _Kind(f"{kind.title}: {model}", kind.value, kind.paper, kind.digits)


def _table(
    kind: _Kind, rows: Sequence[ResultRow], paper: Mapping[str, Mapping[str, float]]
) -> Table:
    """Put the percentages side by side, each beside the paper's and their difference."""
    categories = list(dict.fromkeys(row.category for row in rows))
    columns: list[str] = []
    by_column: list[list[Cell]] = []  # each: the categories' cells, then both averages
    has_others = False
    for percentage in sorted({row.percentage_coreset for row in rows}):
        of_percentage = [row for row in rows if row.percentage_coreset == percentage]
        measured = _by_seed(of_percentage, kind.value)
        name = f"{100 * percentage:g} %"
        cells = [_cell([values.get(c, math.nan) for values in measured]) for c in categories]
        key = f"{kind.paper}_{PAPER_PERCENTAGES.get(percentage)}"
        papers = [Cell(paper.get(c, {}).get(key, math.nan)) for c in categories]
        counted = [c for c, cell in zip(categories, cells, strict=True) if cell.is_known]
        compared = [
            c for c, cell in zip(categories, papers, strict=True) if cell.is_known and c in counted
        ]
        cells += [_average(measured, counted), _average(measured, compared)]
        if kind.paper is not None:
            of_papers = _cell([_mean([paper[c][key] for c in compared])])
            # Beside the average of other categories, that of the paper's says nothing.
            papers += [of_papers if compared == counted else Cell(), of_papers]
            columns.append(f"*Paper* {name}")
            by_column.append(papers)
            has_others |= 0 < len(compared) < len(counted)
        columns.append(name)
        by_column.append(cells)
        if kind.paper is not None and compared:
            columns.append("difference")
            by_column.append(_differences(cells, papers))
    names = [*categories, *(AVERAGES if has_others else AVERAGES[:1])]
    # Without others the last row, the second average, has nothing to add and is left out.
    body = zip(names, zip(*by_column, strict=True), strict=has_others)
    return Table(kind.title, tuple(columns), tuple(body), kind.digits)


def _by_seed(
    rows: Sequence[ResultRow], value: Callable[[ResultRow], float]
) -> list[dict[str, float]]:
    """Return the categories' values, seed by seed."""
    seeds = dict.fromkeys(row.seed for row in rows)
    return [{row.category: value(row) for row in rows if row.seed == seed} for seed in seeds]


def _average(measured: Sequence[Mapping[str, float]], categories: Sequence[str]) -> Cell:
    """Average the categories' means; the spread is that of the average of each complete seed."""
    means = [_mean([values.get(c, math.nan) for values in measured]) for c in categories]
    counted = [c for c, mean in zip(categories, means, strict=True) if not math.isnan(mean)]
    complete = [
        values
        for values in measured
        if all(not math.isnan(values.get(c, math.nan)) for c in counted)
    ]
    spread = _cell([_mean([values[c] for c in counted]) for values in complete]).deviation
    return Cell(_mean(means), spread)


def _cell(values: Sequence[float]) -> Cell:
    present = [value for value in values if not math.isnan(value)]
    spread = statistics.stdev(present) if len(present) > 1 else math.nan
    return Cell(_mean(present), spread)


def _mean(values: Sequence[float]) -> float:
    present = [value for value in values if not math.isnan(value)]
    return statistics.fmean(present) if present else math.nan


def _differences(measured: Sequence[Cell], papers: Sequence[Cell]) -> list[Cell]:
    return [Cell(m.value - p.value) for m, p in zip(measured, papers, strict=True)]


def _defect_table(rows: Sequence[ResultRow]) -> str:
    """Return the images of each defect type against the good ones, of the first seed."""
    lines = []
    for row in rows:
        if row.seed != rows[0].seed:
            continue
        for name, metrics in row.defects.items():
            values = (
                Cell(100 * metrics[metric]).to_text(2)
                for metric in ("image_auroc", "image_ap", "image_f1_max")
            )
            setting = f"{row.category} | {name} | {row.model} | {100 * row.percentage_coreset:g} %"
            lines.append(f"| {setting} | {metrics['num_test']:g} | {' | '.join(values)} |")
    if not lines:
        return ""
    head = [
        f"### Each defect type against the good images (%), seed {rows[0].seed}",
        "",
        "| category | defect type | model | coreset | images | AUROC | AP | F1-max |",
        "|:---|:---|:---|---:|---:|---:|---:|---:|",
    ]
    return "\n".join([*head, *lines]) + "\n"


def _latex(text: str) -> str:
    return "".join(f"\\{letter}" if letter in "&%$#_{}" else letter for letter in text)
