"""Inference: a trained model judges images of files, folders, videos and cameras."""

import hashlib
import logging
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

from datasets.inputs import find_groups, is_camera, watch_folder
from datasets.items import Item
from datasets.notes import Notes
from patchcore import PatchCore
from patchcore.record import read_record
from patchcore.settings import TRAIN_QUANTILE
from patchcore.thresholds import Thresholds, choose_thresholds
from patchcore.version import RESULTS_VERSION
from utils.errors import UsageError, describe_end
from utils.locks import lock_folder
from utils.logs import RunLog
from utils.machine import log_start, now, start_record
from utils.options.infer import InferOptions
from utils.options.thresholds import AS_TRAINED, RATE_FLAGS, THRESHOLD_FLAGS
from utils.pipeline.crop import report_crop
from utils.pipeline.earlier_outcomes import EarlierOutcomes, difference
from utils.pipeline.judge import Judge
from utils.pipeline.models import (
    choose_device,
    describe_threshold,
    load_model,
    log_ignored,
    read_ignore_mask,
)
from utils.predictions import OUTPUTS
from utils.result_folder import ResultFolder
from utils.results import numbered

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
        judge = Judge(model, thresholds, options, folder, record, earlier)
        _judge_all(judge, options, folder, record)
    return judge.status


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
    judge: Judge, options: InferOptions, folder: ResultFolder, record: dict[str, object]
) -> None:
    """Judge all images, and record how that ended."""
    # Only a signal ends a watched folder and a camera.
    is_endless = bool(options.watch) or any(map(is_camera, options.paths))

    def finish(state: str) -> None:
        judge.close(is_complete=state == "complete" and not options.watch)
        result = {
            "verdicts": judge.counts,
            "judged_earlier": judge.num_earlier,
            "file_notes": judge.notes.as_json(),
        }
        folder.write_run(record | {"state": state, "end": now()} | result)

    try:
        judge.run(_groups(options, judge.notes))
    except BaseException as error:
        is_end = isinstance(error, KeyboardInterrupt) and is_endless
        finish("complete" if is_end else describe_end(error))
        if not is_end:
            raise
    else:
        finish("complete")


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
    """Yield items to judge together: those at the paths, or of a scan of the watched folder."""
    stride = options.frame_stride
    if not options.watch:
        yield from find_groups(options.paths, frame_stride=stride, listed=sys.stdin, notes=notes)
        return
    folder = Path(options.watch)
    log.info("watching %s; Ctrl-C or SIGTERM ends it", folder)
    watched = watch_folder(folder, frame_stride=stride, notes=notes)
    while True:
        yield iter(lambda: next(watched), None)
