"""Terms that all layouts share: sample, mask, category, skipped file, and the error."""

import difflib
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

GOOD = "good"
# Folders of archives of macOS, of network storage (with small copies of images), of file systems.
SYSTEM_FOLDERS = frozenset(
    {"__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found"}
)
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a question that ends a message about an unknown name; empty if none is similar."""
    by_lower = {one.lower(): one for one in known}
    close = difflib.get_close_matches(name.lower(), by_lower)
    return f". Did you mean {' or '.join(by_lower[one] for one in close)}?" if close else ""


class DatasetError(Exception):
    """Data on disk cannot be used; the message names the path and what was expected there."""


class UnusableFilesError(DatasetError):
    """Single images or masks cannot be used; without them, the others can.

    Attributes:
        reasons: Why, by path.

    Args:
        reasons: Likewise, at least one; the message is the first one.
    """

    def __init__(self, reasons: Mapping[str, str]):
        super().__init__(next(iter(reasons.values())))
        self.reasons = dict(reasons)

    def joined(self, others: Iterable["UnusableFilesError"]) -> "UnusableFilesError":
        """Return the error of all these files, which several processes have read."""
        return UnusableFilesError({p: r for one in (self, *others) for p, r in one.reasons.items()})

    def __reduce__(self) -> tuple:
        return type(self), (self.reasons,)  # by default it would be made of the message


def is_hidden(name: str) -> bool:
    """Return whether the name of a file or folder means that it is not the user's."""
    # Operating systems create files such as `._000.png` in folders of images.
    return name.startswith(".") or name in SYSTEM_FOLDERS


def is_image(path: Path) -> bool:
    """Return whether a file is an image, by its name; hidden files are not."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not is_hidden(path.name)


@dataclass(frozen=True)
class MaskFiles:
    """The ground-truth mask of an image, drawn in image files.

    Attributes:
        paths: At least one file of the image's size; their defective regions are joined.
    """

    paths: tuple[Path, ...]

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that are read."""
        return self.paths

    def with_files(self, other: Callable[[Path], Path]) -> "MaskFiles":
        """Return the mask with other names of its files."""
        return MaskFiles(tuple(map(other, self.paths)))


@dataclass(frozen=True)
class Polygon:
    """A region inside a closed line.

    Attributes:
        points: (x, y) of each corner in pixels, at least three; (0, 0) is the upper left corner of
            the upper left pixel.
    """

    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Ellipse:
    """A region inside an axis-parallel ellipse.

    Attributes:
        centre: (x, y) in pixels, as in `Polygon`.
        radii: Horizontal and vertical radius in pixels.
    """

    centre: tuple[float, float]
    radii: tuple[float, float]


@dataclass(frozen=True)
class RunLengths:
    """A region as run lengths: numbers of pixels outside and inside, alternately.

    Attributes:
        size: (height, width) of the image.
        counts: Lengths of the runs down the columns, from left to right, beginning outside; or the
            text that COCO compresses them to.
    """

    size: tuple[int, int]
    counts: tuple[int, ...] | str


