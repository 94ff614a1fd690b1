"""Inference: images from files, folders, videos and cameras, judged by a trained model."""

import hashlib
import logging
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from datasets.base import DatasetError
from datasets.inputs import find_items, is_camera, watch_folder
from datasets.items import Item
from datasets.notes import Notes
from patchcore import PatchCore, PatchCoreError, Prediction
from patchcore.record import read_record
from patchcore.regions import find_regions
from patchcore.settings import TRAIN_QUANTILE
from patchcore.thresholds import Thresholds, choose_thresholds
from patchcore.version import RESULTS_VERSION
from utils.errors import UsageError, describe_end
from utils.locks import lock_folder
from utils.logs import RunLog
from utils.machine import log_start, now, start_record
from utils.options.infer import InferOptions
from utils.options.reading import STOP
from utils.options.thresholds import AS_TRAINED, RATE_FLAGS, THRESHOLD_FLAGS
from utils.output_names import REPORT_FILE
from utils.pipeline.crop import report_crop
from utils.pipeline.earlier_outcomes import EarlierOutcomes, difference, file_state
from utils.pipeline.models import (
    choose_device,
    describe_threshold,
    load_model,
    log_ignored,
    read_ignore_mask,
)
from utils.pipeline.prediction_page import PredictionPage
from utils.pipeline.prediction_pictures import PredictionPictures
from utils.pipeline.reading import Reading, log_notes
from utils.predictions import ANOMALY, ERROR, NORMAL, OUTPUTS, Outcome, PredictionFiles
from utils.progress import show_progress
from utils.result_folder import ResultFolder
from utils.results import numbered

NOTHING_FOUND, ANOMALY_FOUND, FAULT_FOUND = 0, 1, 2

# Options that change neither outcomes nor their files, or that change something else which counts.
IRRELEVANT = frozenset(
    {
        *("device", "batch_size", "num_workers", "max_megapixels", "on_error"),
        *("path_result", "fresh", "json", "page_limit", "annotate"),
        *("quiet", "verbose"),
        *("path_trained", "category", "percentage_coreset", "backbone", "weights"),
        *("threshold", "threshold_pixel", "nominal_fpr", "nominal_fpr_pixel", "ignore_mask"),
    }
)

# An item, the state of its file, its original image, and the crop; or None, and the reason why it
# cannot be read or what an earlier run has found.
Loaded = tuple[Item, list[int] | None, np.ndarray | None, np.ndarray | str | Outcome]

log = logging.getLogger(__name__)


def infer(options: InferOptions, path: Path) -> int:
    """Judge all images of the options; return the exit status.

    Args:
        options: Options of the run.
        path: Folder of the trained model.

    Raises:
        PatchCoreError, UsageError: User-fixable errors.
    """
    device, mask = choose_device(options.device), read_ignore_mask(options)
    model = load_model(path, options, device, options.batch_size, mask)
    log_ignored(model)
    if options.ignore_mask:
        log.info(
            "thresholds and p-values are those of training, without the mask of --ignore_mask; "
            "train with this mask to recompute them"
        )
    thresholds = set_thresholds(model, options)
    if model.trained.held_out is None:
        log.info("the model has no held-out scores: the p-value of each score is left empty")
    log.info(
        "an image is anomalous from this score on: %s",
        describe_threshold(thresholds.image, model.trained),
    )
    report_crop(model.preprocess, "train again with")
    folder = ResultFolder(options.path_result)
    with lock_folder(folder.path, "--path_result"), RunLog(folder.path) as run_log:
        identity = _identity_of(options, path, model, thresholds)
        earlier = _take_over(folder, identity, is_fresh=options.fresh)
        run_log.begin()
        record = start_record(options, model.device) | {
            "identity": identity,
            "category": model.trained.category,
            "weights_digest": model.backbone.weights_digest,
            "licence": model.backbone.licence,
            "thresholds": asdict(thresholds),
        }
        folder.write_run(record)
        log_start(record)
        inference = Inference(model, thresholds, options, folder, record, earlier)
        _judge_all(inference, options, folder, record)
    return inference.status


