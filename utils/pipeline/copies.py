"""Copies of images: each different image is learned once, and none is tested that was learned."""

import hashlib
import logging
from collections.abc import Callable, Hashable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from datasets.base import Category, Sample, UnusableFilesError
from datasets.notes import Notes
from utils.pipeline.reading import Reading
from utils.results import numbered

log = logging.getLogger(__name__)


def without_copies(category: Category, reading: Reading) -> Category:
    """Return a category in which each different training image is once; log the number of copies.

    Copies are images of the same pixels: the same file by two paths or links, or other files, in
    any format without loss. Copies would count as different images for a threshold's rate.

    Args:
        category: The category; the first of several copies is kept.
        reading: How the images are read.

    Raises:
        DatasetError: A file cannot be read.
    """
    first: dict[bytes, Sample] = {}
    copies: list[tuple[Sample, Sample]] = []
    digests = _digests(category.train, reading)
    for sample, digest in zip(category.train, digests, strict=True):
        if digest in first:
            copies.append((sample, first[digest]))
        else:
            first[digest] = sample
    if not copies:
        return category
    copy, original = copies[0]
    log.info(
        "%s: duplicates among the training images are skipped: %d of %d (for example %s, of %s); "
        "--keep_copies learns them too",
        category.name,
        len(copies),
        len(category.train),
        copy.path,
        original.path,
    )
    return replace(category, train=tuple(first.values()))


def _digests(samples: Sequence[Sample], reading: Reading) -> list[bytes]:
    """Return the digest of each image's pixels at full size; a file is decoded once."""
    files = [_identity(sample.path) for sample in samples]
    paths: dict[tuple[int, int], Path] = {}
    for file, sample in zip(files, samples, strict=True):
        paths.setdefault(file, sample.path)
    apart = replace(reading, notes=Notes())  # the fit reads the images again, and notes them
    batches = apart.batches(
        lambda path: image_digest(apart.image(path)), paths.values(), lambda p: p
    )
    decoded = [digest for batch in batches for digest in batch]
    digest_of_file = dict(zip(paths, decoded, strict=True))
    return [digest_of_file[file] for file in files]


def describe_leak(category: Category) -> str:
    """Return a note about test images with the same file as a training image; empty if none has.

    `check` also finds equal pixels in different files, for which it reads all images.

    Args:
        category: The samples; published datasets are known to have no such images.
    """
    if category.benchmark:
        return ""
    train, test = ([sample.path for sample in part] for part in (category.train, category.test))
    for key in (_num_bytes, _middle_of, _file_digest):  # so that few files are read in full
        keys = _keys((*train, *test), key)
        common = {keys.get(path) for path in train} & {keys.get(path) for path in test} - {None}
        train, test = ([p for p in part if keys.get(p) in common] for part in (train, test))
    if not test:
        return ""
    copy = min(test)
    original = next(path for path in train if keys[path] == keys[copy])
    return (
        f"{len(test)} of {numbered(len(category.test), 'test image')} are copies of training "
        f"images, for example {copy} of {original}: the results are better than for new images "
        "(check lists all)"
    )


def _keys(paths: Iterable[Path], key: Callable[[Path], Hashable]) -> dict[Path, Hashable]:
    """Return the keys of files; those that cannot be read are reported as their images are read."""
    keys = {}
    for path in paths:
        with suppress(OSError):
            keys[path] = key(path)
    return keys


def _num_bytes(path: Path) -> int:
    return path.stat().st_size


def _middle_of(path: Path) -> bytes:
    """Return 4 KiB of the middle, where uncompressed images of one size differ."""
    with path.open("rb") as file:
        file.seek(path.stat().st_size // 2)
        return file.read(4096)


def _file_digest(path: Path) -> bytes:
    return hashlib.blake2b(path.read_bytes(), digest_size=16).digest()


def _identity(path: Path) -> tuple[int, int]:
    """Return the numbers of a file, which are the same for all its names and links."""
    try:
        status = path.stat()
    except OSError as error:
        reason = f"cannot read {path}: {error.strerror or error}"
        raise UnusableFilesError({str(path): reason}) from error
    return status.st_dev, status.st_ino


def image_digest(image: np.ndarray) -> bytes:
    """Return the digest of the pixels and the size of an image (H, W, 3) uint8."""
    digest = hashlib.blake2b(image.tobytes(), digest_size=16)
    digest.update(str(image.shape).encode())
    return digest.digest()
