"""The messages of whole sessions are those that somebody last read, see sessions.py."""

import pytest

from tests.transcripts.sessions import FOLDER, SESSIONS, transcript


@pytest.mark.parametrize("name", SESSIONS)
def test_it_reads_as_it_did(name):
    assert transcript(name) == (FOLDER / f"{name}.txt").read_text(encoding="utf-8")
