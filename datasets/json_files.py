"""JSON files of datasets."""

import json
from pathlib import Path

from datasets.base import DatasetError

# Annotations of the largest published datasets have some hundred MB.
MAX_BYTES = 1 << 30
# What a value of another form than expected may cause where it is used.
MALFORMED = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
# End of an error about a file that only looks like the annotations of images.
OTHER_LAYOUT = "if it has no annotations, name the layout (--dataset)"


def read_json(path: Path) -> object:
    """Read a JSON file in UTF-8, with or without a byte-order mark.

    Raises:
        DatasetError: The file cannot be read, is too large, or is not JSON.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"more than {MAX_BYTES} bytes")
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"expected JSON in {path}, found something else ({error})") from error


def stated_size(record: dict, height: str, width: str) -> tuple[int, int] | None:
    """Return the (height, width) of an image that a record states; None if it states none.

    Args:
        record: A JSON object.
        height: Key of the height; a value that is missing, null or 0 states nothing.
        width: Key of the width.

    Raises:
        ValueError, TypeError, OverflowError: The values are no numbers.
    """
    size = int(record.get(height) or 0), int(record.get(width) or 0)
    return size if min(size) > 0 else None
