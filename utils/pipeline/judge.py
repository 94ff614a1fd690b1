"""Judges images and frames, one batch after another, and writes the results."""

import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import NamedTuple

import numpy as np

from datasets.base import DatasetError
from datasets.items import Item
from patchcore import PatchCore, PatchCoreError, Prediction
from patchcore.regions import find_regions
from patchcore.thresholds import Thresholds
from utils.options.infer import InferOptions
from utils.options.reading import STOP
from utils.output_names import REPORT_FILE
from utils.pipeline.earlier_outcomes import EarlierOutcomes, file_state
from utils.pipeline.prediction_page import PredictionPage
from utils.pipeline.prediction_pictures import PredictionPictures
from utils.pipeline.reading import Reading, log_notes
from utils.predictions import ANOMALY, ERROR, NORMAL, Outcome, PredictionFiles
from utils.progress import show_progress
from utils.result_folder import ResultFolder
from utils.results import numbered

NOTHING_FOUND, ANOMALY_FOUND, FAULT_FOUND = 0, 1, 2

log = logging.getLogger(__name__)


class Loaded(NamedTuple):
    """What is known of an item before it is judged.

    Attributes:
        item: The file or video frame.
        state: Size and time of its file, before it was read; None without a file.
        image: (H, W, 3) uint8 RGB, the original image; None if it is not read.
        crop: (H', W', 3) uint8 RGB, the input of the model; None without an image.
        error: Why it cannot be read.
        earlier: What an earlier run has found; then nothing is read.
    """

    item: Item
    state: list[int] | None = None
    image: np.ndarray | None = None
    crop: np.ndarray | None = None
    error: str = ""
    earlier: Outcome | None = None


