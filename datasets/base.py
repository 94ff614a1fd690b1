"""Terms that all layouts share: a sample, a category, an image file, and the error."""

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
class Sample:
    """One image on disk.

    Attributes:
        path: The image file.
        category: Name of the category, for example ``bottle``.
        defect_type: ``good``, or the name of the defect, for example ``broken_large``.
        mask_path: The ground-truth mask of a defective image; None for a good image, and for a
            defective image of a category without masks.
    """

    path: Path
    category: str
    defect_type: str
    mask_path: Path | None = None

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
    """

    name: str
    train: tuple[Sample, ...]
    test: tuple[Sample, ...]
    has_masks: bool

    def describe(self) -> str:
        """Return the counts, for example ``209 training, 83 test images (20 good, ...)``."""
        counts = Counter(sample.defect_type for sample in self.test)
        parts = ", ".join(f"{count} {name}" for name, count in counts.items())
        return f"{len(self.train)} training, {len(self.test)} test images ({parts})"
