"""`index.html` of an inference: the most anomalous images, in constant memory."""

import heapq
import math
import shutil
import time
from collections.abc import Mapping

import numpy as np

from patchcore import PatchCore, Prediction
from patchcore.thresholds import Thresholds
from utils.machine import now
from utils.options.infer import InferOptions
from utils.output_names import REPORT_FILE, THUMBNAIL_FOLDER
from utils.pipeline.models import describe_ignored, describe_threshold
from utils.pipeline.prediction_pictures import PredictionPictures
from utils.predictions import ANOMALY, CSV_FILE, ERROR, NORMAL, Outcome, file_stem
from utils.report import PredictionImage, PredictionView, render_predictions
from utils.result_folder import ResultFolder

# The page is written again during a run at most this often, and for at most this share of the time.
SECONDS_BETWEEN, SHARE_OF_TIME = 5.0, 0.05


class PredictionPage:
    """Collects the most anomalous images, and writes the page during the run and at its end.

    At most ``page_limit`` images, with their thumbnails, and as many errors are kept.

    Args:
        model: A fitted model.
        thresholds: Thresholds of images and pixels; neither is None.
        options: Options of the run; ``page_limit`` 0 writes no page.
        folder: Folder of the results.
        pictures: Draws the thumbnails.
        record: Content of ``run.json``.
    """

    def __init__(
        self,
        model: PatchCore,
        thresholds: Thresholds,
        options: InferOptions,
        folder: ResultFolder,
        pictures: PredictionPictures,
        record: Mapping[str, object],
    ):
        self._model = model
        self._thresholds = thresholds
        self._limit = options.page_limit
        self._folder = folder
        self._pictures = pictures
        self._record = record
        # A heap with the least anomalous image first; of equal scores, the last one.
        self._images: list[tuple[float, int, PredictionImage]] = []
        self._errors: list[tuple[str, str]] = []
        self._dropped: list[str] = []  # thumbnails that the page no longer shows
        self._num_judged = 0
        self._is_changed = True
        self._next_time = time.monotonic() + SECONDS_BETWEEN

    def can_show(self, outcome: Outcome) -> bool:
        """Return whether an earlier outcome needs no thumbnail, or still has it."""
        is_shown = self._limit and not self._is_below(self._rank(outcome))
        return not is_shown or (self._folder.path / _thumbnail_name(outcome)).is_file()

    def add_earlier(self, outcome: Outcome) -> None:
        """Add an image that an earlier run has judged, with the thumbnail of that run."""
        if self._limit:
            self._add(outcome)

    def add(self, outcome: Outcome, crop: np.ndarray, prediction: Prediction) -> None:
        """Add a judged image, if it is one of the most anomalous so far.

        Args:
            outcome: Its result.
            crop: (H, W, 3) uint8 RGB, the input of the model.
            prediction: The prediction for this image alone (B = 1).

        Raises:
            UsageError: the thumbnail cannot be written.
        """
        if not self._limit:
            return
        if not self._is_below(self._rank(outcome)):
            thumbnail = self._pictures.thumbnail(crop, prediction)
            self._folder.write_bytes(_thumbnail_name(outcome), thumbnail)
        self._add(outcome)

    def _add(self, outcome: Outcome) -> None:
        rank = self._rank(outcome)
        self._is_changed = True
        self._num_judged += 1
        entry = (*rank, _describe(outcome, _thumbnail_name(outcome)))
        if len(self._images) < self._limit:
            heapq.heappush(self._images, entry)
        elif not self._is_below(rank):
            self._dropped.append(heapq.heapreplace(self._images, entry)[2].thumbnail)

    def _rank(self, outcome: Outcome) -> tuple[float, int]:
        """Return the rank of the next image."""
        return math.inf if math.isnan(outcome.score) else outcome.score, -self._num_judged - 1

    def _is_below(self, rank: tuple[float, int]) -> bool:
        """Return whether the page is full of more anomalous images."""
        return len(self._images) == self._limit and rank < self._images[0][:2]

    def add_error(self, outcome: Outcome) -> None:
        """Add an image that was not judged, if there is room on the page."""
        self._is_changed = True
        if len(self._errors) < self._limit:
            self._errors.append((outcome.path, outcome.error))

    def update(self, counts: Mapping[str, int]) -> None:
        """Write the page if something has changed and the last time is long enough ago.

        Args:
            counts: Number of images by verdict.

        Raises:
            UsageError: the page cannot be written.
        """
        if self._is_changed and time.monotonic() >= self._next_time:
            self.finish(counts)

    def finish(self, counts: Mapping[str, int]) -> None:
        """Write the page.

        Raises:
            UsageError: the page cannot be written.
        """
        if not self._limit:
            return
        start = time.monotonic()
        self._folder.write_text(REPORT_FILE, render_predictions(self._view(counts)))
        shown = {image.thumbnail for *_, image in self._images}
        for name in set(self._dropped) - shown:  # the same image may be given twice
            (self._folder.path / name).unlink(missing_ok=True)
        self._dropped.clear()
        self._is_changed = False
        end = time.monotonic()
        self._next_time = end + max(SECONDS_BETWEEN, (end - start) / SHARE_OF_TIME)

    def clean_up(self) -> None:
        """Remove what earlier runs have left and the page does not show, after a complete run."""
        folder = self._folder.path
        if not self._limit:
            (folder / REPORT_FILE).unlink(missing_ok=True)
            shutil.rmtree(folder / THUMBNAIL_FOLDER, ignore_errors=True)
        shown = {image.thumbnail for *_, image in self._images}
        for path in (folder / THUMBNAIL_FOLDER).glob("*.jpg"):
            if path.relative_to(folder).as_posix() not in shown:
                path.unlink(missing_ok=True)

    def _view(self, counts: Mapping[str, int]) -> PredictionView:
        height, width = self._model.preprocess.size_crop
        ordered = sorted(self._images, key=lambda entry: entry[:2], reverse=True)
        return PredictionView(
            heading=self._model.trained.category or "Predictions",
            images=[image for _, _, image in ordered],
            threshold=self._thresholds.image.value,
            aspect=width / height,
            limit_text=self._limit_text(),
            tiles=[
                ("judged", f"{counts[ANOMALY] + counts[NORMAL]:,}"),
                ("anomalous", f"{counts[ANOMALY]:,}"),
                ("normal", f"{counts[NORMAL]:,}"),
                ("not judged", f"{counts[ERROR]:,}"),
                ("threshold", f"{self._thresholds.image.value:.4g}"),
            ],
            facts=self._facts(),
            notes=[note for note in (self._limit_text(), describe_ignored(self._model)) if note],
            command=str(self._record["command"]),
            errors=self._errors,
            errors_text=self._errors_text(counts[ERROR]),
        )

    def _limit_text(self) -> str:
        if self._num_judged <= len(self._images):
            return "" if self._images else "No image was judged."
        return (
            f"Only the {len(self._images):,} most anomalous of {self._num_judged:,} judged images "
            f"are shown (--page_limit); {CSV_FILE} has all of them."
        )

    def _errors_text(self, num_errors: int) -> str:
        if num_errors <= len(self._errors):
            return f"{num_errors:,} could not be judged."
        return (
            f"The first {len(self._errors):,} of {num_errors:,} that could not be judged "
            f"(--page_limit); {CSV_FILE} has all of them."
        )

    def _facts(self) -> list[tuple[str, str]]:
        trained, threshold = self._model.trained, self._thresholds.image
        held_out = trained.held_out
        return [
            ("Backbone", self._model.backbone.name),
            ("Coreset", f"{len(trained.coreset.bank):,} patches"),
            ("Training images", f"{len(trained.coreset.origins.names):,}"),
            ("Threshold", describe_threshold(threshold, trained)),
            (
                "p-values",
                "none: the model has no held-out scores"
                if held_out is None
                else f"by {len(held_out.images):,} held-out scores of normal images",
            ),
            ("Start", str(self._record["start"])),
            ("Page written", now()),
        ]


def _thumbnail_name(outcome: Outcome) -> str:
    """Return a name that no other image has, nor the same file before it was changed."""
    _, time_of_change = outcome.details.get("file") or (0, 0)
    return f"{THUMBNAIL_FOLDER}/{file_stem(outcome.path)}_{time_of_change}.jpg"


def _describe(outcome: Outcome, thumbnail: str) -> PredictionImage:
    details = outcome.details
    place = f"frame {details['frame']}, {details['time']:.2f} s" if "frame" in details else ""
    return PredictionImage(
        path=outcome.path,
        verdict=outcome.verdict,
        score=outcome.score,
        score_ratio=outcome.score_ratio,
        p_value=outcome.p_value,
        place=place,
        regions=outcome.regions,
        thumbnail=thumbnail,
        picture=details.get("picture"),
        explanation=details.get("explanation"),
        patches=details.get("patches", ()),
    )
