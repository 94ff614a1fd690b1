"""`main.py train`: models of normal images, for infer and export."""

import logging
import sys
from pathlib import Path

from datasets.base import Category
from datasets.notes import Notes
from datasets.training_images import read_training_images
from patchcore.record import read_record
from utils.options.method import parse_options
from utils.options.train import DEFAULTS, TrainOptions
from utils.pipeline.categories import read_training
from utils.pipeline.skipping import Skipping

DESCRIPTION = """Fit models on normal images and save them, without test images: either on PATHs of
normal images as one --category, or on the good training images of the categories in --path_data.
With --extend, the normal images at PATHs are added to a trained model."""

log = logging.getLogger(__name__)


def main(arguments: list[str], *, epilog: str = "") -> int:
    """Run the command; return its exit status."""
    options = parse_options(
        arguments, DEFAULTS, command="train", description=DESCRIPTION, epilog=epilog
    )
    options.check_files()
    if options.extend:
        read_record(Path(options.extend))  # before torch is imported
    skipping = Skipping(options)
    categories = read_categories(options, skipping)

    from utils.pipeline.training import extend_model, train

    if options.extend:
        return extend_model(options, categories[0], skipping)
    return train(options, categories, skipping)


def read_categories(options: TrainOptions, skipping: Skipping) -> list[Category]:
    """List the training images of each category, or those at the PATHs.

    Raises:
        DatasetError: A folder or file is missing, or not all images at the PATHs are normal.
    """
    if not options.paths:
        return read_training(options, skipping)
    notes = Notes()
    category = read_training_images(options.paths, options.category, notes, sys.stdin)
    for note in notes.all():
        log.info("%s", note)
    return [category]
