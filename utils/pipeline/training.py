"""Training: models of normal images alone, without a test set."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from datasets.base import Category, DatasetError
from datasets.notes import Notes
from datasets.shots import choose_shots
from patchcore import PatchCore
from patchcore.engine import Engine
from patchcore.extend import extend
from patchcore.fit import FitRequest, FitResult
from patchcore.record import read_record
from patchcore.settings import DEFAULT
from patchcore.storage import INDEX
from patchcore.trained import Trained
from utils.encoding import encode_image
from utils.files import make_writable, replace_file
from utils.locks import lock_folder
from utils.options.model_choice import ModelChoice
from utils.options.train import TrainOptions
from utils.pipeline.cluster import fit_engine
from utils.pipeline.copies import without_copies
from utils.pipeline.crop import report_crop
from utils.pipeline.fit import TrainingFiles, fit_category
from utils.pipeline.models import (
    choose_device,
    describe_threshold,
    first_of,
    load_model,
    log_ignored,
    make_models,
    print_summaries,
)
from utils.pipeline.observer import RunObserver
from utils.pipeline.reading import Reading, find_reading, log_notes
from utils.pipeline.remarks import log_remarks
from utils.pipeline.saving import save_models
from utils.pipeline.skipping import Skipping
from utils.pipeline.suspects import SUSPECTS_FILE, describe_suspects, draw_suspects
from utils.pipeline.trained_models import model_folder
from utils.results import numbered

log = logging.getLogger(__name__)


def train(options: TrainOptions, categories: Sequence[Category], skipping: Skipping) -> int:
    """Fit and save a model of each category, backbone and percentage; return the exit status.

    Args:
        options: Options of the run.
        categories: Categories as the command lists them.
        skipping: Skips what cannot be used.

    Raises:
        DatasetError, PatchCoreError, UsageError: User-fixable errors. Models that were saved before
            are kept.
    """
    models = make_models(options, choose_device(options.device), categories)
    if options.summary:
        print_summaries(models)
    log_ignored(first_of(models))
    make_writable(options.path_trained, "trained models", "--path_trained")
    is_own = any(not category.benchmark for category in categories)
    report_crop(first_of(models).preprocess, "use" if is_own else "")
    with fit_engine(options, categories, first_of(models).device.type) as engine:
        for category in categories:
            folder = options.path_trained / category.name
            make_writable(folder, "trained models", "--path_trained")
            with lock_folder(folder, "--path_trained"):
                _train_category(models, category, options, skipping, engine)
    if all(category.name in skipping.categories for category in categories):
        raise DatasetError(skipping.describe_none())
    return skipping.status


def _train_category(
    models: Mapping[str, PatchCore],
    listed: Category,
    options: TrainOptions,
    skipping: Skipping,
    engine: Engine | None,
) -> None:
    """Fit and save a category's model of each backbone and percentage."""
    prepared = skipping.compute(listed, lambda used: _prepare(used, options))
    if prepared is None:
        return
    category, reading = prepared
    (shots,) = options.shot_counts
    log.info("%s: %s", category.name, _choose(category, options).describe())
    log_remarks(category)
    for name, model in models.items():
        start = time.perf_counter()
        fitted = skipping.compute(
            category, lambda used, model=model: (used, _fit(model, used, reading, options, engine))
        )
        if fitted is None:
            return
        category, learned = fitted
        saved = save_models(model, name, category, learned, reading.decoding, options, shots=shots)
        for trained, percentage in zip(saved, model.percentages, strict=True):
            _log_threshold(trained, time.perf_counter() - start)
            log.debug("%s", trained.coreset.coverage[0].describe())
            k = model.settings.k
            folder = model_folder(options.path_trained, category.name, name, percentage, k, shots)
            _report_suspects(trained, reading, folder)
    log_notes(reading.notes, category.name)


def _prepare(listed: Category, options: TrainOptions) -> tuple[Category, Reading]:
    """Return the category without copies, and how its files are read."""
    reading = find_reading(listed, options)
    keeps_all = options.keep_copies or listed.benchmark
    return listed if keeps_all else without_copies(listed, reading), reading


