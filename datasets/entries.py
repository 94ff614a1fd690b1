"""From the images that a layout finds to a category: split, hold-out, order, and reports."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from datasets.base import (
    GOOD,
    Category,
    DatasetError,
    LeftOut,
    MaskFiles,
    MaskShapes,
    Sample,
)
from datasets.listing import as_name

TRAIN, TEST, VALIDATION, UNSPLIT = "train", "test", "validation", ""
DEFAULT_HOLDOUT = 0.2
# Names of splits in lists, files and folders.
SPLIT_NAMES = {
    **{"train": TRAIN, "training": TRAIN, "test": TEST, "testing": TEST},
    **{"validation": VALIDATION, "valid": VALIDATION, "val": VALIDATION, "": UNSPLIT},
}


@dataclass(frozen=True)
class ReadOptions:
    """What to read of a dataset.

    Attributes:
        training_only: Whether to list the training samples alone; no test image need exist.
        holdout: Share of the good images that is held out for testing, in (0, 1), where the data
            have no split.
        seed: Seed of this choice.
        normal_dir: Folder of good images in a category of the plain layout; empty for the usual
            names.
        abnormal_dir: Folders of defective images there; empty for all other folders.
        mask_dir: Folder of masks there; empty for the usual names.
    """

    training_only: bool = False
    holdout: float = DEFAULT_HOLDOUT
    seed: int = 0
    normal_dir: str = ""
    abnormal_dir: tuple[str, ...] = ()
    mask_dir: str = ""

    def lists(self, split: str) -> bool:
        """Return whether the images of a split are listed."""
        return not self.training_only or split in (TRAIN, UNSPLIT)


@dataclass(frozen=True)
class Entry:
    """An image that a layout found.

    Attributes:
        path: The image file.
        defect_type: ``good``, or what the data call the defect.
        split: ``train``, ``test``, ``validation``, or empty if the data have no split.
        mask: Ground-truth mask of a defective image, if there is one.
    """

    path: Path
    defect_type: str
    split: str
    mask: MaskFiles | MaskShapes | None = None


def make_category(
    root: Path,
    name: str,
    entries: Iterable[Entry],
    options: ReadOptions,
    *,
    left_out: Sequence[LeftOut] = (),
    notes: Sequence[str] = (),
    facts: Sequence[str] = (),
) -> Category:
    """Make a category of the images that a layout found.

    Good images without a split are divided by `ReadOptions.holdout`; defective ones are tested. The
    order of the entries is kept; in the test set good images come first, then the defect types in
    order of names.

    Args:
        root: Folder of the category; the hold-out depends on the paths below it.
        name: Name of the category.
        entries: The images.
        options: What to read.
        left_out: Files that the layout skipped.
        notes: What the layout assumed.
        facts: What is to be known about the images.

    Raises:
        DatasetError: An image is there twice, there is no training image, or no test image although
            one is expected.
    """
    entries, merged = _with_names(entries)
    if len({entry.path for entry in entries}) < len(entries):
        (file, _), *_ = Counter(entry.path for entry in entries).most_common(1)
        raise DatasetError(f"expected each image once, found {file} twice in {root}")
    notes, facts = [*notes, *merged], list(facts)
    is_split = any(entry.split for entry in entries)
    held_out = set() if options.training_only else _hold_out(root, entries, options)
    train = [
        e for e in entries
        if e.defect_type == GOOD and (e.split == TRAIN or (not e.split and e.path not in held_out))
    ]  # fmt: skip
    if not train:
        raise DatasetError(
            f"expected training images without defects of {name} in {root}, found none"
        )
    unused = [*left_out, *_unused(entries)]
    if options.training_only:
        if not is_split:
            facts.append("the data have no split: all good images are training images")
        samples = _samples(name, root, train)
        return Category(
            name,
            samples,
            (),
            has_masks=False,
            left_out=tuple(unused),
            notes=tuple(notes),
            facts=tuple(facts),
        )
    test = [
        e for e in entries
        if e.split == TEST or (not e.split and (e.defect_type != GOOD or e.path in held_out))
    ]  # fmt: skip
    if not test:
        raise DatasetError(
            f"expected test images of {name} in {root}, found none; train learns a category "
            "without test images"
        )
    test.sort(key=lambda entry: (entry.defect_type != GOOD, entry.defect_type))
    if held_out:
        facts.append(
            f"{len(held_out)} of {len(held_out) + sum(not e.split for e in train)} good images "
            f"are held out for testing (--holdout {options.holdout:g}, --seed {options.seed})"
        )
    elif options.holdout != DEFAULT_HOLDOUT:
        facts.append("--holdout has no effect: the data have a split")
    samples = _samples(name, root, test)
    return Category(
        name,
        _samples(name, root, train),
        samples,
        has_masks=any(sample.mask is not None for sample in samples),
        left_out=tuple(unused),
        notes=(*notes, *_gaps(samples)),
        facts=tuple(facts),
    )


def _with_names(entries: Iterable[Entry]) -> tuple[list[Entry], list[str]]:
    """Return entries with defect types for file names, and a note if several have the same one."""
    entries = list(entries)
    texts: dict[str, set[str]] = {}
    for text in {entry.defect_type for entry in entries}:
        texts.setdefault(as_name(text), set()).add(text)
    names = {text: name for name, found in texts.items() for text in found}
    notes = [
        f"defect types with one file name, counted as one: {', '.join(sorted(found))}"
        for _, found in sorted(texts.items())
        if len(found) > 1
    ]
    return [replace(e, defect_type=names[e.defect_type]) for e in entries], notes


def _hold_out(root: Path, entries: Sequence[Entry], options: ReadOptions) -> set[Path]:
    """Choose good images without a split; the choice depends on their names and the seed alone."""
    good = [entry.path for entry in entries if not entry.split and entry.defect_type == GOOD]

    def rank(path: Path) -> bytes:
        text = f"{options.seed}/{relative_name(path, root)}"
        return hashlib.sha256(text.encode(errors="surrogatepass")).digest()

    count = min(max(round(options.holdout * len(good)), 1), len(good) - 1)
    return set(sorted(good, key=rank)[:count])


def _unused(entries: Sequence[Entry]) -> list[LeftOut]:
    """Return the images of a split that are neither learned nor tested."""
    reasons = {TRAIN: "defective images of the training split", VALIDATION: "validation images"}
    return [
        LeftOut(entry.path, reasons[entry.split], by_split=True)
        for entry in entries
        if entry.split == VALIDATION or (entry.split == TRAIN and entry.defect_type != GOOD)
    ]


def _samples(name: str, root: Path, entries: Sequence[Entry]) -> tuple[Sample, ...]:
    """Return samples, each with a name of its own: its stem, or else its path below the root.

    Names differ after their defect types and without regard to case, as in names of figures.
    """

    def in_figures(entry: Entry, title: str) -> str:
        return f"{entry.defect_type}_{title}".lower()

    stems = Counter(in_figures(entry, entry.path.stem) for entry in entries)
    taken = {stem for stem, count in stems.items() if count == 1}
    samples = []
    for entry in entries:
        title = entry.path.stem
        if stems[in_figures(entry, title)] > 1:
            title = relative_name(entry.path.with_suffix(""), root).strip("/").replace("/", "_")
            while in_figures(entry, title) in taken:
                title += "_"
            taken.add(in_figures(entry, title))
        samples.append(Sample(entry.path, name, entry.defect_type, entry.mask, title))
    return tuple(samples)


def relative_name(path: Path, root: Path) -> str:
    """Return a file's path relative to the dataset's folder, with ``/`` on every system."""
    return (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()


def _gaps(test: Sequence[Sample]) -> list[str]:
    """Return what the test images do not allow to measure, and why."""
    defective = [sample for sample in test if sample.is_defective]
    if not defective:
        return ["no test image is defective: there are no metrics"]
    gaps = []
    if len(defective) == len(test):
        gaps.append("no test image is good: there are no metrics of images")
    missing = sum(not sample.has_ground_truth for sample in defective)
    if missing == len(defective):
        gaps.append("no defective test image has a mask: there are no metrics of pixels")
    elif missing:
        gaps.append(
            f"{missing} of {len(defective)} defective test images have no mask: metrics of pixels "
            "do not include them"
        )
    return gaps


def split_named(text: str, source: Path) -> str:
    """Return the split of this name: ``train``, ``test``, ``validation``, or empty.

    Args:
        text: Name of a split, such as ``training`` or ``val``, in any case.
        source: File that has it, for the error.

    Raises:
        DatasetError: No split has this name.
    """
    if text.lower() not in SPLIT_NAMES:
        raise DatasetError(
            f"expected the split train, test, validation or nothing, found {text!r} in {source}"
        )
    return SPLIT_NAMES[text.lower()]


def split_in(name: str) -> str:
    """Return the split that a word of a name stands for, such as ``val`` of ``val2017``."""
    splits = (SPLIT_NAMES.get(word, UNSPLIT) for word in re.findall("[a-z]+", name.lower()))
    return next(filter(None, splits), UNSPLIT)
