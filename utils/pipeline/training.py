"""Training: models of normal images alone, without a test set."""

import logging
import time
from collections.abc import Sequence

from datasets.base import Category
from patchcore.trained import Trained
from utils.options.train import TrainOptions
from utils.pipeline.fit import learn
from utils.pipeline.keeping import trained_models, write_models
from utils.pipeline.models import choose_device, make_models, summarise, with_layers
from utils.results import make_writable
from utils.stopwatch import Stopwatch

log = logging.getLogger(__name__)


def train(options: TrainOptions, categories: Sequence[Category]) -> None:
    """Fit and save a model of each category, backbone and percentage.

    Args:
        options: Options of the run.
        categories: Categories as `read_training_categories` returns them.

    Raises:
        DatasetError, PatchCoreError, UsageError: User-fixable errors. Models that were saved before
            are kept.
    """
    options = with_layers(options)
    models = make_models(options, choose_device(options.device))
    for model in models.values():
        for category in categories:
            model.sizes_of_coresets(model.num_patches(len(category.train)))
    if options.summary:
        print("\n".join(summarise(model) for model in models.values()))
    make_writable(options.path_trained, "trained models", "--path_trained")
    for category in categories:
        log.info("%s: %d training images", category.name, len(category.train))
        for name, model in models.items():
            start = time.perf_counter()
            learned = learn(model, category, options, Stopwatch())
            trained = trained_models(model, category, learned, options)
            write_models(model, name, trained, options)
            for one in trained:
                _report(one, time.perf_counter() - start)


def _report(trained: Trained, seconds: float) -> None:
    threshold = trained.thresholds.image
    if threshold is None:
        log.warning("too few images to set a threshold: infer needs --threshold NUMBER")
        return
    rate = "" if threshold.rate is None else f", nominal false-positive rate {threshold.rate:.2%}"
    log.info(
        "%s: %d patches, threshold %.4g (%s%s), %.1f s",
        trained.category,
        len(trained.coreset.bank),
        threshold.value,
        threshold.method,
        rate,
        seconds,
    )
