"""The check of ``--path_result`` that `evaluate` and `infer` share."""

from collections.abc import Iterable
from pathlib import Path

from utils.errors import UsageError


def check_result_folder(path: Path, of_images: Iterable[str | Path]) -> None:
    """Raise UsageError if results would be written among images, where a later run reads them."""
    for folder in of_images:
        try:
            is_same = path.samefile(folder)
        except (OSError, ValueError):  # there is none; the search for images says so
            continue
        if is_same:
            raise UsageError(
                f"expected a folder different from that of the images, found {path} for both "
                "(--path_result)"
            )
