"""`main.py [evaluate]`: evaluate PatchCore on the categories of a dataset."""

from utils.options.evaluate import EvaluateOptions
from utils.options.method import parse_options
from utils.pipeline.categories import read_categories
from utils.pipeline.skipping import Skipping

DESCRIPTION = """Evaluate PatchCore on the categories of a dataset in any known layout: fit on the
training images, score the test images, measure, and draw figures."""


def main(arguments: list[str], *, epilog: str = "") -> int:
    """Run the command; return its exit status."""
    options = parse_options(
        arguments, EvaluateOptions(), command="", description=DESCRIPTION, epilog=epilog
    )
    options.check_files()
    skipping = Skipping(options)
    categories = read_categories(options, skipping)

    from utils.pipeline.evaluation import evaluate

    evaluate(options, categories, skipping)
    return skipping.status