@dataclass(frozen=True)
class MaskShapes:
    """The ground-truth mask of an image, as shapes in an annotation file.

    Attributes:
        source: The annotation file.
        shapes: At least one defective region; they are joined.
        size: (height, width) of the image that they were drawn on; None if it is not known.
    """

    source: Path
    shapes: tuple[Polygon | Ellipse | RunLengths, ...]
    size: tuple[int, int] | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that are read."""
        return (self.source,)

    def with_files(self, other: Callable[[Path], Path]) -> "MaskShapes":
        """Return the mask with another name of its file."""
        return replace(self, source=other(self.source))


@dataclass(frozen=True)
class Saturation:
    """How much of a defect region must be found (Bergmann et al. 2022, section 4.1).

    The region is fully localized if at least this area of it is found.

    Attributes:
        defect: Name of the defect.
        pixel_value: Value of the region's pixels in its mask file.
        threshold: Area in pixels of the mask file, or share of the region's area, in (0, 1].
        is_relative: Whether `threshold` is a share.

    Raises:
        ValueError: The threshold is not positive, or is a share above 1.
    """

    defect: str
    pixel_value: int
    threshold: float
    is_relative: bool

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= (1 if self.is_relative else math.inf):
            raise ValueError(f"a saturation threshold of {self.threshold:g}")

    def share(self, area: int) -> float:
        """Return the share, in (0, 1], of a region of ``area`` pixels that must be found."""
        return self.threshold if self.is_relative else min(self.threshold / area, 1.0)


@dataclass(frozen=True)
class LeftOut:
    """A file that was found with the images and is not used.

    Attributes:
        path: The file.
        reason: Why it is not used, in a few words that are the same for all such files.
        by_split: Whether the split leaves it out, as in the published protocols.
    """

    path: Path
    reason: str
    by_split: bool = False


@dataclass(frozen=True)
class Sample:
    """One image on disk.

    Attributes:
        path: The image file.
        category: Name of the category, for example ``bottle``.
        defect_type: ``good``, or the name of the defect, for example ``broken_large``.
        mask: The ground-truth mask of a defective image; None for a good image, and for a
            defective image without a mask.
        name: Name in the names of figures, where it follows the defect type, so that they differ;
            the stem of the file by default.
    """

    path: Path
    category: str
    defect_type: str
    mask: MaskFiles | MaskShapes | None = None
    name: str = ""

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", self.path.stem)

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that are read: the image, then its mask."""
        return (self.path, *(() if self.mask is None else self.mask.files))

    def with_files(self, other: Callable[[Path], Path]) -> "Sample":
        """Return the sample with other names of its files."""
        mask = None if self.mask is None else self.mask.with_files(other)
        return replace(self, path=other(self.path), mask=mask)

    @property
    def is_defective(self) -> bool:
        """Whether the image shows a defect: the label for the metrics."""
        return self.defect_type != GOOD

    @property
    def has_ground_truth(self) -> bool:
        """Whether the defective pixels are known; a good image has none."""
        return not self.is_defective or self.mask is not None


@dataclass(frozen=True)
class Category:
    """The samples of one category, in a fixed order.

    Attributes:
        name: Name of the category, as in the tables.
        train: Good samples only; never empty.
        test: Good and defective samples; empty only if the test images were not read.
        has_masks: Whether any defective test sample has a ground-truth mask. Pixels are measured on
            the samples with `Sample.has_ground_truth`.
        left_out: Files that were found with the images and are not used.
        notes: What was assumed or cannot be measured, one sentence each.
        facts: What was done as it should be, likewise: how images were held out, for example.
        benchmark: Name of the published dataset that has this category; empty for other data.
        saturations: Saturation thresholds of the mask files; empty without.
    """

    name: str
    train: tuple[Sample, ...]
    test: tuple[Sample, ...]
    has_masks: bool
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()
    facts: tuple[str, ...] = ()
    benchmark: str = ""
    saturations: tuple[Saturation, ...] = ()

    def describe(self) -> str:
        """Return the counts, for example ``209 training, 83 test images (20 good, ...)``."""
        counts = Counter(sample.defect_type for sample in self.test)
        parts = ", ".join(f"{count} {name}" for name, count in counts.items())
        num_test, num_train = len(self.test), len(self.train)
        tested = f", {num_test} test {_images(num_test)} ({parts})" if num_test else ""
        return f"{num_train} training{tested or f' {_images(num_train)}'}"

    def without(self, paths: Collection[str]) -> "Category":
        """Return the category without the samples with one of these images or masks."""

        def keeps(sample: Sample) -> bool:
            return not any(str(path) in paths for path in sample.files)

        train, test = (tuple(filter(keeps, part)) for part in (self.train, self.test))
        has_masks = any(sample.mask is not None for sample in test)
        return replace(self, train=train, test=test, has_masks=self.has_masks and has_masks)

    def remarks(self) -> list[str]:
        """Return the facts and notes, and for each reason the number of skipped files."""
        return [*self.facts, *self.notes, *_count(self.left_out)]

    def findings(self) -> list[str]:
        """Return those remarks that may be faults of the data."""
        return [*self.notes, *_count([left for left in self.left_out if not left.by_split])]


def _images(count: int) -> str:
    return "image" if count == 1 else "images"


def _count(left_out: Sequence[LeftOut]) -> list[str]:
    reasons = Counter(left.reason for left in left_out)
    first = {left.reason: left.path for left in reversed(left_out)}
    return [
        f"{count} {'file' if count == 1 else 'files'} skipped: {reason} "
        f"({'' if count == 1 else 'for example '}{first[reason]})"
        for reason, count in reasons.items()
    ]
