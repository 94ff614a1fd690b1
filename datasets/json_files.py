"""JSON files of datasets."""

import json
from pathlib import Path

from datasets.base import DatasetError


def read_json(path: Path) -> object:
    """Read a JSON file in UTF-8, with or without a byte-order mark.

    Raises:
        DatasetError: The file cannot be read, or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise DatasetError(f"expected JSON in {path}, found something else ({error})") from error
