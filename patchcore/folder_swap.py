"""Replacement of a folder by a new one in one step, which keeps the files that others added."""

import logging
import os
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path

log = logging.getLogger(__name__)


def replace_folder(folder: Path, contents: Mapping[str, bytes], *, own: Collection[str]) -> None:
    """Write a folder under a temporary name, then rename it over the former one.

    The former folder is complete until the new one is. A link to a folder stays a link.

    Args:
        folder: The folder; created with its parents.
        contents: The bytes of each file, by name.
        own: Names of the files that belong to the content. Those of the former folder are removed;
            other files in it move to the new one.

    Raises:
        OSError: the folder cannot be written. A former folder is as before then.
    """
    folder = Path(os.path.realpath(folder))
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    former = folder.with_name(f".{folder.name}.{os.getpid()}.former")
    try:
        partial.mkdir()
        for name, data in contents.items():
            (partial / name).write_bytes(data)
        if folder.exists():
            folder.rename(former)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if former.exists() and not folder.exists():
            former.rename(folder)  # restores it if the new one could not be renamed
    if former.exists():
        _remove_former(former, folder, own)


def _remove_former(former: Path, folder: Path, own: Collection[str]) -> None:
    """Remove the former folder; files that are not its own move to the new one."""
    try:
        for path in list(former.iterdir()):
            if path.name in own:
                path.unlink()
            else:
                path.rename(folder / path.name)
        former.rmdir()
    except OSError as error:
        log.warning(
            "%s is written, but files of the former folder are left in %s: %s",
            folder,
            former,
            error.strerror or error,
        )
