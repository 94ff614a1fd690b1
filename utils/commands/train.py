"""`main.py train`: learn from normal images alone; keep what infer and export need."""

import logging
import time
from dataclasses import dataclass
from pathlib import Path

from datasets.base import GOOD, Category, DatasetError, Sample
from datasets.inputs import find_items
from datasets.mvtec import find_categories, read_training
from utils.errors import UsageError
from utils.flags import flag
from utils.options import Options, parse_options
from utils.pipeline.fit import learn
from utils.pipeline.keeping import trained_models, write_models
from utils.pipeline.models import choose_device, make_models, summarise, with_layers
from utils.results import make_writable
from utils.stopwatch import Stopwatch
from utils.thresholds import F1_MAX

DESCRIPTION = """Learn what is normal and keep it, without test images: either PATHs of normal
images as one --category, or the train/good images of the categories in --path_data."""
# Flags of an evaluation that have nothing to do here.
WITHOUT = (
    *("path_result", "save_maps", "aupro_limit", "profile"),
    *("pictures", "pictures_limit", "explain_top", "score_max"),
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainOptions(Options):
    """What is to be learned."""

    paths: tuple[str, ...] = flag(
        (),
        "input",
        "normal images: files, folders (searched through) or patterns; without them, the "
        "categories in --path_data are learned",
        metavar="PATH",
        positional=True,
    )
    category: str = flag(
        "", "input", "what the images at PATHs show: the name of their model", metavar="NAME"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if bool(self.paths) != bool(self.category):
            raise UsageError("expected PATHs and their --category together, or neither")
        if Path(self.category).name != self.category or self.category.startswith("."):
            raise UsageError(f"expected a plain name as --category, found {self.category!r}")
        if F1_MAX in (self.threshold, self.threshold_pixel):
            raise UsageError(
                f"expected --threshold train_quantile or a number: {F1_MAX} needs the labelled "
                "test images of evaluate"
            )
        if len(set(self.seed)) > 1 or not self.saves_models:
            raise UsageError("expected one --seed, and a --path_trained to keep the models in")


def main(arguments: list[str], *, epilog: str = "") -> None:
    """Run the command."""
    options = parse_options(
        arguments,
        command="train",
        description=DESCRIPTION,
        defaults=TrainOptions(pictures="none"),
        epilog=epilog,
        without=WITHOUT,
    )
    options = with_layers(options)
    categories = _find_categories(options)
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


def _report(trained, seconds: float) -> None:
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


def _find_categories(options: TrainOptions) -> list[Category]:
    """Return the training images, of each category or of the PATHs."""
    if not options.paths:
        names = dict.fromkeys(options.categories) or find_categories(options.path_data)
        return [read_training(options.path_data, name) for name in names]
    samples = []
    for item in find_items(options.paths):
        if item.fault or item.frame is not None:
            raise DatasetError(
                item.fault or f"expected images to learn, found a video: {item.path}"
            )
        samples.append(Sample(item.path, options.category, GOOD))
    return [Category(options.category, tuple(samples), (), has_masks=False)]