class Judge:
    """Judges items and writes their results, in constant memory.

    Attributes:
        counts: Number of items by verdict.
        notes: Remarks about the files.
        num_earlier: Number of items that an earlier run has judged.

    Args:
        model: A fitted model.
        thresholds: Thresholds of images and pixels; neither is None.
        options: Options of the run.
        folder: Folder of the results.
        record: Content of ``run.json``.
        earlier: Outcomes that are taken over.
    """

    def __init__(
        self,
        model: PatchCore,
        thresholds: Thresholds,
        options: InferOptions,
        folder: ResultFolder,
        record: Mapping[str, object],
        earlier: EarlierOutcomes,
    ):
        self._model = model
        self._thresholds = thresholds
        self._options = options
        self._files = PredictionFiles(folder.path)
        self._reading = Reading.of_model(model.trained, options)
        self._pictures = PredictionPictures(model, thresholds, options, folder)
        self._page = PredictionPage(model, thresholds, options, folder, self._pictures, record)
        self._earlier = earlier
        self.num_earlier = 0
        self._num_found = 0
        self.counts = dict.fromkeys((ANOMALY, NORMAL, ERROR), 0)
        self.notes = self._reading.notes

    @property
    def status(self) -> int:
        """Exit status like that of grep: an error takes precedence over an anomaly."""
        if self.counts[ERROR] or not sum(self.counts.values()):
            return FAULT_FOUND
        return ANOMALY_FOUND if self.counts[ANOMALY] else NOTHING_FOUND

    def run(self, groups: Iterable[Iterable[Item]]) -> None:
        """Judge groups of items; the outcomes of a group do not wait for the next one."""
        with show_progress(None, "judge", "image") as bar:
            for items in groups:
                found = self._count(items)
                for batch in self._reading.batches(self._load, found, lambda item: item.file):
                    self._report(self._judge(batch))
                    bar.update(len(batch))
                    self._page.update(self.counts)
                self._pictures.finish_video()
                self._page.update(self.counts)

    def _count(self, items: Iterable[Item]) -> Iterator[Item]:
        """Count the items that are found: an end of the run leaves some that are not judged."""
        for item in items:
            self._num_found += 1
            yield item

    def _report(self, outcomes: Iterable[Outcome]) -> None:
        """Count, write and print outcomes."""
        for outcome in outcomes:
            self.counts[outcome.verdict] += 1
            self._files.add(outcome)
            print(outcome.to_json() if self._options.json else outcome.to_line(), flush=True)
            if outcome.verdict == ERROR and self._options.on_error == STOP:
                raise DatasetError(outcome.error)

    def close(self, *, is_complete: bool) -> None:
        """Finish the files, and log the number of verdicts."""
        self._pictures.close()
        self._earlier.close(is_complete=is_complete)
        self._files.close()
        self._page.finish(self.counts)
        if is_complete:
            self._page.clean_up()
        log_notes(self.notes)
        log.info(
            "%d judged: %d anomalous, %d normal; %d could not be read; predictions are in %s%s",
            self.counts[ANOMALY] + self.counts[NORMAL],
            self.counts[ANOMALY],
            self.counts[NORMAL],
            self.counts[ERROR],
            self._options.path_result,
            f", shown by {REPORT_FILE}" if self._options.page_limit else "",
        )
        if left := self._num_found - sum(self.counts.values()):
            log.info("%s found and not judged", numbered(left, "image"))
        if self.num_earlier:
            log.info("%d of these by an earlier run (--fresh judges all)", self.num_earlier)

    def _load(self, item: Item) -> Loaded:
        """Return what an earlier run has found, or else what is read of an item."""
        outcome = self._earlier.find(item)
        return self._read(item) if outcome is None else Loaded(item, earlier=outcome)

    def _read(self, item: Item) -> Loaded:
        """Return an item with its image and crop, or with the reason why it is unreadable."""
        try:
            state = file_state(item.file)  # before it is read
            image = item.read(self._reading.decoding, self.notes)
            return Loaded(item, state, image, self._model.crop(image))
        except (DatasetError, PatchCoreError) as error:
            reason = str(error)
        except Exception as error:  # decoders raise anything; the other images are judged
            reason = f"cannot read {item.name}: {type(error).__name__}: {error}"
        return Loaded(item, error=reason)

    def _judge(self, batch: Sequence[Loaded]) -> list[Outcome]:
        """Judge the readable images of a batch; return the outcomes in its order."""
        batch = [self._read(one.item) if self._is_shown_again(one) else one for one in batch]
        crops = [one.crop for one in batch if one.crop is not None]
        start = time.perf_counter()
        predictions = iter(self._predict(crops))
        seconds = (time.perf_counter() - start) / max(len(crops), 1)
        return [
            self._finish(one, one.error if one.crop is None else next(predictions), seconds)
            for one in batch
        ]

    def _is_shown_again(self, loaded: Loaded) -> bool:
        """Return whether the page shows an image that an earlier run has judged, without a copy."""
        return loaded.earlier is not None and not self._page.can_show(loaded.earlier)

    def _finish(self, loaded: Loaded, found: Prediction | str, seconds: float) -> Outcome:
        """Return the outcome of an item, and add it to the page.

        Args:
            loaded: The item.
            found: Its prediction, or the reason why there is none.
            seconds: Time of the prediction.
        """
        if loaded.earlier is not None:
            self._page.add_earlier(loaded.earlier)
            self.num_earlier += 1
            return loaded.earlier
        if isinstance(found, Prediction):
            outcome = self._conclude(loaded, found, seconds)
            self._page.add(outcome, loaded.crop, found)
        else:
            outcome = Outcome(loaded.item.name, ERROR, error=found)
            self._page.add_error(outcome)
        return outcome

    def _predict(self, crops: list[np.ndarray]) -> list[Prediction | str]:
        """Return the prediction of each image, or the reason why there is none."""
        if not crops:
            return []
        try:
            prediction = self._model.predict_crops([np.stack(crops)])
        except PatchCoreError as error:  # one image spoils its batch: judge each by itself
            if len(crops) == 1:
                return [str(error)]
            return [found for crop in crops for found in self._predict([crop])]
        return [prediction.of(number) for number in range(len(crops))]

    def _conclude(self, loaded: Loaded, prediction: Prediction, seconds: float) -> Outcome:
        """Return the outcome of a prediction, and write its files."""
        item, image = loaded.item, loaded.image
        threshold, held_out = self._thresholds.image, self._model.trained.held_out
        crop_box = self._model.preprocess.crop_box(image.shape[:2])
        score, anomaly_map = float(prediction.score[0]), prediction.anomaly_map[0]
        ignored = self._model.scorer.ignored
        regions = find_regions(
            anomaly_map if ignored is None else np.where(ignored.pixels, -np.inf, anomaly_map),
            self._thresholds.pixel.value,
            crop_box=crop_box,
            size=image.shape[:2],
            max_regions=self._options.regions,
        )
        state = {} if loaded.state is None else {"file": loaded.state}
        frame = {} if item.number is None else {"frame": item.number, "time": item.seconds}
        box = {"map_box": [round(edge, 2) for edge in crop_box]}
        # Negated, so that an undefined score is never normal.
        is_anomaly = not score < threshold.value
        pictures = self._pictures.draw(item, image, loaded.crop, prediction, is_anomaly=is_anomaly)
        return Outcome(
            item.name,
            ANOMALY if is_anomaly else NORMAL,
            score=score,
            threshold=threshold.value,
            score_ratio=threshold.ratio(score),
            p_value=None if held_out is None else held_out.p_value(score),
            regions=[asdict(region) for region in regions],
            seconds=seconds,
            details=state | frame | box | pictures,
        )
