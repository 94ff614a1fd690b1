"""Errors of the operating system name the flag that they belong to."""

import errno

import pytest

from utils.errors import UsageError, is_out_of_memory, named_flag


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left"), "cannot use it: No space left (--to)"),
        (OSError(errno.EACCES, "Denied", b"a/b"), "cannot use a/b: Denied (--to)"),
        (OSError("odd"), "cannot use it: odd (--to)"),
    ],
)
def test_what_the_system_refuses_is_named_with_its_flag(error, message):
    with pytest.raises(UsageError) as caught, named_flag("--to"):
        raise error
    assert str(caught.value) == message


class OutOfMemoryError(RuntimeError):
    """Named as torch's error of a GPU."""


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (OutOfMemoryError("CUDA"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), True),
        (ImportError("No module named 'allocate memory'"), False),
        (RuntimeError("failed to map segment"), False),
        (ValueError("memory"), False),
    ],
)
def test_an_exhausted_memory_has_many_forms(error, expected):
    assert is_out_of_memory(error) == expected
