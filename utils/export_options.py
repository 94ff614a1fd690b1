"""The flags of ``export``."""

from dataclasses import dataclass

from utils.flags import flag
from utils.model_choice import ModelChoice

FORMATS = ("onnx", "torch")


@dataclass(frozen=True)
class ExportOptions(ModelChoice):
    """Which model becomes a file, and how it is checked."""

    format: str = flag(
        "onnx",
        "export",
        "onnx (for onnxruntime, TensorRT, OpenVINO and others; needs pip install onnx onnxscript "
        "onnxruntime), or torch (for torch.export.load)",
        choices=FORMATS,
    )
    path_export: str = flag(
        "",
        "export",
        "the file (default: <category>_<backbone>_p0100_k01.onnx or .pt2 in the current folder)",
        metavar="FILE",
    )
    images: tuple[str, ...] = flag(
        (),
        "export",
        "pictures to compare the file with the model on: files, folders or patterns, of which the "
        "first 16 are taken (default: training images, where they still are)",
        metavar="PATH",
    )
