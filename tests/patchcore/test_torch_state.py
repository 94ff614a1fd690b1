"""What is set for a block is set in it alone; on a CPU nothing else can be seen."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import pytest
import torch

from patchcore import PatchCore
from patchcore.backbone import Backbone
from patchcore.reader import LayerReader
from patchcore.torch_state import (
    _precision_settings,
    _ProcessSetting,
    _Setting,
    device_of_network,
    float32_products,
    torch_defaults,
)
from tests.patchcore.test_model import make_images


def settings() -> tuple[bool, bool]:
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


@pytest.fixture(params=[(False, True), (True, False), (True, True)])
def before(request):
    """What a caller of the library may have set for its whole process."""
    kept = settings()
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = request.param
    yield request.param
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = kept


def in_force() -> tuple[bool, bool]:
    if not hasattr(torch.backends.cudnn, "conv"):  # before torch 2.9
        return settings()
    holders = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)
    return tuple(holder.fp32_precision == "tf32" for holder in holders)


@pytest.mark.parametrize("tensor_float", [False, True])
def test_holds_in_the_block_and_no_longer(before, tensor_float):
    with float32_products(tensor_float):
        assert in_force() == (tensor_float, tensor_float)
    assert settings() == before


def test_ends_with_an_error_too(before):
    with pytest.raises(KeyError), float32_products(True):
        raise KeyError
    assert settings() == before


def test_blocks_may_be_nested(before):
    with float32_products(True):
        with float32_products():
            assert in_force() == (False, False)
        assert in_force() == (True, True)
    assert settings() == before


@pytest.mark.skipif(not hasattr(torch.backends.cudnn, "conv"), reason="torch has the older names")
def test_a_process_that_uses_the_newer_names_keeps_them():
    holders = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)
    kept = [holder.fp32_precision for holder in holders]
    try:
        for holder in holders:
            holder.fp32_precision = "tf32"
        with float32_products():
            assert in_force() == (False, False)
        assert [holder.fp32_precision for holder in holders] == ["tf32", "tf32"]
    finally:
        for holder, value in zip(holders, kept, strict=True):
            holder.fp32_precision = value


def test_threads_that_want_the_same_hold_it_together(before):
    together = threading.Barrier(2, timeout=20)

    def work(number):
        with float32_products(True):
            together.wait()  # both are inside
            if number:
                together.wait()  # the other one has let go
                return in_force()
        together.wait()
        return None

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(work, range(2))) == [None, (True, True)]
    assert settings() == before


def test_threads_that_want_different_values_take_turns(before):
    def work(number):
        wrong = 0
        for _ in range(50):
            with float32_products(bool(number % 2)):
                wrong += in_force() != (bool(number % 2),) * 2
                time.sleep(1e-4)
                wrong += in_force() != (bool(number % 2),) * 2
        return wrong

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(work, range(4))) == 0
    assert settings() == before


def test_threads_with_blocks_in_blocks_do_not_wait_for_each_other_forever(before):
    both_inside = threading.Barrier(2, timeout=20)

    def work(_):
        with float32_products(True):
            both_inside.wait()
            with float32_products():
                inner = in_force()
            return inner, in_force()

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(work, range(2))) == [((False, False), (True, True))] * 2
    assert settings() == before


def test_what_is_as_wanted_is_not_touched():
    """Settings of the whole process, from which others follow, stay as unmade as they were."""
    made = []

    def holds(value):
        accepted = {False: (False, "none"), True: (True,)}
        return _Setting(lambda: value, lambda new: made.append((value, new)), accepted)

    with _ProcessSetting([holds("none"), holds(False), holds(True)]).hold(False):
        assert made == [(True, False)]


NAMES = [("generic", "all")]
NAMES += [(kind, name) for kind in ("cuda", "mkldnn") for name in ("all", "matmul", "conv", "rnn")]


def newer_values() -> list[str]:
    return [torch._C._get_fp32_precision_getter(*name) for name in NAMES]


def all_values() -> list[object]:
    """Return what torch has set, by all of its names, with None for those that it refuses."""
    return [setting.value() for setting in _precision_settings()] + newer_values()


@pytest.fixture
def kept():
    """Restore the newer names, and the older ones as torch has them at first."""
    before = newer_values()
    yield
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = True
    for name, value in zip(NAMES, before, strict=True):
        torch._C._set_fp32_precision_setter(*name, value)
    assert newer_values() == before


@pytest.mark.skipif(not hasattr(torch.backends.cudnn, "conv"), reason="torch has the older names")
@pytest.mark.parametrize(
    ("holder", "name", "value"),
    [
        (torch.backends, "fp32_precision", "none"),
        (torch, "set_float32_matmul_precision", "medium"),
        (torch, "set_float32_matmul_precision", "high"),
        (torch.backends.cuda.matmul, "allow_tf32", True),
        (torch.backends.cudnn, "allow_tf32", False),
        (torch.backends, "fp32_precision", "tf32"),
        (torch.backends, "fp32_precision", "bf16"),
        (torch.backends.cudnn, "fp32_precision", "ieee"),
        (torch.backends.mkldnn, "fp32_precision", "bf16"),
    ],
)
def test_whatever_a_process_has_set_is_overruled_and_restored(kept, holder, name, value):
    if holder is torch:
        torch.set_float32_matmul_precision(value)
    else:
        setattr(holder, name, value)
    before = all_values()
    for tensor_float in (False, True):
        with float32_products(tensor_float):
            found = dict(zip(NAMES, newer_values(), strict=True))
            on_gpu = {found["cuda", name] for name in ("matmul", "conv")}
            on_cpu = {found["mkldnn", name] for name in ("matmul", "conv")}
            assert on_gpu == {"tf32"} if tensor_float else on_gpu <= {"none", "ieee"}
            assert on_cpu <= {"none", "ieee"}
            assert None in before or None not in all_values()
        assert all_values() == before


class WithoutDevice(torch.nn.Module):
    """Makes tensors where torch makes them by default."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Conv2d(3, 8, 3, 4, 1)

    def forward(self, images):
        return self.layer(images * torch.ones(3, 1, 1))


