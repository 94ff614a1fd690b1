"""Errors of the operating system name the flag that they belong to."""

import errno

import pytest

from utils.errors import UsageError, named_flag


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