def _choose(category: Category, options: TrainOptions) -> Category:
    """Return the category with the training images of ``--shots``."""
    (shots,) = options.shot_counts
    return category if shots is None else choose_shots(category, shots, options.seed[0])


def _fit(
    model: PatchCore,
    category: Category,
    reading: Reading,
    options: TrainOptions,
    engine: Engine | None,
) -> FitResult:
    """Fit to the training images of a category, or to the few that ``--shots`` chooses."""
    request = FitRequest(
        model.percentages,
        (model.settings.seed,),
        held_out=options.needs_held_out_scores,
        memory_budget=options.memory_budget,
    )
    observer = RunObserver(category.name, model.device)
    return fit_category(model, _choose(category, options), request, reading, observer, engine)


def _report_suspects(trained: Trained, reading: Reading, folder: Path) -> None:
    """List and draw the training images that are least similar to the others."""
    log.info("%s", describe_suspects(trained))
    # They were read before, and notes about them are not logged again.
    figure = draw_suspects(trained, replace(reading, notes=Notes()))
    if figure is not None:
        path = replace_file(folder / SUSPECTS_FILE, encode_image(figure))
        log.info("figure of the first of these images: %s", path)


def extend_model(options: TrainOptions, category: Category, skipping: Skipping) -> int:
    """Let the training images of a category join a model; return the exit status.

    Args:
        options: ``--extend`` names the model.
        category: The training images.
        skipping: Skips what cannot be used.

    Raises:
        DatasetError, PatchCoreError, UsageError: User-fixable errors. The model is unchanged then.
    """
    folder = Path(options.extend)
    with lock_folder(folder.resolve().parent, "--extend"):
        _extend_model(folder, options, category, skipping)
    return skipping.status


def _extend_model(
    folder: Path, options: TrainOptions, category: Category, skipping: Skipping
) -> None:
    """Read, extend and save a model."""
    member = options.members()[0]
    choice = ModelChoice(
        backbone=member.backbone,
        weights="" if member.weights == DEFAULT else member.weights,
    )
    model = load_model(folder, choice, choose_device(options.device), options.batch_size)
    start = time.perf_counter()
    known = model.trained.coreset
    reading = replace(Reading.of_model(model.trained, options), reads_on=options.skips)

    def extended(used: Category) -> Trained:
        new = used if options.keep_copies else without_copies(used, reading)
        images = TrainingFiles(model.cropper, new.train, reading)
        return extend(model.embedder, model.scorer, model.trained, images)

    named = replace(category, name=model.trained.category)  # the name that messages begin with
    model.trained = skipping.start_again(named, extended)
    _save_extended(model, folder, save_index=options.save_index)
    log_notes(reading.notes, model.trained.category)
    extension = model.trained.extension
    log.info(
        "%s: %s added: %d of %d new patches join the %d of the coreset, %.1f s",
        model.trained.category,
        numbered(extension.num_images, "image"),
        extension.num_added,
        model.embedder.num_patches(extension.num_images),
        len(known.bank),
        time.perf_counter() - start,
    )
    if model.thresholds.image is not None:
        log.info("the threshold stays %.4g", model.thresholds.image.value)
    log.info(
        "by the scores of the added images, before they were added, it would be %.4g (infer "
        "--threshold)",
        extension.thresholds.image.value,
    )


def _save_extended(model: PatchCore, folder: Path, *, save_index: bool) -> None:
    """Save a model in its former folder, with a faiss index if that had one.

    The figure of suspects stays: it is of the first training, as are the held-out scores.
    """
    dtype, had_index = read_record(folder)["dtype"], (folder / INDEX).is_file()
    model.save(folder, dtype=dtype, faiss_index=save_index or had_index)


def _log_threshold(trained: Trained, seconds: float) -> None:
    threshold = trained.thresholds.image
    if threshold is None:
        log.warning(
            "%s: too few training images to set a threshold; infer needs --threshold NUMBER",
            trained.category,
        )
        return
    log.info(
        "%s: %d patches in the coreset, threshold %s, %.1f s",
        trained.category,
        len(trained.coreset.bank),
        describe_threshold(threshold, trained),
        seconds,
    )
