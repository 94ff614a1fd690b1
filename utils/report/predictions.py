"""The page of an inference: the most anomalous images, and those that were not judged."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from utils.report.rendering import render
from utils.report.view import as_url, patches_record


@dataclass(frozen=True)
class PredictionImage:
    """One judged image.

    Attributes:
        path: Path of the image, or name of the frame.
        verdict: ``anomaly`` or ``normal``.
        score: Anomaly score.
        score_ratio: score / threshold; None if unknown.
        p_value: Conformal p-value; None if unknown.
        place: Number and time of a video frame, in words; empty for an image file.
        regions: Anomalous regions: ``box``, ``area`` and ``score`` of each.
        thumbnail: File with two views side by side: the image, and its anomaly map on it.
        picture: File of the figure; None if it was not drawn.
        explanation: File of the explanation; None if it was not drawn.
        patches: Records of the most anomalous patches, as `ReportImage.patches`.
    """

    path: str
    verdict: str
    score: float
    score_ratio: float | None = None
    p_value: float | None = None
    place: str = ""
    regions: Sequence[Mapping[str, object]] = ()
    thumbnail: str | None = None
    picture: str | None = None
    explanation: str | None = None
    patches: Sequence[Mapping[str, object]] = ()

    def to_record(self) -> dict[str, object]:
        """Return the record for the page's script."""
        return {
            "path": self.path,
            "verdict": self.verdict,
            "score": _json_number(self.score),
            "ratio": _json_number(self.score_ratio),
            "p": self.p_value,
            "place": self.place,
            "regions": [[*r["box"], r["area"], r["score"]] for r in self.regions],
            "thumb": as_url(self.thumbnail),
            "large": as_url(self.picture),
            "why": as_url(self.explanation),
            "patches": patches_record(self.patches),
        }


@dataclass(frozen=True)
class PredictionView:
    """Content of the page.

    Attributes:
        heading: First heading, for example the category.
        images: Judged images, the most anomalous first.
        threshold: Lowest score of an anomaly.
        aspect: Width of the images divided by their height.
        limit_text: What part of the judged images is shown.
        tiles: Names and values of the large numbers.
        facts: Names and values of facts about the model and the run.
        notes: Remarks that a reader must not miss.
        command: The command line.
        errors: Paths and reasons of images that were not judged.
        errors_text: Which part of these images is listed.
        title: Kind of page, for the browser's title.
    """

    heading: str
    images: Sequence[PredictionImage]
    threshold: float
    aspect: float = 1.0
    limit_text: str = ""
    tiles: Sequence[tuple[str, str]] = ()
    facts: Sequence[tuple[str, str]] = ()
    notes: Sequence[str] = ()
    command: str = ""
    errors: Sequence[tuple[str, str]] = ()
    errors_text: str = ""
    title: str = field(default="predictions")


def render_predictions(view: PredictionView) -> str:
    """Return the page: HTML that can be encoded as UTF-8."""
    data = {
        "images": [image.to_record() for image in view.images],
        "threshold": view.threshold,
        "aspect": view.aspect,
        "texts": {"limit": view.limit_text},
    }
    return render("predictions.html.j2", "predictions.js", data, {"view": view})


def _json_number(value: float | None) -> float | None:
    """Return a number that JSON has; None if it is undefined or infinite."""
    return value if value is not None and math.isfinite(value) else None
