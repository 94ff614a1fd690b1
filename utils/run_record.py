"""Reading of ``run.json``, which may come from somebody else."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path

from utils.errors import UsageError
from utils.machine import RUN_FORMAT
from utils.output_names import RESULTS_FILE, RUN_FILE
from utils.results import ResultRow, read_rows, results_digest

# The largest records list the chosen images of few-shot runs, some MB.
MAX_BYTES = 64 << 20

log = logging.getLogger(__name__)


def read_run(path: Path) -> dict[str, object]:
    """Read the record of a run.

    Args:
        path: A result folder, or its ``run.json``.

    Raises:
        UsageError: There is no such file, or it is not a record of this version.
    """
    try:
        path = path / RUN_FILE if path.is_dir() else path
        if not path.is_file():  # a pipe would be waited for
            raise ValueError("no such file")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ValueError(f"more than {MAX_BYTES} bytes")
        record = json.loads(data.decode())
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(
            f"expected a result folder with {RUN_FILE}, cannot read {path}: "
            f"{getattr(error, 'strerror', None) or error}"
        ) from error
    if not isinstance(record, dict):
        raise UsageError(f"expected the record of a run in {path}, found other JSON")
    found = record.get("format", RUN_FORMAT)  # the first records do not name it
    if found != RUN_FORMAT:
        raise UsageError(
            f"expected format {RUN_FORMAT} in {path}, found {found!r:.40}: use the version of the "
            "program that wrote it"
        )
    return record


def read_recorded_rows(folder: Path, record: Mapping[str, object]) -> list[ResultRow]:
    """Read the rows of a result folder; warn if they are not those that its run wrote.

    Args:
        folder: The result folder.
        record: Content of its ``run.json``.

    Raises:
        UsageError: They cannot be read.
    """
    rows = read_rows(folder)
    digest = results_digest(rows)
    if record.get("rows_digest", digest) != digest:  # older records have none
        log.warning("%s has changed since its run wrote it", folder / RESULTS_FILE)
    return rows