def _identity_of(
    options: InferOptions, path: Path, model: PatchCore, thresholds: Thresholds
) -> dict[str, object]:
    """Return all that outcomes and their files depend on except the images, by name."""
    mask = b"" if model.mask is None else model.mask.pixels.tobytes()
    return {
        "the program's version of results": RESULTS_VERSION,
        "the digest of the model": read_record(path)["digest"],
        "the digest of the ignored pixels": hashlib.sha256(mask).hexdigest(),
        "the image threshold": thresholds.image.value,
        "the pixel threshold": thresholds.pixel.value,
    } | options.texts(without=IRRELEVANT)


def _take_over(
    folder: ResultFolder, identity: Mapping[str, object], *, is_fresh: bool
) -> EarlierOutcomes:
    """Return the outcomes of an earlier run, which is moved away if anything differs."""
    reason = "--fresh" if is_fresh else difference(folder.path, identity)
    if reason:
        folder.move_earlier_run(OUTPUTS, reason=reason)
    folder.remove_partial_files()
    try:
        earlier = EarlierOutcomes(folder.path)
    except OSError as error:
        raise UsageError(
            f"cannot resume from the results in {folder.path}: {error.strerror or error} (--fresh)"
        ) from error
    if len(earlier):
        count = numbered(len(earlier), "image")
        log.info("resuming from %s in %s (--fresh judges all)", count, folder.path)
    return earlier


def _judge_all(
    inference: "Inference", options: InferOptions, folder: ResultFolder, record: dict[str, object]
) -> None:
    """Judge all images, and record how that ended."""
    # Only a signal ends a watched folder and a camera.
    is_endless = bool(options.watch) or any(map(is_camera, options.paths))
    state = "complete"
    try:
        for items in _groups(options, inference.notes):
            inference.run(items)
    except BaseException as error:
        if not (isinstance(error, KeyboardInterrupt) and is_endless):
            state = describe_end(error)
            raise
    finally:
        inference.close(is_complete=state == "complete" and not options.watch)
        result = {
            "verdicts": inference.counts,
            "judged_earlier": inference.num_earlier,
            "file_notes": inference.notes.as_json(),
        }
        folder.write_run(record | {"state": state, "end": now()} | result)


def set_thresholds(model: PatchCore, options: InferOptions) -> Thresholds:
    """Return the thresholds of the options: those of the model, or others.

    Raises:
        UsageError: the model has no threshold, and the options give none.
        PatchCoreError: ``f1_max`` is requested and was not measured.
    """
    trained, methods = model.trained, options.methods()
    rates = {kind: getattr(options, RATE_FLAGS[name]) for kind, name in THRESHOLD_FLAGS.items()}
    for kind, rate in rates.items():
        if methods[kind] == AS_TRAINED and rate is not None:
            methods[kind] = TRAIN_QUANTILE
    chosen = choose_thresholds(
        trained.held_out,
        trained.best,
        **{kind: method for kind, method in methods.items() if method != AS_TRAINED},
        **{f"{kind}_rate": rate for kind, rate in rates.items() if rate is not None},
    )
    thresholds = {
        kind: getattr(trained.thresholds if method == AS_TRAINED else chosen, kind)
        for kind, method in methods.items()
    }
    for kind, name in THRESHOLD_FLAGS.items():
        if thresholds[kind] is None:
            raise UsageError(
                f"expected a threshold for {kind}s, found none in the model, which was trained "
                f"with too few images to set one: give --{name} NUMBER"
            )
    return Thresholds(**thresholds)


def _groups(options: InferOptions, notes: Notes) -> Iterator[Iterable[Item]]:
    """Yield items to judge together: all, or those of each scan of the watched folder."""
    stride = options.frame_stride
    if not options.watch:
        yield find_items(options.paths, frame_stride=stride, listed=sys.stdin, notes=notes)
        return
    folder = Path(options.watch)
    log.info("watching %s; Ctrl-C or SIGTERM ends it", folder)
    watched = watch_folder(folder, frame_stride=stride, notes=notes)
    while True:
        yield iter(lambda: next(watched), None)


