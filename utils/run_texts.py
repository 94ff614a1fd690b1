"""A run in words: lines of the log, and what ``tables.md`` and the page say of its origin."""

import math
from collections.abc import Mapping, Sequence

from utils.metric_columns import IMAGE, METRICS, PIXEL, MetricColumn, Output
from utils.results import ResultRow, numbered
from utils.table import escape_markdown


def log_line(row: ResultRow) -> str:
    """Return the line that ``evaluate`` logs for a category: its setting, then its metrics."""
    images, pixels = (
        ", ".join(
            _named_value(metric, row)
            for metric in METRICS
            if Output.LOG in metric.outputs and metric.items == items
        )
        for items in (IMAGE, PIXEL)
    )
    setting = f"{row.model}, coreset {row.setting}, seed {row.seed}"
    time = f"{row.seconds_total:.1f} s"
    return f"{row.category}, {setting}, {time}: image {images}; pixel {pixels}"


def seconds_line(row: ResultRow) -> str:
    """Return the seconds of each stage of a row in words, for the log."""
    stages = ", ".join(f"{stage} {seconds:.3f} s" for stage, seconds in row.seconds.items())
    return f"{row.category}, {row.model}, coreset {row.setting}, seed {row.seed}: {stages}"


def describe_run(record: Mapping[str, object], rows: Sequence[ResultRow]) -> str:
    """Return the origin of results in Markdown.

    Args:
        record: Content of ``run.json``, which has the options of the last command.
        rows: The results, to which earlier commands may have added other seeds and shots.
    """
    options = record["options"]
    layers = ", ".join(" ".join(group) for group in options["layers"])
    seeds, shots = (
        " ".join(str(value) for value in dict.fromkeys(values) if value is not None)
        for values in ((row.seed for row in rows), (row.shots for row in rows))
    )
    few = f"shots {shots}; " if shots else ""
    lines = [*notes_text(record), f"    {record['command']}\n"]
    lines.append(
        f"Backbone {', '.join(options['backbone'])}; weights {', '.join(options['weights'])}; "
        f"layers {layers}; k = {options['k']}; seed {seeds}; "
        f"{few}protocol {options['protocol']}; on {record['device']} ({record['cpu']}); "
        f"{record['start']}. *Paper*: Roth et al. 2022, arXiv 2106.08265, WideResNet50.\n"
    )
    return "\n".join(lines)


def notes_of(record: Mapping[str, object]) -> list[str]:
    """Return the notes of ``run.json``, and one about each category with skipped images."""
    notes = list(record["notes"])
    for name, images in record.get("skipped_images", {}).items():
        more = ":" if len(images) == 1 else ", for example"
        notes.append(
            f"{name}: {numbered(len(images), 'image')} skipped (--on_error skip){more} "
            f"{next(iter(images))}"
        )
    for name, reason in record.get("skipped_categories", {}).items():
        notes.append(f"{name}: the category is skipped (--on_error skip): {reason}")
    return notes


def notes_text(record: Mapping[str, object]) -> list[str]:
    """Return the notes in Markdown."""
    return [f"> {escape_markdown(' '.join(note.splitlines()))}\n" for note in notes_of(record)]


def _named_value(metric: MetricColumn, row: ResultRow) -> str:
    """Return the name, the limit (if any) and the value of a metric in its unit."""
    limit = row.value(metric.limit) if metric.limit else math.nan
    name = metric.name if math.isnan(limit) else f"{metric.name} to {limit:g}"
    value = metric.value(row)
    symbol = "" if math.isnan(value) else metric.unit.symbol
    return f"{name} {metric.unit.to_text(value)} {symbol}".rstrip()
