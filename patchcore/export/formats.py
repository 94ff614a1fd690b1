"""File formats of `patchcore.export`: writing a traced program, and running it from its file."""

import importlib.util
import io
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.export import ExportedProgram

from patchcore.errors import PatchCoreError

# Images (B, 3, H, W) uint8 to scores (B,) and maps (B, H, W), both float32.
Runner = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]

INPUT, OUTPUTS = "images", ("score", "anomaly_map")
# A protobuf message holds at most 2 GB. Nodes and names take less than the difference.
ONNX_MAX_BYTES = 2**31 - 2**24
# The oldest version that torch's exporter writes without conversion, and so the best supported.
ONNX_OPSET = 18


class FileFormat(ABC):
    """A file format.

    Attributes:
        suffix: Suffix of the file names.
        packages: Required packages that this package itself does not require.
    """

    suffix: str
    packages: tuple[str, ...] = ()

    def check_packages(self) -> None:
        """Raise PatchCoreError if a package is missing."""
        missing = [name for name in self.packages if importlib.util.find_spec(name) is None]
        if missing:
            raise PatchCoreError(
                f"expected the packages {', '.join(self.packages)} to write {self.suffix} files, "
                f"missing: {', '.join(missing)}. Install them: pip install {' '.join(missing)}"
            )

    @abstractmethod
    def check_size(self, module: nn.Module) -> None:
        """Raise PatchCoreError if a module is too large for the format."""

    @abstractmethod
    def write(
        self, program: ExportedProgram, path: Path, description: Mapping[str, object]
    ) -> None:
        """Write a program of one input and two outputs, with a description of JSON values."""

    @abstractmethod
    def load(self, path: Path) -> Runner:
        """Read a file as its users do; return a function that runs it on the CPU."""


class OnnxFormat(FileFormat):
    """One ONNX file, weights and memory bank inside; the description is in its metadata."""

    suffix = ".onnx"
    packages = ("onnx", "onnxscript", "onnxruntime")

    def check_size(self, module: nn.Module) -> None:
        """Raise PatchCoreError if weights and bank exceed the size of an ONNX file."""
        tensors = (*module.parameters(), *module.buffers())
        num_bytes = sum(tensor.nbytes for tensor in tensors)
        if num_bytes > ONNX_MAX_BYTES:
            raise PatchCoreError(
                f"expected at most {ONNX_MAX_BYTES / 1e9:.2f} GB of weights and memory bank, the "
                f"limit of an ONNX file, found {num_bytes / 1e9:.2f} GB: export a smaller coreset "
                "(percentage_coreset), or in the format torch"
            )

    def write(
        self, program: ExportedProgram, path: Path, description: Mapping[str, object]
    ) -> None:
        """Write the file; values of the description that are not text are written as JSON."""
        converted = torch.onnx.export(
            program,
            dynamic_shapes={INPUT: {0: "batch"}},
            input_names=[INPUT],
            output_names=list(OUTPUTS),
            opset_version=ONNX_OPSET,
            dynamo=True,
            verbose=False,
        )
        for node in converted.model.graph.all_nodes():
            node.metadata_props.clear()  # stack traces, with paths of this machine
        converted.model.metadata_props.update(
            (key, value if isinstance(value, str) else json.dumps(value))
            for key, value in description.items()
        )
        converted.save(path, external_data=False)

    def load(self, path: Path) -> Runner:
        """Read the file with onnxruntime."""
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        return lambda images: tuple(session.run(list(OUTPUTS), {INPUT: images}))


class TorchFormat(FileFormat):
    """A file for `torch.export.load`; the description is its extra file ``metadata.json``."""

    suffix = ".pt2"

    def check_size(self, module: nn.Module) -> None:
        """Accept any size."""

    def write(
        self, program: ExportedProgram, path: Path, description: Mapping[str, object]
    ) -> None:
        """Write the file."""
        text, buffer = json.dumps(description, indent=2), io.BytesIO()
        # torch's own writer of files aborts the process if the disk is full.
        torch.export.save(program, buffer, extra_files={"metadata.json": text})
        path.write_bytes(buffer.getbuffer())

    def load(self, path: Path) -> Runner:
        """Read the file with torch."""
        module = torch.export.load(path).module()

        def run(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            with torch.no_grad():
                score, anomaly_map = module(torch.from_numpy(images))
            return score.numpy(), anomaly_map.numpy()

        return run


FORMATS: dict[str, FileFormat] = {"onnx": OnnxFormat(), "torch": TorchFormat()}
