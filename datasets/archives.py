"""Unpacking of archives from the internet: nothing outside the folder, nothing half-unpacked."""

import bz2
import gzip
import lzma
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from datasets.base import DatasetError

PIECE = 1 << 20  # bytes that are copied at a time
# Bytes of a header of a tar archive, which is read as a whole, and of what follows its end.
LARGEST_READ = 64 << 20
# Decompressors by the first bytes of a compressed tar archive.
COMPRESSED: tuple[tuple[bytes, Callable[[Path], BinaryIO]], ...] = (
    (b"\x1f\x8b", gzip.open),
    (b"BZh", bz2.open),
    (b"\xfd7zXZ\x00", lzma.open),
)
DAMAGED = (
    *(zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError),
    *(gzip.BadGzipFile, NotImplementedError, UnicodeError),
)


@dataclass(frozen=True)
class Limits:
    """What an archive may contain.

    Attributes:
        files: Largest number of files and folders.
        ratio: Largest size of the content, relative to the archive. Images are compressed already:
            the archives of all known datasets stay below 20.
        free_bytes: Size of the content up to which the ratio does not matter.
    """

    files: int = 2_000_000
    ratio: float = 100.0
    free_bytes: int = 100 << 20


@dataclass(frozen=True)
class _Member:
    """A file or folder in an archive.

    Attributes:
        name: Its path in the archive, as stored.
        kind: ``file``, ``folder``, or what else it is.
        size: Size in bytes that the archive states.
        open: Opens the content of a file.
    """

    name: str
    kind: str
    size: int
    open: Callable[[], BinaryIO]


