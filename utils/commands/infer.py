"""`main.py infer`: judge images with a trained model."""

from datasets.base import DatasetError
from datasets.inputs import path_fault
from utils.options.flags import parse_flags
from utils.options.infer import InferOptions
from utils.pipeline.trained_models import choose_model

DESCRIPTION = """Judge images, folders, videos or a camera with a model saved by train or evaluate.
Exit status: 0 if all images are normal, 1 if at least one is anomalous, 2 on wrong usage or if an
image or a part of a video could not be judged (the other images are judged)."""


def main(arguments: list[str], *, epilog: str = "") -> int:
    """Run the command; return its exit status."""
    options = parse_flags(
        arguments, InferOptions(), command="infer", description=DESCRIPTION, epilog=epilog
    )
    options.check_input()
    options.check_ignore_mask()
    faults = [path_fault(path) for path in options.paths]
    if faults and all(faults):  # if only some are missing, the rest is judged
        raise DatasetError("; ".join(faults))
    model = choose_model(options)

    from utils.pipeline.inference import infer

    return infer(options, model)
