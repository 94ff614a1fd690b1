"""`main.py rerun`: repeat an evaluation from its run record."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path

from patchcore.settings import is_own_network
from utils.comparison import compare_rows
from utils.errors import UsageError, named_flag
from utils.machine import package_versions
from utils.options.evaluate import EvaluateOptions
from utils.options.flags import describe_value, parse_flags
from utils.options.record import read_options
from utils.output_names import RESULTS_FILE, RUN_FILE
from utils.pipeline.categories import read_categories
from utils.pipeline.skipping import Skipping
from utils.results import ResultRow, numbered, results_digest
from utils.run_record import read_recorded_rows, read_run

DESCRIPTION = """Repeat an evaluation from the run.json of its result folder, with the same method,
data and seeds; flags that are given override the recorded ones. The result folder, the engine, your
own network (module:factory) and the limits of the machine are never taken from the file, so
--path_result is required. Exit status: 0 if the results are equal to the recorded results, 1 if
they differ or cannot be compared."""
EQUAL, DIFFERENT = 0, 1
# What an untrusted file must not choose: where to write, which machines to connect to, and the
# resource limits of this machine.
NOT_TAKEN = (
    *("path_result", "path_trained", "fresh"),
    *("engine", "address", "shards", "task_cpus"),
    *("num_workers", "memory_budget", "max_megapixels", "quiet", "verbose"),
)

# The flags that choose the rows.
SELECTION = ("categories", "percentage_coreset", "seed", "shots")

log = logging.getLogger(__name__)


def main(arguments: list[str], *, epilog: str = "") -> int:
    """Run the command; return its exit status."""
    path, flags = _split(arguments)
    record = {} if path is None else read_run(path)
    recorded = EvaluateOptions()
    if path is not None:
        recorded = read_options(recorded, record.get("options"), path)
    options = _parse(flags, recorded, epilog)
    if path is None:
        raise UsageError(f"expected a result folder or its {RUN_FILE} as the first argument")
    _check(flags, recorded, options, path)
    _report_changes(recorded, options, record)
    options.check_files()
    results = (path if path.is_dir() else path.parent) / RESULTS_FILE
    # Before the computation, which may take hours.
    before = read_recorded_rows(results.parent, record) if results.is_file() else None
    skipping = Skipping(options)
    categories = read_categories(options, skipping)

    from utils.pipeline.evaluation import evaluate
    from utils.pipeline.wanted import own_rows

    found = evaluate(options, categories, skipping)
    asked = [*(category.name for category in categories), *skipping.categories]
    own = partial(own_rows, options=options, names=asked)
    is_part = bool(skipping.categories) or any(
        getattr(options, name) != getattr(recorded, name) for name in SELECTION
    )
    if before is None:
        answer, is_equal = _compare(record, own(found), is_part=is_part)
    else:
        compared = compare_rows(own(before), own(found))
        answer, is_equal = f"{compared} in {results}", compared.is_equal
    print(answer)
    return (skipping.status or EQUAL) if is_equal else DIFFERENT


def _split(arguments: Sequence[str]) -> tuple[Path | None, list[str]]:
    """Return the path of the record, which comes first, and the flags."""
    if arguments and not arguments[0].startswith("-"):
        return Path(arguments[0]), list(arguments[1:])
    return None, list(arguments)


def _parse(flags: list[str], recorded: EvaluateOptions, epilog: str) -> EvaluateOptions:
    """Return the recorded options with the given flags."""
    defaults = EvaluateOptions()
    defaults = replace(recorded, **{name: getattr(defaults, name) for name in NOT_TAKEN})
    return parse_flags(flags, defaults, command="rerun RUN", description=DESCRIPTION, epilog=epilog)


def _names(flags: Sequence[str]) -> set[str]:
    """Return the names of the flags that are given."""
    return {word[2:].partition("=")[0] for word in flags if word.startswith("--")}


def _check(
    flags: Sequence[str], recorded: EvaluateOptions, options: EvaluateOptions, path: Path
) -> None:
    """Check that the values that the record must not choose are given.

    Raises:
        UsageError: A value is missing or not allowed.
    """
    if "path_result" not in _names(flags):
        raise UsageError(
            "expected a folder for the results: it is not taken from the record (--path_result)"
        )
    with named_flag("--path_result"):
        result = options.path_result.resolve()
    if result == (path if path.is_dir() else path.parent).resolve():
        raise UsageError(
            f"expected a folder different from that of the record, found {options.path_result} for "
            "both (--path_result)"
        )
    if "path_data" not in _names(flags) and not options.path_data.exists():
        raise UsageError(
            f"expected the data of the record, found nothing at {options.path_data}: give their "
            "place (--path_data)"
        )
    if "protocol" in _names(flags):
        raise UsageError(
            "expected no --protocol: the settings are those of the record; give single settings "
            "instead (--protocol)"
        )
    own = [name for name in recorded.backbone if is_own_network(name)]
    if own and "backbone" not in _names(flags):
        raise UsageError(
            f"expected the backbone to be given: the record names {', '.join(own)}, and code "
            "named in a file is never imported (--backbone)"
        )


def _report_changes(
    recorded: EvaluateOptions, options: EvaluateOptions, record: Mapping[str, object]
) -> None:
    """Log which options and versions differ from the record."""
    names = (e.name for e in fields(options) if e.name not in ("path_result", "quiet", "verbose"))
    for name in names:
        before, now = getattr(recorded, name), getattr(options, name)
        if before != now:
            texts = map(describe_value, (now, before))
            log.info("--%s is %s, recorded is %s", name, *texts)
    versions = record.get("versions")
    for name, version in package_versions().items():
        before = versions.get(name) if isinstance(versions, dict) else None
        if before != version:
            log.warning("%s is %s, recorded is %s", name, version, before or "none")


def _compare(
    record: Mapping[str, object],
    rows: Sequence[ResultRow],
    *,
    is_part: bool,
) -> tuple[str, bool]:
    """Return how results compare with the recorded digest, and whether they are equal.

    Args:
        record: Content of ``run.json``.
        rows: The results.
        is_part: Whether other rows were computed than those of the record.
    """
    if "results_digest" not in record:
        return f"nothing to compare with: no {RESULTS_FILE} in the folder of the record", False
    is_equal = record["results_digest"] == results_digest(rows)
    if not is_equal and is_part:
        return (
            f"{numbered(len(rows), 'row')} cannot be compared: the record has only a digest of all "
            f"its rows, and no {RESULTS_FILE} is next to it"
        ), False
    verdict = "equal to" if is_equal else "different from"
    return f"{numbered(len(rows), 'row')}, {verdict} the recorded ones, by their digest", is_equal