def unpack(archive: Path, folder: Path, *, top: str = "", limits: Limits | None = None) -> int:
    """Unpack a zip or tar archive (plain, gz, bz2 or xz) into a new folder.

    The content is unpacked to a temporary folder next to ``folder``, which gets its name only when
    everything is complete. Owners, permissions and times in the archive are ignored.

    Args:
        archive: The archive.
        folder: Folder to make; it must be missing or empty.
        top: Folder in the archive that becomes ``folder``, if it is the only one.
        limits: Bounds of the content.

    Returns:
        The number of files.

    Raises:
        DatasetError: The folder has files, the archive is damaged or of an unknown kind, or a
            member is a link, a device, outside the folder, doubled, or beyond the limits.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DatasetError(f"expected a new or an empty folder to unpack to, found {folder} (--to)")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(
            tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".unpacking", dir=folder.parent)
        )
    except OSError as error:
        raise DatasetError(f"cannot write to {folder.parent}: {error.strerror} (--to)") from error
    try:
        content = partial / "content"
        content.mkdir()
        count = _write_members(archive, content, limits or Limits())
        inner = content / top
        if top and [entry.name for entry in content.iterdir()] == [top] and inner.is_dir():
            content = inner
        if folder.exists():
            folder.rmdir()
        content.rename(folder)
    except DAMAGED as error:
        raise DatasetError(f"cannot unpack {archive}: {str(error) or 'it ends early'}") from error
    except OSError as error:
        raise DatasetError(f"cannot unpack {archive}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return count


def _write_members(archive: Path, root: Path, limits: Limits) -> int:
    """Write all members to a folder; return the number of files."""
    largest = max(limits.free_bytes, limits.ratio * archive.stat().st_size)
    kinds: dict[tuple[str, ...], str] = {}  # of the paths so far
    total = num_files = 0
    for number, member in enumerate(_members(archive)):
        parts = _checked_parts(archive, member)
        if number >= limits.files:
            raise DatasetError(f"expected at most {limits.files} files, found more in {archive}")
        total += member.size
        if total > largest:
            raise DatasetError(
                f"expected at most {largest:.0f} bytes in {archive} ({archive.stat().st_size} "
                f"bytes), found more: {member.name}"
            )
        above = [kinds.setdefault(parts[:length], "folder") for length in range(1, len(parts))]
        is_known = parts in kinds and (member.kind, kinds[parts]) != ("folder", "folder")
        if is_known or "file" in above:
            raise DatasetError(f"expected each name once in {archive}, found two of {member.name}")
        kinds[parts] = member.kind
        target = root.joinpath(*parts)
        if member.kind == "folder":
            target.mkdir(parents=True, exist_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        _write_file(archive, member, target)
        num_files += 1
    return num_files


def _write_file(archive: Path, member: _Member, target: Path) -> None:
    """Write one file, exactly as long as the archive states."""
    left = member.size
    with member.open() as source, target.open("xb") as file:
        while piece := source.read(min(PIECE, left + 1)):
            left -= len(piece)
            file.write(piece)
    if left:
        raise DatasetError(
            f"expected {member.size} bytes of {member.name}, found "
            f"{'fewer' if left > 0 else 'more'} in {archive}"
        )


def _checked_parts(archive: Path, member: _Member) -> tuple[str, ...]:
    """Return the parts of a member's path; empty for the root.

    Raises:
        DatasetError: It leads outside the folder, or is neither a file nor a folder.
    """
    name = member.name
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    is_absolute = name.startswith("/") or any(letter in name for letter in "\\:")
    has_controls = any(letter < " " for letter in name)
    if not name or is_absolute or ".." in parts or has_controls:
        raise DatasetError(
            f"expected names inside the archive's folder, found {name!r} in {archive}"
        )
    if member.kind not in ("file", "folder"):
        raise DatasetError(
            f"expected files and folders only, found {member.kind} {name!r} in {archive}"
        )
    return parts


def _members(archive: Path) -> Iterator[_Member]:
    """Yield the members in the order of the archive; a file is read before the next member."""
    with archive.open("rb") as file:
        start = file.read(8)
    if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        yield from _zip_members(archive)
        return
    opener = next((opener for magic, opener in COMPRESSED if start.startswith(magic)), open)
    with opener(archive, "rb") as file:
        yield from _tar_members(archive, file)
        _check_rest(archive, file)


def _check_rest(archive: Path, file: BinaryIO) -> None:
    """Read a file to its end, where the checksum of a compressed one is compared."""
    left = LARGEST_READ
    while left > 0 and (piece := file.read(PIECE)):
        left -= len(piece)
    if left <= 0:
        raise DatasetError(f"expected the end of {archive}, found {LARGEST_READ} further bytes")


def _zip_members(archive: Path) -> Iterator[_Member]:
    with zipfile.ZipFile(archive) as opened:
        for entry in opened.infolist():
            if entry.flag_bits & 1:
                raise DatasetError(
                    f"expected an archive without a password, found an encrypted one: {archive}"
                )
            mode = stat.S_IFMT(entry.external_attr >> 16)
            kind = {0: "file", stat.S_IFREG: "file", stat.S_IFDIR: "folder"}.get(mode)
            if mode == stat.S_IFLNK:
                kind = "the link"
            if entry.is_dir() and kind == "file":
                kind = "folder"
            # orig_filename: zipfile cuts a name at a NUL and replaces the separators of the system.
            yield _Member(
                entry.orig_filename,
                kind or "the device",
                entry.file_size,
                lambda entry=entry: opened.open(entry),
            )


class _Reading:
    """A file that remembers what was read last.

    Args:
        archive: The archive, for errors.
        file: Its decompressed content.

    Attributes:
        last: The bytes of the last call of `read`.
    """

    def __init__(self, archive: Path, file: BinaryIO):
        self.last = b""
        self._archive, self._file = archive, file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        """Return the next bytes."""
        if size > LARGEST_READ:
            raise DatasetError(
                f"expected headers of at most {LARGEST_READ} bytes, found {size} in {self._archive}"
            )
        self.last = self._file.read(size)
        return self.last


def _tar_members(archive: Path, file: BinaryIO) -> Iterator[_Member]:
    reading = _Reading(archive, file)
    try:
        opened = tarfile.open(fileobj=reading, mode="r:")  # noqa: SIM115 (closed with `file`)
    except tarfile.ReadError as error:
        raise DatasetError(
            f"expected a zip or tar archive (gz, bz2, xz), found something else: {archive}"
        ) from error
    while (entry := opened.next()) is not None:
        opened.members.clear()  # tarfile keeps all of them otherwise
        kind = "file" if entry.isreg() and not entry.issparse() else "the device"
        if entry.isdir():
            kind = "folder"
        elif entry.issym() or entry.islnk():
            kind = "the link"
        elif entry.issparse():
            kind = "the sparse file"
        yield _Member(entry.name, kind, entry.size, lambda entry=entry: opened.extractfile(entry))
    # tarfile takes the end of a cut file for the end of the archive, which is a block of zeros.
    if reading.last != bytes(tarfile.BLOCKSIZE):
        raise DatasetError(f"cannot unpack {archive}: it ends early")
