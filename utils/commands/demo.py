"""`main.py demo`: the whole evaluation on procedural categories, for who has no dataset yet."""

import logging
from dataclasses import replace
from pathlib import Path

from datasets import synthetic
from patchcore.formulanet import FORMULANET
from patchcore.weights import DEFAULT, WeightsUnavailableError
from utils.commands.evaluate import evaluate
from utils.commands.trial import check_categories
from utils.options import Options, parse_options
from utils.progress import show_progress

DESCRIPTION = """Make procedural categories in MVTec AD's layout (where they are not there yet), and
evaluate PatchCore on them. Without a network and cached ImageNet weights it goes on with
formulanet, the backbone that ships with the code."""
# Small enough for about three minutes on two cores, large enough that AUROC has some meaning.
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
    """Write the procedural categories, those of ``--categories`` or all."""
    names = options.categories or tuple(synthetic.CATEGORIES)
    check_categories(names)
    log.info("making procedural categories in %s, where they are not yet there", options.path_data)
    with show_progress(0, "make pictures", "picture") as bar:
        synthetic.write_dataset(
            options.path_data,
            categories=names,
            num_train=NUM_TRAIN,
            num_test_good=NUM_TEST_GOOD,
            num_test_per_defect=NUM_TEST_PER_DEFECT,
            progress=bar.update,
        )
