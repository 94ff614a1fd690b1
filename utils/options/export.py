"""Flags of ``export``."""

from dataclasses import dataclass

from patchcore.settings import EXPORT_FORMATS
from utils.options.flags import flag
from utils.options.log import LogOptions
from utils.options.model_choice import ModelChoice


@dataclass(frozen=True)
class ExportOptions(LogOptions, ModelChoice):
    """Options of an export."""

    format: str = flag(
        "onnx",
        "export",
        "file format: onnx (for onnxruntime, TensorRT, OpenVINO and others; needs pip install onnx "
        "onnxscript onnxruntime), or torch (for torch.export.load)",
        choices=EXPORT_FORMATS,
    )
    path_export: str = flag(
        "",
        "export",
        "path of the file (default: <category>_<backbone>_p0100_k01.onnx or .pt2 in the current "
        "folder)",
        metavar="FILE",
    )
    images: tuple[str, ...] = flag(
        (),
        "export",
        "images for comparing the file with the model: files, folders or patterns; the first 16 "
        "images are used (default: training images, if they still exist)",
        metavar="PATH",
    )
