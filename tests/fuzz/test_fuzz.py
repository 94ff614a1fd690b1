"""Some cases of each kind of hostile input; `make fuzz` runs many."""

import pytest

from tests.fuzz.cases import make_test
from tests.fuzz.guard import Violation, guarded
from tests.fuzz.kinds import KINDS
from tests.fuzz.outcomes import Outcomes
from tests.support import one_thread

NUM_CASES = 46  # of each kind: 506 in all


@pytest.mark.parametrize("name", KINDS)
def test_every_case_is_a_result_or_an_error_of_the_user(name, tmp_path):
    outcomes = Outcomes()
    with one_thread():
        make_test(name, tmp_path, NUM_CASES, outcomes, is_strict=True)()
    assert outcomes.counts.total() >= NUM_CASES


def test_the_guard_notices_what_is_written_elsewhere(tmp_path):
    (tmp_path / "inside").mkdir()
    with guarded(tmp_path / "inside"):
        (tmp_path / "inside/file").write_text("")
    for write in (
        lambda: (tmp_path / "outside").write_text(""),
        lambda: (tmp_path / "inside/file").rename(tmp_path / "moved"),
        (tmp_path / "folder").mkdir,
    ):
        with pytest.raises(Violation, match=str(tmp_path)), guarded(tmp_path / "inside"):
            write()


def test_the_guard_notices_a_hang(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.fuzz.guard.LIMIT", 0.1)

    def hang():
        with guarded(tmp_path):
            while True:
                pass

    with pytest.raises(Violation, match="not finished after"):
        hang()
