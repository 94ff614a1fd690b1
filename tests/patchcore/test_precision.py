"""Which precisions a processor emulates."""

import pytest
import torch

from patchcore import PatchCore
from patchcore.precision import is_emulated


@pytest.mark.parametrize(
    ("precision", "device", "capability", "expected"),
    [
        ("bfloat16", "cuda", "a GPU before Ampere", True),
        ("bfloat16", "cuda", "a GPU", False),
        ("float16", "cuda", "a GPU before Ampere", False),
        ("bfloat16", "cpu", "AVX2", True),
        ("float16", "cpu", "DEFAULT", True),
        ("bfloat16", "cpu", "AVX512", False),
        ("float32", "cpu", "AVX2", False),
        ("tf32", "cpu", "AVX2", False),
    ],
)
def test_which_processors_have_no_half_precision(
    monkeypatch, precision, device, capability, expected
):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(
        torch.cuda,
        "is_bf16_supported",
        lambda including_emulation=True: including_emulation or capability == "a GPU",
    )

    assert is_emulated(precision, torch.device(device)) is expected


def test_a_model_says_that_its_precision_is_slow(monkeypatch, caplog):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")

    PatchCore("formulanet", precision="bfloat16")

    assert "this processor does not support bfloat16 natively" in caplog.text
