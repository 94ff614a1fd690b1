"""Download of a large file: resumable, and complete and unchanged when it gets its name."""

import hashlib
import http.client
import logging
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPMessage, HTTPResponse
from pathlib import Path
from urllib.parse import urlsplit

from datasets.base import DatasetError

PIECE = 1 << 20  # bytes that are read at a time
ATTEMPTS = 6  # in a row that bring no further byte
TIMEOUT = 60.0  # seconds without a byte
# HTTP statuses of a server that may answer a later request.
TEMPORARY = frozenset({408, 425, 429, 500, 502, 503, 504})
CUT = (TimeoutError, ConnectionError, http.client.HTTPException, urllib.error.URLError)
RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RemoteFile:
    """A file on a server.

    Attributes:
        url: Its address, http or https.
        size: Size in bytes; 0 if it is not published.
        sha256: SHA-256 of its content, hexadecimal; empty if it is not published.
    """

    url: str
    size: int = 0
    sha256: str = ""


def fetch(
    remote: RemoteFile,
    target: Path,
    *,
    on_bytes: Callable[[int, int], None] = lambda done, total: None,
    wait: float = 2.0,
) -> str:
    """Download a file, or continue an earlier download.

    The bytes are in ``target`` with ``.part`` at the end until all are there. A download continues
    only if the server confirms that the file is still the same one (``If-Range``).

    Args:
        remote: The file, and what is known of it.
        target: Path of the complete file. If it exists, it is only checked.
        on_bytes: Called with the bytes so far and the size of the file.
        wait: Seconds before the second attempt; doubled for each further one.

    Returns:
        The SHA-256 of the file.

    Raises:
        DatasetError: The server cannot be reached, does not have the file or sends another one; the
            connection is cut too often; the size or the digest is wrong; or the disk is full.
    """
    if urlsplit(remote.url).scheme not in ("http", "https"):
        raise DatasetError(f"expected an address with http or https, found {remote.url}")
    part = _Part(target.with_name(f"{target.name}.part"), remote)
    try:
        if not target.exists():
            _fetch_part(part, on_bytes, wait)
            try:
                digest = _check(part.path, remote, "the downloaded file")
            except DatasetError as error:
                part.remove()  # it cannot be continued
                raise DatasetError(f"{error}; the downloaded file was removed") from error
            part.path.rename(target)
            part.remove()
            return digest
        try:
            return _check(target, remote, str(target))
        except DatasetError as error:
            raise DatasetError(f"{error}; move this file elsewhere") from error
    except OSError as error:
        verb, left = ("read", "") if target.exists() else ("write", f"; {part.describe()}")
        raise DatasetError(f"cannot {verb} {target}: {error.strerror or error}{left}") from error


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            digest.update(piece)
    return digest.hexdigest()


