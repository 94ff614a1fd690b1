"""`main.py demo`: the whole evaluation on procedural categories, without a dataset."""

import logging
from dataclasses import replace
from pathlib import Path

from datasets import synthetic
from patchcore.formulanet import FORMULANET
from patchcore.weights import DEFAULT, WeightsUnavailableError
from utils.commands.evaluate import evaluate
from utils.errors import UsageError
from utils.options import Options, parse_options
from utils.progress import show_progress

DESCRIPTION = """Make procedural categories in MVTec AD's layout (those that are missing), and
evaluate PatchCore on them. Where the ImageNet weights are neither cached nor downloadable, the
demo uses formulanet, the backbone that ships with the code."""
# Small enough for a few minutes on two cores, large enough for a meaningful AUROC.
NUM_TRAIN, NUM_TEST_GOOD, NUM_TEST_PER_DEFECT = 32, 10, 6
DEFAULTS = Options(
    path_data=Path("synthetic_anomaly_detection"),
    path_result=Path("result_demo"),
    path_trained=Path("trained_demo"),
    percentage_coreset=(0.01, 0.1),
)

log = logging.getLogger(__name__)


def main(arguments: list[str], *, epilog: str = "") -> None:
    """Run the command."""
    options = parse_options(
        arguments, command="demo", description=DESCRIPTION, defaults=DEFAULTS, epilog=epilog
    )
    make_data(options)
    try:
        evaluate(options)
    except WeightsUnavailableError as error:
        log.warning("%s", error)
        note = f"ImageNet weights could not be had: the demo went on with {FORMULANET}."
        log.warning("%s", note)
        shipped = replace(options, backbone=(FORMULANET,), weights=(DEFAULT,), layers=())
        evaluate(shipped, note=note)


def make_data(options: Options) -> None:
    """Write the procedural categories of ``--categories``, or all of them.

    Raises:
        UsageError: a name is not that of a procedural category.
    """
    names = options.categories or tuple(synthetic.CATEGORIES)
    for name in names:
        if name not in synthetic.CATEGORIES:
            raise UsageError(
                f"expected --categories out of {', '.join(synthetic.CATEGORIES)}, found {name!r}"
            )
    log.info("making the procedural categories that are missing in %s", options.path_data)
    with show_progress(0, "make images", "image") as bar:
        synthetic.write_dataset(
            options.path_data,
            categories=names,
            num_train=NUM_TRAIN,
            num_test_good=NUM_TEST_GOOD,
            num_test_per_defect=NUM_TEST_PER_DEFECT,
            progress=bar.update,
        )