@pytest.mark.parametrize("ambient", ["meta", "cpu"])
def test_a_network_has_the_default_device_of_its_images_if_the_caller_has_set_one(ambient):
    network, images = WithoutDevice().to(ambient), torch.zeros(1, 3, 32, 32, device=ambient)
    reader = LayerReader(network, ["layer"])
    with torch.device(ambient):
        with torch_defaults():
            assert torch.ones(1).device.type == "cpu"
            assert reader.run(network, images)["layer"].device.type == ambient
            assert torch.ones(1).device.type == "cpu"
        assert torch.ones(1).device.type == ambient
    with torch_defaults():
        assert device_of_network(torch.device("meta")).__class__ is nullcontext


class Watching(torch.nn.Module):
    """Notes in which precision it would compute."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Conv2d(3, 8, 3, 4, 1)
        self.seen = []

    def forward(self, images):
        self.seen.append(in_force())
        return self.layer(images)


@pytest.mark.parametrize(("precision", "tensor_float"), [("float32", False), ("tf32", True)])
def test_the_backbone_computes_as_asked_whatever_the_process_has_set(
    before, precision, tensor_float
):
    model = PatchCore(
        Backbone(Watching(), ["layer"], (32, 32)),
        precision=precision,
        size_resize=(36, 36),
        size_crop=(32, 32),
    )
    seen = model.backbone.network.seen
    seen.clear()
    model.fit(make_images(3))
    assert set(seen) == {(tensor_float, tensor_float)}
    assert settings() == before


@pytest.mark.gpu
def test_on_a_gpu_float32_is_exact_and_tf32_is_not():
    if torch.cuda.get_device_capability()[0] < 8:
        pytest.skip("a GPU without TF32")
    factors = torch.randn(2, 512, 512, device="cuda")
    exact = factors.double()
    with float32_products():
        full = factors[0] @ factors[1]
    with float32_products(True):
        rounded = factors[0] @ factors[1]
    expected = exact[0] @ exact[1]
    assert (full - expected).abs().max() < 1e-3
    assert (rounded - expected).abs().max() > (full - expected).abs().max()
