"""The report page of an evaluation."""

import math
from collections.abc import Mapping, Sequence

from utils.metric_columns import DASH, METRICS, UNITS, MetricColumn, Output
from utils.report.rendering import render
from utils.report.view import ReportView, as_url
from utils.results import ResultRow, Setting
from utils.run_texts import notes_of
from utils.table import AVERAGE, Table
from utils.tables import all_tables, mean_of_known

# Percentages of images, percentages of pixels, counts, times.
COLUMNS = sorted(
    (metric for metric in METRICS if Output.PAGE in metric.outputs),
    key=lambda metric: (UNITS.index(metric.unit), metric.items),
)
FACTS = (
    ("Backbone", lambda record: " ".join(record["options"]["backbone"])),
    ("Layers", lambda record: ", ".join(" ".join(g) for g in record["options"]["layers"])),
    ("Weights", lambda record: " ".join(record["options"]["weights"])),
    ("Neighbours", lambda record: f"k = {record['options']['k']}"),
    ("Seeds", lambda record: " ".join(map(str, record["options"]["seed"]))),
    ("Shots", lambda record: " ".join(map(str, record["options"].get("shots", ())))),
    ("Protocol", lambda record: record["options"]["protocol"]),
    ("Device", lambda record: f"{record['device']} ({record['cpu']})"),
    ("Start", lambda record: record["start"]),
)


def render_page(
    record: Mapping[str, object],
    rows: Sequence[ResultRow],
    views: Sequence[ReportView],
    curves: Mapping[Setting, Sequence[tuple[str, str]]],
) -> str:
    """Return the page.

    Args:
        record: Content of ``run.json``.
        rows: All results.
        views: The test images of each category and setting, with their figures.
        curves: Titles and files of the curves, by setting.

    Returns:
        HTML that can be encoded as UTF-8.
    """
    shown = [row for row in rows if rows and row.model == rows[-1].model]
    settings = sorted({row.setting for row in shown}, key=lambda s: s.order, reverse=True)
    values = {
        "record": record,
        "notes": notes_of(record),
        "facts": [(name, value(record)) for name, value in FACTS if value(record)],
        "settings": [(setting.key, str(setting)) for setting in settings],
        "tiles": {setting.key: _tiles(shown, setting) for setting in settings},
        "headings": [metric.page_title or metric.title for metric in COLUMNS],
        "overviews": {setting.key: _overview(shown, setting) for setting in settings},
        "several_seeds": len({row.seed for row in shown}) > 1,
        "curves": {
            setting.key: [(title, as_url(file)) for title, file in files]
            for setting, files in curves.items()
        },
        "tables": [_known_columns(table) for table in all_tables(rows)],
    }
    data = {"views": [view.to_record() for view in views]}
    return render("page.html.j2", "page.js", data, values)


def _overview(
    rows: Sequence[ResultRow], setting: Setting
) -> list[tuple[str, list[dict[str, object]]]]:
    """Return the rows of the overview: names and cells, means over the seeds; the average last."""
    values = _means(rows, setting, COLUMNS)
    return [(name, _overview_cells(of_name)) for name, of_name in values.items()]


def _means(
    rows: Sequence[ResultRow], setting: Setting, metrics: Sequence[MetricColumn]
) -> dict[str, list[float]]:
    """Return each category's means over the seeds, and the mean of these as `AVERAGE`, the last."""
    measured: dict[str, list[ResultRow]] = {}
    for row in rows:
        if row.setting == setting:
            measured.setdefault(row.category, []).append(row)
    values = {
        category: [mean_of_known(metric.value(row) for row in of_category) for metric in metrics]
        for category, of_category in measured.items()
    }
    values[AVERAGE] = [mean_of_known(column) for column in zip(*values.values(), strict=True)]
    return values


def _overview_cells(values: Sequence[float]) -> list[dict[str, object]]:
    """Return text, sort key and length of the bar (0 to 1) of each value."""
    cells = []
    for metric, value in zip(COLUMNS, values, strict=True):
        unknown = math.isnan(value)
        bar = None
        if metric.bar_from is not None and not unknown:
            bar = f"{max(0.0, (value - metric.bar_from) / (100 - metric.bar_from)):.4f}"
        cells.append(
            {
                "text": metric.unit.to_text(value),
                "sort": "" if unknown else repr(float(value)),
                "bar": bar,
            }
        )
    return cells


def _tiles(rows: Sequence[ResultRow], setting: Setting) -> list[tuple[str, str, str]]:
    """Return the large numbers: name, value, unit; the averages of the overview."""
    metrics = [metric for metric in METRICS if Output.TILE in metric.outputs]
    averages = _means(rows, setting, metrics)[AVERAGE]
    return [
        (metric.tile_title or metric.title, metric.unit.to_text(value), metric.unit.symbol)
        for metric, value in zip(metrics, averages, strict=True)
    ]


def _known_columns(table: Table) -> dict[str, object]:
    """Return the texts of a table, without columns that have only dashes."""
    texts = [[cell.to_text(table.digits) for cell in row.cells] for row in table.rows]
    known = [
        column
        for column in range(len(table.columns))
        if any(cells[column] != DASH for cells in texts)
    ]
    return {
        "title": table.title,
        "columns": [table.plain_columns[column] for column in known],
        "has_shots": table.has_shots,
        "rows": [
            (row.name, row.shots_text, [cells[column] for column in known])
            for row, cells in zip(table.rows, texts, strict=True)
        ],
    }
