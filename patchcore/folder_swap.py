"""Replacement of a folder by a new one in one step, which keeps the files that others added."""

import glob
import logging
import os
import platform
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path

# Part of temporary names: of other machines it is unknown which processes are running.
_HOST = platform.node()

log = logging.getLogger(__name__)


def replace_folder(folder: Path, contents: Mapping[str, bytes], *, own: Collection[str]) -> None:
    """Write a folder under a temporary name, then rename it over the former one.

    The former folder is complete until the new one is. A link to a folder stays a link. What a
    killed process has left of an earlier replacement is restored or removed.

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
    _clear_leftovers(folder, own)
    own_name = f".{folder.name}.{_HOST}.{os.getpid()}"
    partial = folder.with_name(f"{own_name}.partial")
    former = folder.with_name(f"{own_name}.former")
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


def _clear_leftovers(folder: Path, own: Collection[str]) -> None:
    """Restore or remove what killed processes of this machine have left beside a folder."""
    names = f"{glob.escape(f'.{folder.name}.{_HOST}.')}[0-9]*"
    for former in filter(_is_left, folder.parent.glob(f"{names}.former")):
        if folder.exists():
            _remove_former(former, folder, own)
        else:
            former.rename(folder)
    for partial in filter(_is_left, folder.parent.glob(f"{names}.partial")):
        shutil.rmtree(partial, ignore_errors=True)


def _is_left(path: Path) -> bool:
    """Return whether the process that a temporary name states has ended."""
    if os.name != "posix":  # os.kill would end it
        return False
    try:
        os.kill(int(path.name.split(".")[-2]), 0)
    except ProcessLookupError:
        return True
    except (OSError, ValueError, OverflowError):  # another user's, or not a name of ours
        pass
    return False


def _remove_former(former: Path, folder: Path, own: Collection[str]) -> None:
    """Remove the former folder; files that are not its own move to the new one."""
    try:
        for path in list(former.iterdir()):
            if path.name in own:
                path.unlink()
            elif not (folder / path.name).exists():  # else it stays, and rmdir says so
                path.rename(folder / path.name)
        former.rmdir()
    except OSError as error:
        log.warning(
            "%s is written, but files of the former folder are left in %s: %s",
            folder,
            former,
            error.strerror or error,
        )
