"""In which precision the backbone computes."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Precision:
    """How the backbone computes.

    Attributes:
        dtype: Of its weights and maps.
        tensor_float: Whether a GPU's float32 convolutions and products may round their factors to
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

# Of `torch.backends.cpu.get_cpu_capability`: processors that have no half precision of their own.
_FLOAT32_ONLY = ("DEFAULT", "NO AVX", "AVX2")


def is_emulated(precision: str, device: torch.device) -> bool:
    """Tell whether a device would compute in a precision by way of float32, and so more slowly.

    As far as torch tells: of processors with AVX-512 some have no half precision either.
    An AMD EPYC without AVX-512 took seven times as long for WideResNet50 in bfloat16.
    """
    dtype = PRECISIONS[precision].dtype
    if device.type == "cuda":
        return dtype == torch.bfloat16 and not torch.cuda.is_bf16_supported(
            including_emulation=False
        )
    halves = dtype != torch.float32
    return halves and torch.backends.cpu.get_cpu_capability() in _FLOAT32_ONLY


def warn_if_emulated(precision: str, device: torch.device) -> None:
    """Say in the log that a precision is slower on a device than ``float32``, where it is."""
    if is_emulated(precision, device):
        log.warning(
            "this processor has no %s of its own and takes longer than with --precision float32",
            precision,
        )


# Of products and of convolutions: who holds the setting, and who holds that of torch 2.9 and later.
_HOLDERS = (
    (torch.backends.cuda.matmul, torch.backends.cuda.matmul),
    (torch.backends.cudnn, getattr(torch.backends.cudnn, "conv", None)),
)


@contextmanager
def float32_products(tensor_float: bool = False) -> Iterator[None]:
    """Compute float32 products and convolutions on a GPU in full, or as TF32, within a block.

    torch's default rounds those of convolutions; whoever set something else for the process finds
    it again afterwards. The settings are the process's: while a block runs, other threads have them
    too. On a CPU this changes nothing.
    """
    changed = []
    for holders in _HOLDERS:
        holder, name, wanted = _setting(*holders, tensor_float)
        before = getattr(holder, name)
        if before != wanted:
            setattr(holder, name, wanted)
            changed.append((holder, name, before))
    try:
        yield
    finally:
        for holder, name, before in changed:
            setattr(holder, name, before)


def _setting(older: object, newer: object, tensor_float: bool) -> tuple[object, str, bool | str]:
    """Return a setting as the process has made it so far: its holder, name and wanted value."""
    try:
        older.allow_tf32  # noqa: B018
    except RuntimeError:  # the process uses the newer names, which torch does not let one mix
        return newer, "fp32_precision", "tf32" if tensor_float else "ieee"
    return older, "allow_tf32", tensor_float
