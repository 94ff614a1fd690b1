"""`main.py [evaluate]`: PatchCore on the categories of a dataset."""

from utils.options.evaluate import EvaluateOptions
from utils.options.method import parse_options
from utils.pipeline.categories import read_categories

DESCRIPTION = """Evaluate PatchCore on the categories of a dataset in any known layout: fit on the
training images, score the test images, measure, and draw figures."""


def main(arguments: list[str], *, epilog: str = "") -> None:
    """Run the command."""
    options = parse_options(
        arguments, EvaluateOptions(), command="", description=DESCRIPTION, epilog=epilog
    )
    options.check_files()
    categories = read_categories(options)

    from utils.pipeline.evaluation import evaluate

    evaluate(options, categories)
