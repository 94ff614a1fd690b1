"""The page: a template, a style sheet and a script, filled with the results and put in one file.

It asks for nothing but the pictures beside it: no network, no script from elsewhere.
"""

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import jinja2

from utils.report.view import ReportView, as_url
from utils.results import ResultRow
from utils.tables import AVERAGE, DASH, Table, all_tables

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class _Column:
    """A column of the overview: its heading, a row's value, and how the value is written."""

    name: str
    key: str
    digits: int = 2
    percent: bool = True
    # Of the bars behind the values: where they begin, in the value's unit; None for no bar.
    bar_from: float | None = None


COLUMNS = (
    _Column("Image AUROC", "image_auroc", bar_from=50),
    _Column("Image AP", "image_ap"),
    _Column("Image F1-max", "image_f1_max"),
    _Column("Pixel AUROC", "pixel_auroc", bar_from=50),
    _Column("AUPRO", "pixel_aupro", bar_from=0),
    _Column("Pixel AP", "pixel_ap"),
    _Column("Wrong", "wrong", 0, percent=False),
    _Column("Seconds", "seconds", 1, percent=False),
)
FACTS = (
    ("Backbone", lambda record: " ".join(record["options"]["backbone"])),
    ("Layers", lambda record: ", ".join(" ".join(g) for g in record["options"]["layers"])),
    ("Weights", lambda record: " ".join(record["options"]["weights"])),
    ("Neighbours", lambda record: f"k = {record['options']['k']}"),
    ("Seeds", lambda record: " ".join(map(str, record["options"]["seed"]))),
    ("Protocol", lambda record: record["options"]["protocol"]),
    ("Device", lambda record: f"{record['device']} ({record['cpu']})"),
    ("Start", lambda record: record["start"]),
)


def render_page(
    record: Mapping[str, object],
    rows: Sequence[ResultRow],
    views: Sequence[ReportView],
    curves: Mapping[float, Sequence[tuple[str, str]]],
) -> str:
    """Return the page.

    Args:
        record: What ``run.json`` holds.
        rows: All results.
        views: What was drawn, or would have been: a category at a percentage each.
        curves: For each percentage the titles and files of its curves.

    Returns:
        HTML, all of it encodable as UTF-8.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = (FOLDER / "page.js").read_text(encoding="utf-8")
    shown = [row for row in rows if rows and row.model == rows[-1].model]
    percentages = sorted({row.percentage_coreset for row in shown}, reverse=True)
    text = environment.get_template("page.html.j2").render(
        style=(FOLDER / "page.css").read_text(encoding="utf-8"),
        script=script,
        # Whatever a file name could smuggle in: no other script than this one runs.
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        record=record,
        facts=[(name, value(record)) for name, value in FACTS],
        percentages=[(f"{p:g}", f"{100 * p:g} %") for p in percentages],
        tiles={f"{p:g}": _tiles(shown, p) for p in percentages},
        columns=COLUMNS,
        overviews={f"{p:g}": _overview(shown, p) for p in percentages},
        several_seeds=len({row.seed for row in shown}) > 1,
        curves={
            f"{percentage:g}": [(title, as_url(file)) for title, file in files]
            for percentage, files in curves.items()
        },
        tables=[_cells(table) for table in all_tables(rows)],
        data={"views": [view.to_record() for view in views]},
    )
    # Undecodable letters of file names have no place in UTF-8.
    return text.encode("utf-8", "replace").decode("utf-8")


def _value(row: ResultRow, column: _Column) -> float:
    if column.key == "seconds":
        return row.seconds_total
    if column.key == "wrong":
        return row.metrics["image_false_positives"] + row.metrics["image_false_negatives"]
    return (100 if column.percent else 1) * row.metrics.get(column.key, math.nan)


def _overview(
    rows: Sequence[ResultRow], percentage: float
) -> list[tuple[str, list[dict[str, object]]]]:
    """Return the overview's lines: a category's name and its cells, means over the seeds."""
    lines = []
    measured: dict[str, list[ResultRow]] = {}
    for row in rows:
        if row.percentage_coreset == percentage:
            measured.setdefault(row.category, []).append(row)
    values = {
        category: [_mean([_value(row, column) for row in of_category]) for column in COLUMNS]
        for category, of_category in measured.items()
    }
    lines = [(category, _overview_cells(of_category)) for category, of_category in values.items()]
    means = [_mean(column) for column in zip(*values.values(), strict=True)]
    return [*lines, (AVERAGE, _overview_cells(means))]


def _overview_cells(values: Sequence[float]) -> list[dict[str, object]]:
    cells = []
    for column, value in zip(COLUMNS, values, strict=True):
        unknown = math.isnan(value)
        whole = column.digits == 0 and not unknown and not float(value).is_integer()
        digits = 1 if whole else column.digits
        bar = None
        if column.bar_from is not None and not unknown:
            bar = f"{max(0.0, (value - column.bar_from) / (100 - column.bar_from)):.4f}"
        cells.append(
            {
                "text": DASH if unknown else f"{value:.{digits}f}",
                "sort": "" if unknown else repr(float(value)),
                "bar": bar,
            }
        )
    return cells


def _tiles(rows: Sequence[ResultRow], percentage: float) -> list[tuple[str, str, str]]:
    """Return the figures at the top: name, value, unit; means over categories and seeds."""
    chosen = [row for row in rows if row.percentage_coreset == percentage]
    tiles = []
    for name, key in (
        ("Image AUROC", "image_auroc"),
        ("Pixel AUROC", "pixel_auroc"),
        ("AUPRO", "pixel_aupro"),
    ):
        mean = _mean([100 * row.metrics.get(key, math.nan) for row in chosen])
        tiles.append((name, DASH if math.isnan(mean) else f"{mean:.2f}", "%"))
    seconds = _mean([row.seconds_total for row in chosen])
    tiles.append(("Time per category", f"{seconds:.1f}", "s"))
    return tiles


def _cells(table: Table) -> dict[str, object]:
    """Return a table's texts, without columns in which nothing is known."""
    texts = [(name, [cell.to_text(table.digits) for cell in cells]) for name, cells in table.rows]
    known = [
        column
        for column in range(len(table.columns))
        if any(cells[column] != DASH for _, cells in texts)
    ]
    return {
        "title": table.title,
        "columns": [table.columns[column].replace("*", "") for column in known],
        "rows": [(name, [cells[column] for column in known]) for name, cells in texts],
    }


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return fmean(known) if known else math.nan