class Inference:
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
        self.counts = dict.fromkeys((ANOMALY, NORMAL, ERROR), 0)
        self.notes = self._reading.notes

    @property
    def status(self) -> int:
        """Exit status like that of grep: an error takes precedence over an anomaly."""
        if self.counts[ERROR] or not sum(self.counts.values()):
            return FAULT_FOUND
        return ANOMALY_FOUND if self.counts[ANOMALY] else NOTHING_FOUND

    def run(self, items: Iterable[Item]) -> None:
        """Judge items, while the next ones are read."""
        options = self._options
        batches = self._reading.batches(self._load, items, lambda item: item.file)
        with show_progress(None, "judge", "image") as bar:
            for batch in batches:
                for outcome in self._judge(batch):
                    self.counts[outcome.verdict] += 1
                    self._files.add(outcome)
                    print(outcome.to_json() if options.json else outcome.to_line(), flush=True)
                    if outcome.verdict == ERROR and options.on_error == STOP:
                        raise DatasetError(outcome.error)
                bar.update(len(batch))
                self._page.update(self.counts)
        self._pictures.finish_video()
        self._page.update(self.counts)

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
        if self.num_earlier:
            log.info("%d of these by an earlier run (--fresh judges all)", self.num_earlier)

    def _load(self, item: Item) -> Loaded:
        """Return the item, with what an earlier run has found or with what is read of it."""
        outcome = self._earlier.find(item)
        return self._read(item) if outcome is None else (item, None, None, outcome)

    def _read(self, item: Item) -> Loaded:
        """Return the item with its image and crop; or None and the reason why it is unreadable."""
        try:
            state = file_state(item.file)  # before it is read
            image = item.read(self._reading.decoding, self.notes)
            return item, state, image, self._model.crop(image)
        except (DatasetError, PatchCoreError) as error:
            reason = str(error)
        except Exception as error:  # decoders raise anything; the other images are judged
            reason = f"cannot read {item.name}: {type(error).__name__}: {error}"
        return item, None, None, reason

    def _judge(self, batch: list[Loaded]) -> list[Outcome]:
        """Judge the readable images of a batch; return the outcomes in its order."""
        batch = [
            self._read(item)
            if isinstance(found, Outcome) and not self._page.can_show(found)
            else (item, state, image, found)
            for item, state, image, found in batch
        ]
        crops = [crop for *_, image, crop in batch if image is not None]
        start = time.perf_counter()
        predictions = iter(self._predict(crops))
        seconds = (time.perf_counter() - start) / max(len(crops), 1)
        outcomes = []
        for item, state, image, crop in batch:
            prediction = crop if image is None else next(predictions)
            if isinstance(prediction, Outcome):
                outcome = prediction
                self._page.add_earlier(outcome)
                self.num_earlier += 1
            elif isinstance(prediction, Prediction):
                found = self._conclude(item, image, crop, prediction, seconds)
                details = {} if state is None else {"file": state}
                outcome = replace(found, details=details | found.details)
                self._page.add(outcome, crop, prediction)
            else:
                outcome = Outcome(item.name, ERROR, error=prediction)
                self._page.add_error(outcome)
            outcomes.append(outcome)
        return outcomes

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

    def _conclude(
        self,
        item: Item,
        image: np.ndarray,
        crop: np.ndarray,
        prediction: Prediction,
        seconds: float,
    ) -> Outcome:
        """Return the outcome of a prediction, and write its files."""
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
        frame = {} if item.number is None else {"frame": item.number, "time": item.seconds}
        # Negated, so that an undefined score is never normal.
        is_anomaly = not score < threshold.value
        pictures = self._pictures.draw(item, image, crop, prediction, is_anomaly=is_anomaly)
        return Outcome(
            item.name,
            ANOMALY if is_anomaly else NORMAL,
            score=score,
            threshold=threshold.value,
            score_ratio=threshold.ratio(score),
            p_value=None if held_out is None else held_out.p_value(score),
            regions=[asdict(region) for region in regions],
            seconds=seconds,
            details=frame | {"map_box": [round(edge, 2) for edge in crop_box]} | pictures,
        )
