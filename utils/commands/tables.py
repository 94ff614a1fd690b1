"""`main.py tables`: tables again from one or more result folders, for papers and READMEs."""

import argparse
import json
import logging
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

from patchcore.settings import Settings
from utils.errors import UsageError
from utils.options.flags import CommandParser
from utils.results import RUN_FILE, TABLES_FILE, ResultRow, read_rows, replace_file
from utils.tables import all_tables, describe_run, main_tables, records_text, tables_text

DESCRIPTION = """Rebuild the tables from the results.csv of one or more result folders, so that
categories, percentages or seeds that were run apart come together."""
# Options in which rows of one table must agree. Percentages and seeds have their own columns, and
# backbones, weights and layers are compared model by model.
METHOD = ({entry.name for entry in fields(Settings)} | {"aupro_limit"}) - {
    "percentage_coreset",
    "seed",
}
MARKS = "<!-- tables:begin -->", "<!-- tables:end -->"

# How the plan of memory begins that changes nothing.
PLAIN = "all embeddings in float32"

log = logging.getLogger(__name__)


def main(arguments: list[str], *, epilog: str = "") -> None:
    """Run the command."""
    given = _parse(arguments, epilog)
    records = [_read_run(folder) for folder in given.results]
    rows = gather_rows([read_rows(folder) for folder in given.results], records, given.results)
    tables = all_tables(rows)
    origin = "\n".join(dict.fromkeys(map(describe_run, records)))
    target = given.path_result or given.results[0]
    try:
        target.mkdir(parents=True, exist_ok=True)
        markdown = tables_text(rows, origin)
        replace_file(target / TABLES_FILE, markdown.encode())
        replace_file(target / "tables.csv", records_text(tables).encode())
        latex = "\n".join(table.to_latex() for table in tables)
        replace_file(target / "tables.tex", latex.encode())
        if given.readme is not None:
            shown = "\n".join([origin, *(table.to_markdown() for table in _readme_tables(rows))])
            replace_section(given.readme, shown)
    except OSError as error:
        raise UsageError(f"cannot write tables: {error}") from error
    print(markdown)
    log.info("%s, tables.csv and tables.tex are in %s", TABLES_FILE, target)


def gather_rows(
    parts: Sequence[Sequence[ResultRow]],
    records: Sequence[dict],
    folders: Sequence[Path],
) -> list[ResultRow]:
    """Put the rows of several folders together, each measurement once: the last folder's counts.

    Rows of folders that were run with other settings of the method are kept apart under names of
    their own.

    Args:
        parts: The rows of each folder.
        records: The ``run.json`` of each folder.
        folders: Their paths, for the names.
    """
    methods: dict[str, list[object]] = {}
    for rows, record in zip(parts, records, strict=True):
        for model in dict.fromkeys(row.model for row in rows):
            known = methods.setdefault(model, [])
            if _method(record, model) not in known:
                known.append(_method(record, model))
    unique = len({folder.name for folder in folders}) == len(folders)
    gathered: dict[tuple, ResultRow] = {}
    for rows, folder in zip(parts, folders, strict=True):
        for row in rows:
            name = f"{row.model} ({folder.name if unique else folder})"
            kept = row if len(methods[row.model]) == 1 else replace(row, model=name)
            if kept.key in gathered:
                log.warning("measured more than once, the last counts: %s", kept.key)
            gathered[kept.key] = kept
    return sorted(gathered.values(), key=lambda row: (row.model, row.category))


def _method(record: dict, model: str) -> object:
    """Return what makes a model's results those of one method: settings, weights, layers."""
    options = record["options"]
    settings = {name: value for name, value in options.items() if name in METHOD}
    digests = record["weights_digest"]
    layers = options["layers"] * (len(digests) if len(options["layers"]) == 1 else 1)
    members = dict(zip(digests, zip(digests.values(), layers, strict=True), strict=True))
    # An ensemble is what all its members are.
    plans = {text for plan in record.get("memory", {}).values() for text in plan.values()}
    # Embeddings that were rounded, or selected in parts, are another method.
    other = sorted(plan for plan in plans if not plan.startswith(PLAIN))
    return settings, members.get(model, members), other


def replace_section(readme: Path, text: str) -> None:
    """Put ``text`` between the two marks in a file, in place of what stands there.

    Raises:
        UsageError: the file is missing, or does not have both marks in order.
    """
    try:
        content = readme.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot read {readme} (--readme): {error.strerror}") from error
    begin, end = MARKS
    before, found_begin, rest = content.partition(begin)
    _, found_end, after = rest.partition(end)
    if not (found_begin and found_end):
        raise UsageError(f"expected the lines {begin} and {end} in {readme} (--readme)")
    replace_file(readme, f"{before}{begin}\n\n{text}\n{end}{after}".encode())


def _readme_tables(rows: Sequence[ResultRow]) -> list:
    """Return the measures of the paper, and the time: what a README has room for."""
    shown = {table.title for table in main_tables(rows)}
    return [t for t in all_tables(rows) if t.title in shown or t.title.startswith("AUPRO")]


def _parse(arguments: list[str], epilog: str) -> argparse.Namespace:
    parser = CommandParser("tables", DESCRIPTION, epilog)
    parser.add_argument("results", nargs="+", type=Path, metavar="RESULT", help="result folder")
    parser.add_argument(
        "--path_result",
        type=Path,
        metavar="DIR",
        help="where tables.md, tables.csv and tables.tex are written (default: the first RESULT)",
    )
    parser.add_argument(
        "--readme",
        type=Path,
        metavar="FILE",
        help=f"a Markdown file whose part between {MARKS[0]} and {MARKS[1]} is replaced by the "
        "tables of the paper's measures",
    )
    return parser.parse_args(arguments)


def _read_run(folder: Path) -> dict:
    path = folder / RUN_FILE
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"expected a result folder with {RUN_FILE}, cannot read {path}: {error}"
        ) from error
    try:
        describe_run(record)
        for model in record["weights_digest"]:
            _method(record, model)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(
            f"expected the record of a run of this program, found another: {path}"
        ) from error
    if record.get("state") != "complete":
        log.warning("the run of %s did not come to its end: %s", folder, record.get("state"))
    return record