class _Part:
    """An incomplete file, and the version of the file on the server that it is a part of.

    Args:
        path: The incomplete file.
        remote: The file on the server.

    Attributes:
        path: The incomplete file.
        source: File with the address and the version.
        remote: The file on the server.
        total: Size of the complete file; 0 before the first answer, and if the server does not
            state it.
    """

    def __init__(self, path: Path, remote: RemoteFile):
        self.path = path
        self.source = path.with_name(f"{path.name}.source")
        self.remote = remote
        self.total = remote.size

    @property
    def size(self) -> int:
        """The number of bytes so far."""
        return self.path.stat().st_size if self.path.exists() else 0

    def version(self) -> str:
        """Return the server's name for the version; empty if the part cannot be continued."""
        if not (self.path.exists() and self.source.exists()):
            return ""
        url, _, version = self.source.read_text(encoding="utf-8").partition("\n")
        return version if url == self.remote.url else ""

    def start(self, headers: HTTPMessage) -> None:
        """Begin with an empty file of the version that an answer names."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_bytes(b"")
        self.source.write_text(f"{self.remote.url}\n{_version(headers)}", encoding="utf-8")

    def describe(self) -> str:
        """Return what is there after an error, and what a further attempt does."""
        if not (self.size and self.version()):
            return "the same command starts from the beginning"
        total = self.total or "an unknown number of"
        return f"{self.size} of {total} bytes are in {self.path}: the same command continues there"

    def remove(self) -> None:
        """Remove the part."""
        self.path.unlink(missing_ok=True)
        self.source.unlink(missing_ok=True)


def _version(headers: HTTPMessage) -> str:
    """Return the server's name for the version of a file; empty if it gives none."""
    tag = headers.get("ETag", "")
    # A weak tag does not promise the same bytes.
    return headers.get("Last-Modified", "") if not tag or tag.startswith("W/") else tag


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to web addresses, and from https only to https."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        """Return the request of the new address."""
        before, after = urlsplit(req.full_url).scheme, urlsplit(newurl).scheme
        if after not in ("http", "https") or (before, after) == ("https", "http"):
            raise DatasetError(f"expected a redirect to https, found {newurl} from {req.full_url}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _fetch_part(part: _Part, on_bytes: Callable[[int, int], None], wait: float) -> None:
    """Fetch all bytes, in several connections if they are cut."""
    failures = 0
    while True:
        before = part.size
        reason = _try_once(part, on_bytes)
        if not reason:
            return
        failures = 1 if part.size > before else failures + 1
        if failures >= ATTEMPTS:
            raise DatasetError(f"cannot download {part.remote.url}: {reason}; {part.describe()}")
        total = part.total or "an unknown number of"
        log.warning("%s at %d of %s bytes; trying again", reason, part.size, total)
        time.sleep(wait * 2 ** (failures - 1))


def _try_once(part: _Part, on_bytes: Callable[[int, int], None]) -> str:
    """Fetch bytes over one connection; return why it ended early, or an empty text."""
    headers = {"User-Agent": "patchcore", "Accept-Encoding": "identity"}
    start, version = part.size, part.version()
    if start and version:
        headers |= {"Range": f"bytes={start}-", "If-Range": version}
    request = urllib.request.Request(part.remote.url, headers=headers)
    opener = urllib.request.build_opener(_SafeRedirects)
    try:
        with opener.open(request, timeout=TIMEOUT) as answer:
            _begin(part, answer, is_continued="Range" in headers)
            return _append(part, answer, on_bytes)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:  # the part has as many bytes as the file, or more
            if error.headers.get("Content-Range") == f"bytes */{part.size}":
                return ""
            part.remove()
            return "the server has fewer bytes than the part"
        if error.code in TEMPORARY:
            return f"the server answered {error.code} {error.reason}"
        raise DatasetError(
            f"cannot download {part.remote.url}: the server answered {error.code} {error.reason}"
        ) from error
    except CUT as error:
        return f"the connection failed ({getattr(error, 'reason', error) or type(error).__name__})"


def _begin(part: _Part, answer: HTTPResponse, *, is_continued: bool) -> None:
    """Check an answer, and start from the beginning unless it continues the part.

    Raises:
        DatasetError: The answer is of another file, or not of a file.
    """
    url, length = part.remote.url, answer.headers.get("Content-Length", "")
    if answer.headers.get_content_type() == "text/html":
        raise DatasetError(f"expected a file at {url}, found a web page")
    if answer.headers.get("Content-Encoding", "identity") != "identity":
        raise DatasetError(f"expected the file itself from {url}, found it encoded")
    if answer.status == 206:
        found = RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        first, last, total = map(int, found.groups()) if found else (-1, -1, -1)
        start, version = part.size, part.version()
        # Some servers continue another version, whatever `If-Range` says.
        is_same = _version(answer.headers) in ("", version)
        if not (is_continued and is_same and first == start and last == total - 1):
            part.remove()
            raise DatasetError(
                f"expected the bytes from {start} on of {url}, found "
                f"{answer.headers.get('Content-Range') or 'no range'}"
                f"{'' if is_same else ' of another version'}; run the command again to start from "
                "the beginning"
            )
    else:
        part.start(answer.headers)
        total = int(length) if length.isdigit() else 0
    if part.remote.size and total not in (0, part.remote.size):
        part.remove()
        raise DatasetError(
            f"expected {part.remote.size} bytes at {url}, found {total}: the dataset was changed"
        )
    if not (total or part.remote.size or answer.chunked):  # a cut would not be noticed
        raise DatasetError(f"expected the size of {url} in the server's answer, found none")
    part.total = total or part.remote.size
    free = shutil.disk_usage(part.path.parent).free
    if free < part.total - part.size:
        raise DatasetError(
            f"expected {part.total - part.size} free bytes in {part.path.parent}, found {free}; "
            f"{part.describe()}"
        )


def _append(part: _Part, answer: HTTPResponse, on_bytes: Callable[[int, int], None]) -> str:
    """Append an answer's bytes to the part; return why it ended early, or an empty text."""
    done = part.size
    with part.path.open("ab") as file:
        while piece := _read(answer, min(PIECE, part.total - done + 1) if part.total else PIECE):
            done += len(piece)
            file.write(piece)
            on_bytes(done, part.total)
    if not part.total:  # an answer in chunks is complete, or raises an error
        return ""
    if done > part.total:
        part.remove()
        raise DatasetError(
            f"expected {part.total} bytes from {part.remote.url}, found more; run the command "
            "again to start from the beginning"
        )
    return "" if done == part.total else "the connection was cut"


def _read(answer: HTTPResponse, size: int) -> bytes:
    """Return the next bytes of an answer.

    Raises:
        ConnectionError, http.client.HTTPException: The connection is cut.
    """
    try:
        return answer.read(size)
    except OSError as error:  # also of TLS; the part is written elsewhere
        raise ConnectionError(error.strerror or str(error)) from error


def _check(path: Path, remote: RemoteFile, what: str) -> str:
    """Return the digest of a complete file.

    Args:
        path: The file.
        remote: What is known of it.
        what: Its name in the error.

    Raises:
        DatasetError: The size or the digest is not the published one.
    """
    size, digest = path.stat().st_size, file_digest(path)
    faults = []
    if remote.size and size != remote.size:
        faults.append(f"expected {remote.size} bytes of {remote.url}, found {size} in {what}")
    if remote.sha256 and digest != remote.sha256.lower():
        faults.append(f"expected SHA-256 {remote.sha256} of {remote.url}, found {digest} in {what}")
    if faults:
        raise DatasetError(
            f"{'; '.join(faults)} (--sha256 if a new version of the dataset was published)"
        )
    return digest
