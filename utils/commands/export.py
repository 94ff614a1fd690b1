"""`main.py export`: write a trained model to one file that runs without this program."""

from datasets.base import DatasetError
from datasets.inputs import path_fault
from utils.options.export import ExportOptions
from utils.options.flags import parse_flags
from utils.pipeline.trained_models import choose_model

DESCRIPTION = """Write a trained model, with its memory bank, to one file that takes images and
returns scores and anomaly maps. The file appears only after its outputs were compared with the
outputs of the model."""


def main(arguments: list[str], *, epilog: str = "") -> None:
    """Run the command."""
    options = parse_flags(
        arguments, ExportOptions(), command="export", description=DESCRIPTION, epilog=epilog
    )
    for path in options.images:
        if fault := path_fault(path):
            raise DatasetError(f"{fault} (--images)")
    model = choose_model(options)

    from utils.pipeline.exporting import export_model

    export_model(options, model)
