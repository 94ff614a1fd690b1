"""`main.py demo`: evaluate on procedural categories, without a dataset."""

import logging
from dataclasses import replace
from pathlib import Path

from datasets.base import did_you_mean
from datasets.synthetic import NAMES
from patchcore.settings import DEFAULT
from utils.errors import UsageError, named_flag
from utils.options.evaluate import EvaluateOptions
from utils.options.method import parse_options
from utils.pipeline.categories import read_categories
from utils.pipeline.skipping import Skipping

DESCRIPTION = """Make the missing procedural categories in MVTec AD's layout, and evaluate PatchCore
on them. If the ImageNet weights are neither cached nor downloadable, the demo uses formulanet, the
backbone that ships with the code."""
# Small enough for a few minutes on two cores, large enough for a meaningful AUROC.
NUM_TRAIN, NUM_TEST_GOOD, NUM_TEST_PER_DEFECT = 32, 10, 6
DEFAULTS = EvaluateOptions(
    path_data=Path("synthetic_anomaly_detection"),
    path_result=Path("result_demo"),
    percentage_coreset=(0.01, 0.1),
)

log = logging.getLogger(__name__)


def main(arguments: list[str], *, epilog: str = "") -> int:
    """Run the command; return its exit status."""
    options = parse_options(
        arguments, DEFAULTS, command="demo", description=DESCRIPTION, epilog=epilog
    )
    for name in options.categories:
        if name not in NAMES:
            raise UsageError(
                f"expected categories among {', '.join(NAMES)}, found {name!r} (--categories)"
                f"{did_you_mean(name, NAMES)}"
            )
    options.check_files()
    make_data(options)
    skipping = Skipping(options)
    categories = read_categories(options, skipping)

    from patchcore.formulanet import FORMULANET
    from patchcore.weights import WeightsUnavailableError
    from utils.pipeline.evaluation import evaluate

    try:
        evaluate(options, categories, skipping)
    except WeightsUnavailableError as error:
        note = (
            f"The ImageNet weights of {' '.join(options.backbone)} are not available: the demo "
            f"uses {FORMULANET}, the backbone that ships with the code."
        )
        log.warning("%s", note)
        log.debug("%s", error)
        shipped = replace(options, backbone=(FORMULANET,), weights=(DEFAULT,), layers=())
        evaluate(shipped, categories, skipping, note=note)
    return skipping.status


def make_data(options: EvaluateOptions) -> None:
    """Write the procedural categories of ``--categories``, or all of them."""
    from datasets.synthetic.writing import write_dataset
    from utils.progress import show_progress

    log.info("making the procedural categories that are missing in %s", options.path_data)
    with named_flag("--path_data"), show_progress(0, "make images", "image") as bar:
        write_dataset(
            options.path_data,
            categories=options.categories or NAMES,
            num_train=NUM_TRAIN,
            num_test_good=NUM_TEST_GOOD,
            num_test_per_defect=NUM_TEST_PER_DEFECT,
            progress=bar.update,
        )
