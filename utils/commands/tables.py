"""`main.py tables`: rebuild tables from one or more result folders, for papers and READMEs."""

import argparse
import logging
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

from patchcore.settings import Settings
from utils.errors import UsageError
from utils.files import replace_file
from utils.options.flags import CommandParser, add_flags
from utils.options.log import LogOptions
from utils.output_names import RUN_FILE, TABLES_CSV_FILE, TABLES_FILE, TABLES_LATEX_FILE
from utils.result_folder import ResultFolder
from utils.results import ResultRow
from utils.run_record import read_recorded_rows, read_run
from utils.run_texts import describe_run
from utils.tables import all_tables, readme_tables, records_text, tables_text

DESCRIPTION = """Rebuild the tables from the results.csv of one or more result folders, to combine
categories, percentages or seeds of separate runs."""
MARKS = "<!-- tables:begin -->", "<!-- tables:end -->"

log = logging.getLogger(__name__)


def main(arguments: list[str], *, epilog: str = "") -> None:
    """Run the command."""
    given = _parse(arguments, epilog)
    records = [_read_run(folder) for folder in given.results]
    parts = list(map(read_recorded_rows, given.results, records))
    rows = gather_rows(parts, records, given.results)
    tables = all_tables(rows)
    origin = "\n".join(dict.fromkeys(map(describe_run, records, parts)))
    markdown = tables_text(rows, origin)
    folder = ResultFolder(given.path_result or given.results[0])
    folder.write_text(TABLES_FILE, markdown)
    folder.write_text(TABLES_CSV_FILE, records_text(tables))
    folder.write_text(TABLES_LATEX_FILE, "\n".join(table.to_latex() for table in tables))
    if given.readme is not None:
        section = "\n".join([origin, *(table.to_markdown() for table in readme_tables(rows))])
        replace_section(given.readme, section)
        log.info("the tables in %s are replaced", given.readme)
    print(markdown)
    names = f"{TABLES_FILE}, {TABLES_CSV_FILE} and {TABLES_LATEX_FILE}"
    log.info("%s are in %s", names, folder.path)


def method_settings() -> list[str]:
    """Return the names of the options that must be equal for all rows of one table.

    Percentages and seeds have their own columns and rows; backbones, weights and layers are
    compared model by model.
    """
    names = [entry.name for entry in fields(Settings)]
    names += ["aupro_limit", "map_size", "ignore_mask", "bit_depth"]
    return [n for n in names if n not in ("percentage_coreset", "seed")]


def gather_rows(
    parts: Sequence[Sequence[ResultRow]],
    records: Sequence[dict],
    folders: Sequence[Path],
) -> list[ResultRow]:
    """Return the rows of several folders; of rows with the same key, the last one is kept.

    A model with different settings in different folders becomes one model per folder, with the
    folder in its name.

    Args:
        parts: The rows of each folder.
        records: The ``run.json`` of each folder.
        folders: The paths of the folders.
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
                log.warning(
                    "%s, %s, coreset %s, seed %d: measured more than once, the result of %s is "
                    "used",
                    *(kept.model, kept.category, kept.setting, kept.seed, folder),
                )
            gathered[kept.key] = kept
    return sorted(gathered.values(), key=lambda row: (row.model, row.category))


def _method(record: dict, model: str) -> object:
    """Return the settings, weights, layers and version of results of a model's run."""
    options = record["options"]
    settings = {name: options.get(name) for name in method_settings()}
    settings["results_version"] = record.get("results_version")
    digests = record["weights_digest"]
    layers = options["layers"] * (len(digests) if len(options["layers"]) == 1 else 1)
    members = dict(zip(digests, zip(digests.values(), layers, strict=True), strict=True))
    # The ensemble is not a member: its results depend on all members.
    return settings, members.get(model, members)


def replace_section(readme: Path, text: str) -> None:
    """Replace the part of a file between both marks by ``text``.

    Raises:
        UsageError: the file cannot be read or written, or does not have both marks in order.
    """
    try:
        content = readme.read_bytes().decode()
    except OSError as error:
        raise UsageError(f"cannot read {readme} (--readme): {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(
            f"expected text in UTF-8, found something else: {readme} (--readme)"
        ) from error
    begin, end = MARKS
    before, found_begin, rest = content.partition(begin)
    _, found_end, after = rest.partition(end)
    if not (found_begin and found_end):
        raise UsageError(f"expected the lines {begin} and {end} in {readme} (--readme)")
    try:
        section = f"{begin}\n\n{text}\n{end}"
        if "\r\n" in content:  # the file's own line ends
            section = section.replace("\n", "\r\n")
        # A link to a file stays a link.
        replace_file(readme.resolve(), f"{before}{section}{after}".encode())
    except OSError as error:
        raise UsageError(f"cannot write {readme} (--readme): {error.strerror}") from error


def _parse(arguments: list[str], epilog: str) -> argparse.Namespace:
    parser = CommandParser("tables", DESCRIPTION, epilog)
    parser.add_argument("results", nargs="+", type=Path, metavar="RESULT", help="result folder")
    parser.add_argument(
        "--path_result",
        type=Path,
        metavar="DIR",
        help="folder for tables.md, tables.csv and tables.tex (default: the first RESULT)",
    )
    parser.add_argument(
        "--readme",
        type=Path,
        metavar="FILE",
        help=f"Markdown file in which the part between {MARKS[0]} and {MARKS[1]} is replaced by "
        "the tables of processing time and of the paper's metrics",
    )
    add_flags(parser, LogOptions())
    parser.set_defaults(quiet=False, verbose=False)
    given = parser.parse_args(arguments)
    LogOptions(given.quiet, given.verbose)  # checks them
    return given


def _read_run(folder: Path) -> dict:
    path = folder / RUN_FILE
    record = read_run(folder)
    try:
        describe_run(record, ())
        for model in ("", *record["weights_digest"]):
            _method(record, model)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(
            f"expected the record of a run of this program in {path}, found something else"
        ) from error
    if record.get("state") != "complete":
        log.warning("the run in %s was not completed: %s", folder, record.get("state"))
    return record
