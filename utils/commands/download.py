"""`main.py download`: download, check and unpack a published dataset."""

import logging
from dataclasses import replace
from pathlib import Path

from datasets.archives import unpack
from datasets.base import DatasetError
from datasets.downloads import DOWNLOADS, NEEDS_FORM, Download, find_published
from datasets.published import Published
from datasets.transport import RemoteFile, fetch, file_digest
from utils.errors import UsageError, named_flag
from utils.options.download import DownloadOptions
from utils.options.flags import parse_flags
from utils.progress import show_progress
from utils.results import numbered

DESCRIPTION = """Download a published dataset and unpack it to a folder. The same command
continues an interrupted download. The archive is checked before it is unpacked; the folder gets its
name only when it is complete."""

log = logging.getLogger(__name__)


def main(arguments: list[str], *, epilog: str = "") -> None:
    """Run the command."""
    options = parse_flags(
        arguments, DownloadOptions(), command="download", description=DESCRIPTION, epilog=epilog
    )
    options.check()
    dataset = find_published(options.names[0])
    known = DOWNLOADS.get(dataset.key, Download("", RemoteFile("")))
    folder = Path(options.to)
    with named_flag("--to"):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UsageError(f"expected a new or an empty folder, found {folder} (--to)")
    if options.archive:
        archive = Path(options.archive)
        _check_given(archive, dataset, known.remote, options.sha256)
    else:
        archive = _download(dataset, known, folder, options)
    count = unpack(archive, folder, top=known.top)
    if not (options.archive or options.keep_archive):
        archive.unlink()
    log.info("%s: %s in %s", dataset.name, numbered(count, "file"), folder)


def _download(dataset: Published, known: Download, folder: Path, options: DownloadOptions) -> Path:
    """Download the archive to the parent of the folder; return its path.

    Raises:
        UsageError: The dataset has no public address, or its licence is not accepted.
        DatasetError: The download fails.
    """
    if not known.remote.url:
        form = "form" if dataset.key in NEEDS_FORM else "instructions"
        raise UsageError(
            f"{dataset.name} has no public address of an archive: follow the {form} at "
            f"{dataset.address}, then run python main.py download {dataset.key} --archive FILE "
            f"--to {folder}"
        )
    if not options.accept_licence:
        raise UsageError(
            f"{dataset.name} has a licence: {dataset.licence} ({dataset.address}; cite "
            f"{dataset.paper}). Read it, and give --accept_licence if you accept it"
        )
    remote = known.remote
    if options.sha256:  # of another version of the archive, which may have another size
        remote = replace(remote, sha256=options.sha256, size=0)
    log.info("%s, licence %s, from %s", dataset.name, dataset.licence, remote.url)
    archive = folder.parent / known.file_name
    with show_progress(remote.size, known.file_name, "B") as bar:

        def on_bytes(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        digest = fetch(remote, archive, on_bytes=on_bytes)
    if not remote.sha256:
        log.warning(
            "no digest of %s is published: its SHA-256 is %s; give it as --sha256 to get the same "
            "file again",
            known.file_name,
            digest,
        )
    return archive


def _check_given(archive: Path, dataset: Published, remote: RemoteFile, sha256: str) -> None:
    """Compare the digest of a user's archive with the expected one.

    A published digest is of one form of the archive, and other forms may be valid: a difference
    is reported. A difference from ``--sha256`` is an error.

    Raises:
        DatasetError: The digest is not that of ``--sha256``, or the file cannot be read.
    """
    if not (sha256 or remote.sha256):
        return
    try:
        digest = file_digest(archive)
    except OSError as error:
        raise DatasetError(f"cannot read {archive}: {error.strerror} (--archive)") from error
    if sha256 and digest != sha256.lower():
        raise DatasetError(f"expected SHA-256 {sha256} of {archive} (--sha256), found {digest}")
    if not sha256 and digest != remote.sha256:
        log.warning(
            "%s is not the known archive of %s: expected SHA-256 %s, found %s (--sha256)",
            archive,
            dataset.name,
            remote.sha256,
            digest,
        )
