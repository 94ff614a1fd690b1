"""Terms that all layouts share: a sample, its mask, a category, an image file, and the error."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

GOOD = "good"
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})


class DatasetError(Exception):
    """Data on disk cannot be used; the message names the path and what was expected there."""


def is_image(path: Path) -> bool:
    """Return whether a file is an image, by its name; hidden files are not."""
    # Operating systems leave hidden files such as `._000.png` beside images.
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


@dataclass(frozen=True)
class MaskFiles:
    """The ground-truth mask of an image, drawn in image files.

    Attributes:
        paths: At least one file of the image's size; their defective regions are joined.
    """

    paths: tuple[Path, ...]

    def __str__(self) -> str:
        return ", ".join(map(str, self.paths))


@dataclass(frozen=True)
class LeftOut:
    """A file that was found with the images and is not used.

    Attributes:
        path: The file.
        reason: Why it is not used, in a few words that are the same for all such files.
    """

    path: Path
    reason: str


@dataclass(frozen=True)
class Sample:
    """One image on disk.

    Attributes:
        path: The image file.
        category: Name of the category, for example ``bottle``.
        defect_type: ``good``, or the name of the defect, for example ``broken_large``.
        mask: The ground-truth mask of a defective image; None for a good image, and for a
            defective image of a category without masks.
    """

    path: Path
    category: str
    defect_type: str
    mask: MaskFiles | None = None

    @property
    def is_defective(self) -> bool:
        """Whether the image shows a defect: the label for the metrics."""
        return self.defect_type != GOOD


@dataclass(frozen=True)
class Category:
    """The samples of one category, in a fixed order.

    Attributes:
        name: Name of the category, as in the tables.
        train: Good samples only; never empty.
        test: Good and defective samples; empty only if the test images were not read.
        has_masks: Whether the defective test samples have ground-truth masks (all or none).
        left_out: Files that were found with the images and are not used.
        benchmark: Name of the published dataset that has this category; empty for other data.
    """

    name: str
    train: tuple[Sample, ...]
    test: tuple[Sample, ...]
    has_masks: bool
    left_out: tuple[LeftOut, ...] = ()
    benchmark: str = ""

    def describe(self) -> str:
        """Return the counts, for example ``209 training, 83 test images (20 good, ...)``."""
        counts = Counter(sample.defect_type for sample in self.test)
        parts = ", ".join(f"{count} {name}" for name, count in counts.items())
        return f"{len(self.train)} training, {len(self.test)} test images ({parts})"
