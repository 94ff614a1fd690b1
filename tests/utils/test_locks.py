"""A folder has one run at a time, and the error names the other one."""

import re

import pytest

from utils.errors import UsageError
from utils.locks import lock_folder


@pytest.mark.parametrize("owner", [None, "", "{", "[]", "{}", "[" * 100_000])
def test_an_owner_that_is_being_written_is_another_process(tmp_path, owner):
    expected = re.escape(
        f"found {tmp_path} in use by another process: wait for its end, or give another folder "
        "(--path_result)"
    )
    with lock_folder(tmp_path, "--path_result"):
        (tmp_path / ".lock.owner").unlink()
        if owner is not None:
            (tmp_path / ".lock.owner").write_text(owner)
        with pytest.raises(UsageError, match=expected), lock_folder(tmp_path, "--path_result"):
            pass


def test_a_folder_that_cannot_be_locked(tmp_path):
    (tmp_path / ".lock.owner").mkdir()
    expected = re.escape(f"cannot lock {tmp_path}: Is a directory (--path_result)")
    with pytest.raises(UsageError, match=expected), lock_folder(tmp_path, "--path_result"):
        pass
