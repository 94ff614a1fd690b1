"""Data of the report page: the test images of a category, as JSON for the page's script."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from utils.results import Setting


@dataclass(frozen=True)
class ReportImage:
    """One test image.

    Attributes:
        defect_type: ``good`` or the name of the defect.
        file: Name that the page shows.
        score: Anomaly score.
        defective: Whether the image shows a defect.
        thumbnail: File with three views side by side (the image, its anomaly map, the image rebuilt
            from its nearest training patches); None if it was not drawn.
        localization: File of the localization figure; None if it was not drawn.
        explanation: File of the explanation figure; None if it was not drawn.
        patches: Records of the most anomalous patches: ``row``, ``column``, ``score`` and
            ``nearest``, a list of records with ``file``, ``row``, ``column``, ``version``,
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
        """Return the record for the page's script; short keys, since there are thousands."""
        return {
            "type": self.defect_type,
            "file": self.file,
            "score": self.score,
            "bad": self.defective,
            "thumb": as_url(self.thumbnail),
            "large": as_url(self.localization),
            "why": as_url(self.explanation),
            "patches": patches_record(self.patches),
        }


@dataclass(frozen=True)
class ReportView:
    """One category at one setting.

    Attributes:
        category: The category's name.
        setting: The coreset percentage and the number of shots.
        threshold: Score from which an image counts as defective; NaN if nothing was measured.
        images: The test images.
        aspect: Width of the images divided by their height.
        distribution: File of the figure of the scores; None if it was not drawn.
    """

    category: str
    setting: Setting
    threshold: float
    images: Sequence[ReportImage]
    aspect: float = 1.0
    distribution: str | None = None

    def to_record(self) -> dict[str, object]:
        """Return the record for the page's script."""
        return {
            "category": self.category,
            "setting": self.setting.key,
            # JSON has no NaN. Without a threshold no image counts as defective.
            "threshold": None if math.isnan(self.threshold) else self.threshold,
            "aspect": self.aspect,
            "distribution": as_url(self.distribution),
            "images": [image.to_record() for image in self.images],
        }


def patches_record(patches: Sequence[Mapping[str, object]]) -> list[list[object]]:
    """Return the records of the most anomalous patches for the page's script."""
    return [
        [
            *(patch["row"], patch["column"], _short(patch["score"])),
            [
                [*(n[key] for key in ("file", "row", "column", "version")), _short(n["distance"])]
                for n in patch["nearest"]
            ],
        ]
        for patch in patches
    ]


def as_url(name: str | None) -> str | None:
    """Return the relative URL of a file; its name may have any characters."""
    return None if name is None else quote(os.fsencode(name))


def _short(value: float) -> float:
    return float(f"{value:.4g}")
