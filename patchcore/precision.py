"""Precision of the backbone."""

import logging
from dataclasses import dataclass

import torch

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Precision:
    """How the backbone computes.

    Attributes:
        dtype: Type of its weights and maps.
        tensor_float: Whether float32 convolutions and products on a GPU may round their factors to
            10 bits (TF32), which is several times as fast.
    """

    dtype: torch.dtype
    tensor_float: bool = False


PRECISIONS = {
    "float32": Precision(torch.float32),
    "tf32": Precision(torch.float32, tensor_float=True),
    "bfloat16": Precision(torch.bfloat16),
    "float16": Precision(torch.float16),
}

# Values of `torch.backends.cpu.get_cpu_capability` for processors without half precision.
_FLOAT32_ONLY = ("DEFAULT", "NO AVX", "AVX2")


def is_emulated(precision: str, device: torch.device) -> bool:
    """Return whether a device emulates a precision by float32, which is slower.

    This is what torch reports: some processors with AVX-512 have no half precision either. An AMD
    EPYC without AVX-512 took seven times as long for WideResNet50 in bfloat16.
    """
    dtype = PRECISIONS[precision].dtype
    if device.type == "cuda":
        return dtype == torch.bfloat16 and not torch.cuda.is_bf16_supported(
            including_emulation=False
        )
    halves = dtype != torch.float32
    return halves and torch.backends.cpu.get_cpu_capability() in _FLOAT32_ONLY


def warn_if_emulated(precision: str, device: torch.device) -> None:
    """Log a warning if a precision is slower than ``float32`` on a device."""
    if is_emulated(precision, device):
        log.warning(
            "this processor does not support %s natively; --precision float32 is faster",
            precision,
        )
