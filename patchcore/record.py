"""``model.json``, the record of a saved model: read without loading the model."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from patchcore.errors import PatchCoreError

RECORD = "model.json"
FORMAT, FORMAT_VERSION = "patchcore", 5


def record_digest(record: Mapping[str, object]) -> str:
    """Return the digest of a record's content, without its entry ``digest``."""
    content = {name: value for name, value in record.items() if name != "digest"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_record(folder: Path) -> dict:
    """Read ``model.json`` of a saved model.

    Raises:
        PatchCoreError: the file cannot be read, has another format or version, or was changed.
    """
    path = folder / RECORD
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PatchCoreError(
            f"expected the folder of a trained model, cannot read {path}: {error.strerror or error}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise PatchCoreError(
            f"expected the record of a trained model, found no JSON in {path}"
        ) from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise PatchCoreError(f"expected a trained PatchCore model, found another record: {path}")
    if record.get("format_version") != FORMAT_VERSION:
        raise PatchCoreError(
            f"expected format_version {FORMAT_VERSION} in {path}, found "
            f"{record.get('format_version')!r}: train again, or use the version of the program "
            "that wrote it"
        )
    try:
        is_unchanged = record.get("digest") == record_digest(record)
    except RecursionError:
        is_unchanged = False
    if not is_unchanged:
        raise PatchCoreError(
            f"expected the record as it was written, found a damaged or changed one: {path}"
        )
    return record
