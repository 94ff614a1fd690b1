"""Precision of the backbone."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
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


# For products and for convolutions: where the setting is, and where that of torch 2.9 and later is.
_HOLDERS = (
    (torch.backends.cuda.matmul, torch.backends.cuda.matmul),
    (torch.backends.cudnn, getattr(torch.backends.cudnn, "conv", None)),
)


class _ProcessSetting:
    """Whether float32 products are rounded to TF32, which torch sets for the process as a whole.

    Threads that want the same value share it. A thread that wants the other value waits until no
    thread holds this one. What the process had set before is restored when the last thread releases
    it.
    """

    def __init__(self):
        self._changed_hands = threading.Condition()
        self._num_holders = 0
        self._tensor_float = False
        self._former: list[tuple[object, str, object]] = []
        self._held_by_thread = threading.local()

    @contextmanager
    def hold(self, tensor_float: bool) -> Iterator[None]:
        """Hold a value within a block. Inside it, a nested block may hold the other value."""
        outer = getattr(self._held_by_thread, "value", None)
        self._exchange(outer, tensor_float)
        try:
            yield
        finally:
            self._exchange(tensor_float, outer)

    def _exchange(self, old: bool | None, new: bool | None) -> None:
        """Release one value, then hold another one; None for no value."""
        if old is new:
            return
        with self._changed_hands:
            if old is not None:
                self._num_holders -= 1
                if not self._num_holders:
                    self._restore()
                    self._changed_hands.notify_all()
            if new is not None:
                self._changed_hands.wait_for(
                    lambda: not self._num_holders or self._tensor_float == new
                )
                self._set(new)  # which changes nothing if another thread holds it
                self._num_holders += 1
        self._held_by_thread.value = new

    def _set(self, tensor_float: bool) -> None:
        self._tensor_float = tensor_float
        for holders in _HOLDERS:
            holder, name, wanted = _setting(*holders, tensor_float)
            before = getattr(holder, name)
            if before != wanted:
                setattr(holder, name, wanted)
                self._former.append((holder, name, before))

    def _restore(self) -> None:
        for holder, name, before in self._former:
            setattr(holder, name, before)
        self._former.clear()


# The one guard of a setting that torch has once for the process.
_PROCESS_SETTING = _ProcessSetting()


@contextmanager
def float32_products(tensor_float: bool = False) -> Iterator[None]:
    """Compute float32 products and convolutions on a GPU in full, or as TF32, within a block.

    By default, torch rounds those of convolutions. What the process had set before is restored
    afterwards. The setting belongs to the process: other threads have it too while a block runs,
    and those that ask for the other value here wait for the end of the block. It changes nothing
    on a CPU.

    Args:
        tensor_float: Whether to round to TF32.
    """
    with _PROCESS_SETTING.hold(tensor_float):
        yield


def _setting(older: object, newer: object, tensor_float: bool) -> tuple[object, str, bool | str]:
    """Return where the process has made a setting so far: its holder, name and wanted value."""
    try:
        older.allow_tf32  # noqa: B018
    except RuntimeError:  # the process uses the newer names, which torch does not let one mix
        return newer, "fp32_precision", "tf32" if tensor_float else "ieee"
    return older, "allow_tf32", tensor_float
