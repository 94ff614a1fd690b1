"""Export of a trained model to one file that runs without this program."""

import logging
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from datasets.depth import Decoding
from datasets.images import read_image
from datasets.inputs import find_items
from patchcore import PatchCore
from patchcore.export import TOLERANCE, export
from patchcore.export.formats import FORMATS
from utils.options.export import ExportOptions
from utils.pipeline.models import load_model
from utils.pipeline.reading import decoding_of_model
from utils.pipeline.trained_models import model_folder

# Number of images to compare on.
NUM_IMAGES = 16
# Packages that log every step of a conversion.
CONVERTERS = ("onnx_ir", "onnxscript", "torch.onnx")
# Code that runs a file of each format.
USAGE = {
    "onnx": """session = onnxruntime.InferenceSession({path!r})
images = numpy.zeros((1, 3, {height}, {width}), numpy.uint8)  # {what}
score, anomaly_map = session.run(None, {{"images": images}})""",
    "torch": """model = torch.export.load({path!r}).module()
images = torch.zeros(1, 3, {height}, {width}, dtype=torch.uint8)  # {what}
score, anomaly_map = model(images)""",
}

log = logging.getLogger(__name__)


def export_model(options: ExportOptions, folder: Path) -> None:
    """Write a trained model to one file, compare both, and print how to run the file.

    Args:
        options: Options of the run.
        folder: Folder of the trained model.

    Raises:
        DatasetError, PatchCoreError: User-fixable errors.
    """
    FORMATS[options.format].check_packages()
    for name in CONVERTERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    model = load_model(folder, options, torch.device("cpu"))
    path = Path(options.path_export or default_name(model, options.format))
    images, source = images_to_compare(model, options.images)
    log.info("writing %s and comparing it with the model on %s", path, source)
    exported = export(model, path, options.format, images=images)
    print(
        f"{exported.path}: {exported.num_bytes / 1e6:.1f} MB\n"
        f"compared on {exported.num_images} images ({source}): scores and maps differ by at most "
        f"{exported.difference:.1e} of the model's ({TOLERANCE:g} is allowed)\n\n"
        f"{usage(model, path, options.format)}"
    )


def default_name(model: PatchCore, file_format: str) -> str:
    """Return the default name of the file, made from the folder of the trained model."""
    folder = model_folder(
        Path(), model.trained.category, model.backbone.name, model.percentages[-1], model.settings.k
    )
    return "_".join(folder.parts) + FORMATS[file_format].suffix


def images_to_compare(model: PatchCore, paths: tuple[str, ...]) -> tuple[list[np.ndarray], str]:
    """Read images to compare on.

    Args:
        model: Model with the files of its training images.
        paths: Value of ``--images``.

    Returns:
        The images, empty if the training images no longer exist; and a description of their source.

    Raises:
        DatasetError: an image cannot be read.
    """
    decoding = decoding_of_model(model.trained, Decoding().max_megapixels)
    if paths:
        items = islice(find_items(paths), NUM_IMAGES)
        return [item.read(decoding) for item in items], "those of --images, and noise"
    files = [Path(name) for name in model.coreset.origins.names if Path(name).is_file()]
    if not files:
        return [], "noise alone, since the training images no longer exist: --images gives others"
    chosen = files[:: -(-len(files) // NUM_IMAGES)]  # evenly spaced
    return [read_image(file, decoding) for file in chosen], "training images, and noise"


def usage(model: PatchCore, path: Path, file_format: str) -> str:
    """Return the lines of Python that run an exported file."""
    preprocess = model.preprocess
    height, width = preprocess.size_crop
    return USAGE[file_format].format(
        path=str(path), height=height, width=width, what=f"RGB, {preprocess.describe()}"
    )
