"""`main.py train`: models of normal images alone, for infer and export."""

from utils.options.method import parse_options
from utils.options.train import DEFAULTS
from utils.pipeline.categories import read_training_categories

DESCRIPTION = """Fit models on normal images and save them, without test images: either on PATHs of
normal images as one --category, or on the train/good images of the categories in --path_data."""


def main(arguments: list[str], *, epilog: str = "") -> None:
    """Run the command."""
    options = parse_options(
        arguments, DEFAULTS, command="train", description=DESCRIPTION, epilog=epilog
    )
    options.check_files()
    categories = read_training_categories(options)

    from utils.pipeline.training import train

    train(options, categories)
