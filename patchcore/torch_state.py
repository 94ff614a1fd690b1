"""What a process has set in torch, kept apart from a computation.

The settings are products that may be rounded, autocast, and the default type and device.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch


@dataclass(frozen=True)
class _Setting:
    """A setting that torch has for the process as a whole.

    Attributes:
        read: Returns its value.
        write: Sets its value.
        accepted: For each value that a `_ProcessSetting` can hold, the equivalent values; any
            other is replaced by the first.
    """

    read: Callable[[], object]
    write: Callable[[object], None]
    accepted: Mapping[bool, tuple[object, ...]]

    def value(self) -> object:
        """Return its value; None if torch does not let it be read."""
        try:
            return self.read()
        except RuntimeError:  # the process uses the newer names, and torch allows only one kind
            return None


def _attribute(holder: object, name: str, accepted: Mapping[bool, tuple[object, ...]]) -> _Setting:
    return _Setting(partial(getattr, holder, name), partial(setattr, holder, name), accepted)


def _precision_settings() -> tuple[_Setting, ...]:
    """Return what decides whether float32 products are rounded: older names, then newer ones.

    The older ones are set first, if torch lets the process read them. torch then still accepts
    the newer ones for what the older ones do not cover.
    """
    backends = torch.backends
    older = (
        _Setting(
            torch.get_float32_matmul_precision,
            torch.set_float32_matmul_precision,
            {False: ("highest",), True: ("high",)},
        ),
        _attribute(backends.cudnn, "allow_tf32", {False: (False,), True: (True,)}),
    )
    if not hasattr(backends.cudnn, "conv"):  # before torch 2.9
        return older
    exact = ("ieee", "none")
    holders = {  # and what they are set to where the other products are rounded
        backends.cuda.matmul: ("tf32",),
        backends.cudnn.conv: ("tf32",),
        backends.mkldnn.matmul: exact,
        backends.mkldnn.conv: exact,
    }
    newer = (
        _attribute(holder, "fp32_precision", {False: exact, True: rounded})
        for holder, rounded in holders.items()
    )
    return (*older, *newer)


class _ProcessSetting:
    """Settings that torch has for the process as a whole, as a block of code needs them.

    Threads that want the same value share it. A thread that wants the other value waits until no
    thread holds this one. What the process had set before is restored when the last thread releases
    it.
    """

    def __init__(self, settings: Sequence[_Setting]):
        self._settings = settings
        self._changed_hands = threading.Condition()
        self._num_holders = 0
        self._value = False
        self._former: list[tuple[_Setting, object]] = []
        self._held_by_thread = threading.local()

    @contextmanager
    def hold(self, value: bool) -> Iterator[None]:
        """Hold a value within a block. Inside it, a nested block may hold the other value."""
        outer = getattr(self._held_by_thread, "value", None)
        self._exchange(outer, value)
        try:
            yield
        finally:
            self._exchange(value, outer)

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
                self._changed_hands.wait_for(lambda: not self._num_holders or self._value is new)
                if not self._num_holders:
                    self._set(new)
                self._num_holders += 1
        self._held_by_thread.value = new

    def _set(self, value: bool) -> None:
        self._value = value
        before = [(setting, setting.value()) for setting in self._settings]
        for setting in self._settings:
            # What is as wanted stays untouched: other settings may follow from it.
            if setting.value() not in (None, *setting.accepted[value]):
                setting.write(setting.accepted[value][0])
                self._former = before

    def _restore(self) -> None:
        for setting, before in self._former:
            if before is not None and setting.value() != before:
                setting.write(before)
        self._former = []


# The one guard of each group of settings.
_PRODUCTS = _ProcessSetting(_precision_settings())
_DEFAULT_TYPE = _ProcessSetting(
    (_Setting(torch.get_default_dtype, torch.set_default_dtype, {True: (torch.float32,)}),)
)


class _OfThread(threading.local):
    """What `torch_defaults` has set for a thread."""

    replaces_device = False


_OF_THREAD = _OfThread()


@contextmanager
def torch_defaults() -> Iterator[None]:
    """Compute with torch's own defaults within a block: in float32, on the CPU, without autocast.

    A caller may have set others, which would reach each tensor that is made without a type or a
    device. They are restored afterwards. The type belongs to the process: other threads have
    float32 too while a block runs.
    """
    with ExitStack() as stack:
        stack.enter_context(_DEFAULT_TYPE.hold(True))
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.callback(setattr, _OF_THREAD, "replaces_device", _OF_THREAD.replaces_device)
            _OF_THREAD.replaces_device = True
            stack.enter_context(torch.device("cpu"))
        yield


def device_of_network(device: torch.device) -> AbstractContextManager:
    """Return a context for the run of a network on a device.

    A network of the caller's may rely on the default device that `torch_defaults` replaces.
    """
    return device if _OF_THREAD.replaces_device else nullcontext()


@contextmanager
def float32_products(tensor_float: bool = False) -> Iterator[None]:
    """Compute float32 products and convolutions in full, or as TF32 on a GPU, within a block.

    By default, torch rounds those of convolutions on a GPU, and a process may let it round others.
    What the process had set before is restored afterwards. The setting belongs to the process:
    other threads have it too while a block runs, and those that ask for the other value here wait
    for the end of the block. On a CPU, products are in full in both cases.

    Args:
        tensor_float: Whether to round to TF32 on a GPU.
    """
    with _PRODUCTS.hold(tensor_float):
        yield
