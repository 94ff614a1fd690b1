"""Copies of images: each different image is learned once, and none is tested that was learned."""

import hashlib
import logging
import os
from collections.abc import Sequence
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
    train, test = (_by_size(samples) for samples in (category.train, category.test))
    sizes = train.keys() & test.keys()  # only these files are read
    first = {_file_digest(path): path for size in sizes for path in reversed(train[size])}
    paths = (path for size in sizes for path in test[size])
    pairs = [(path, first[found]) for path in paths if (found := _file_digest(path)) in first]
    if not pairs:
        return ""
    copy, original = min(pairs)
    return (
        f"{len(pairs)} of {numbered(len(category.test), 'test image')} are copies of training "
        f"images, for example {copy} of {original}: the results are better than for new images "
        "(check lists all)"
    )


def _by_size(samples: Sequence[Sample]) -> dict[int, list[Path]]:
    """Return the files by their number of bytes; missing ones are reported when they are read."""
    sizes: dict[int, list[Path]] = {}
    for path in (sample.path for sample in samples):
        with suppress(OSError):
            sizes.setdefault(path.stat().st_size, []).append(path)
    return sizes


def _file_digest(path: Path) -> bytes:
    """Return the digest of a file; if it cannot be read, of its name, which no other file has."""
    try:
        content = path.read_bytes()
    except OSError:
        content = os.fsencode(path)
    return hashlib.blake2b(content, digest_size=16).digest()


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
