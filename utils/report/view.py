"""What the page shows of one category at one percentage, and how that becomes JSON."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote


@dataclass(frozen=True)
class ReportImage:
    """One test image.

    Attributes:
        defect_type: ``good`` or the name of what is wrong.
        file: Its name, as the page writes it.
        score: Its anomaly score.
        defective: Whether it shows a defect.
        thumbnail: The file with three views side by side (image, map, what it was compared with);
            None where no pictures were drawn.
        localization: The large picture's file; None where there is none.
        explanation: The explanation picture's file; None where there is none.
        patches: Records of its most anomalous patches: ``row``, ``column``, ``score`` and
            ``nearest``, a list of records with ``file``, ``row``, ``column``, ``flip``,
            ``distance``.
    """

    defect_type: str
    file: str
    score: float
    defective: bool
    thumbnail: str | None = None
    localization: str | None = None
    explanation: str | None = None
    patches: Sequence[Mapping[str, object]] = ()

    def to_record(self) -> dict[str, object]:
        """Return what the page's script reads, with short names: there are thousands."""
        return {
            "type": self.defect_type,
            "file": self.file,
            "score": self.score,
            "bad": self.defective,
            "thumb": as_url(self.thumbnail),
            "large": as_url(self.localization),
            "why": as_url(self.explanation),
            "patches": [
                [
                    *(patch["row"], patch["column"], _short(patch["score"])),
                    [
                        [
                            *(n[key] for key in ("file", "row", "column", "flip")),
                            _short(n["distance"]),
                        ]
                        for n in patch["nearest"]
                    ],
                ]
                for patch in self.patches
            ],
        }


@dataclass(frozen=True)
class ReportView:
    """One category at one percentage.

    Attributes:
        category: Its name.
        percentage: The coreset's share.
        threshold: From which an image counts as defective; NaN where nothing was measured.
        images: The test images.
        aspect: Width of the images by their height.
        distribution: The file with the picture of the scores; None where there is none.
    """

    category: str
    percentage: float
    threshold: float
    images: Sequence[ReportImage]
    aspect: float = 1.0
    distribution: str | None = None

    def to_record(self) -> dict[str, object]:
        """Return what the page's script reads."""
        return {
            "category": self.category,
            "percentage": self.percentage,
            # JSON has no NaN; without a threshold no image is found defective.
            "threshold": None if math.isnan(self.threshold) else self.threshold,
            "aspect": self.aspect,
            "distribution": as_url(self.distribution),
            "images": [image.to_record() for image in self.images],
        }


def as_url(name: str | None) -> str | None:
    """Return a file's relative address, whatever letters its name has."""
    return None if name is None else quote(os.fsencode(name))


def _short(value: float) -> float:
    return float(f"{value:.4g}")
