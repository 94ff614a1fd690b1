"""`main.py train`: models of normal images alone, for infer and export."""

from datasets.base import GOOD, Category, DatasetError, Sample
from datasets.inputs import find_items
from datasets.layouts import layout_of
from utils.options.method import parse_options
from utils.options.train import DEFAULTS, TrainOptions
from utils.pipeline.categories import category_names

DESCRIPTION = """Fit models on normal images and save them, without test images: either on PATHs of
normal images as one --category, or on the train/good images of the categories in --path_data."""


def main(arguments: list[str], *, epilog: str = "") -> None:
    """Run the command."""
    options = parse_options(
        arguments, DEFAULTS, command="train", description=DESCRIPTION, epilog=epilog
    )
    options.check_files()
    categories = read_categories(options)

    from utils.pipeline.training import train

    train(options, categories)


def read_categories(options: TrainOptions) -> list[Category]:
    """List the training images of each category, or those at the PATHs.

    Raises:
        DatasetError: A folder or file is missing, or a PATH is a video.
    """
    if not options.paths:
        layout = layout_of(options.path_data)
        return [layout.read_training(options.path_data, name) for name in category_names(options)]
    samples = []
    for item in find_items(options.paths):
        if item.fault or item.frame is not None:
            raise DatasetError(
                item.fault or f"expected images to learn, found a video: {item.path}"
            )
        samples.append(Sample(item.path, options.category, GOOD))
    return [Category(options.category, tuple(samples), (), has_masks=False)]
