"""Write files so that a crash or a full disk never leaves an incomplete one."""

import os
from pathlib import Path

from utils.errors import UsageError


def replace_file(target: Path, data: bytes) -> Path:
    """Write a file, which always has the complete old or the complete new content.

    Raises:
        OSError: the file cannot be written.
    """
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(data)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return target


def make_writable(path: Path, content: str, flag: str) -> list[Path]:
    """Create a folder if it is missing, and check that files can be written to it.

    Args:
        path: The folder.
        content: What will be written to it, for the error.
        flag: The flag that names the folder, for the error.

    Returns:
        The folders that were missing: the folder itself, and parents.

    Raises:
        UsageError: the folder cannot be created or written to.
    """
    try:
        new = [folder for folder in (path, *path.parents) if not folder.exists()]
        path.mkdir(parents=True, exist_ok=True)
        replace_file(path / ".writable", b"").unlink()
    except OSError as error:
        reason = f"{error.strerror or error}; {flag}"
        raise UsageError(
            f"expected a folder to write {content} to, found {path} ({reason})"
        ) from error
    return new
