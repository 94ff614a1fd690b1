"""The vocabulary of every layout: a sample, a category, and what is wrong with a folder."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

GOOD = "good"


class DatasetError(Exception):
    """Data on disk that cannot be used; the message names the path and what was expected there."""


@dataclass(frozen=True)
class Sample:
    """One picture on disk.

    Attributes:
        path: The image file.
        category: What is inspected, e.g. ``bottle``.
        defect_type: ``good`` or the name of what is wrong, e.g. ``broken_large``.
        mask_path: The ground-truth mask of a defective image; None for a good one, and for a
            defective one of a category that has no masks at all.
    """

    path: Path
    category: str
    defect_type: str
    mask_path: Path | None = None

    @property
    def is_defective(self) -> bool:
        """Whether the image shows a defect: the label that the metrics use."""
        return self.defect_type != GOOD


@dataclass(frozen=True)
class Category:
    """The samples of one category, in a fixed order.

    Attributes:
        name: Its name, as in the tables.
        train: Good samples only; never empty.
        test: Good and defective samples; never empty but where only training was asked for.
        has_masks: Whether its defective test samples have ground-truth masks (all do, or none).
    """

    name: str
    train: tuple[Sample, ...]
    test: tuple[Sample, ...]
    has_masks: bool

    def describe(self) -> str:
        """One line with the counts, e.g. ``209 training, 83 test images (20 good, ...)``."""
        counts = Counter(sample.defect_type for sample in self.test)
        parts = ", ".join(f"{count} {name}" for name, count in counts.items())
        return f"{len(self.train)} training, {len(self.test)} test images ({parts})"
