"""Notes are counted once per file, in whatever order threads add them."""

import os
import pickle
import subprocess
import sys
import threading

from datasets.notes import Note, Notes
from tests.support import ROOT


def test_a_file_counts_once_for_each_reason():
    notes = Notes()
    for name in ("b.png", "a.png", "b.png"):
        notes.add("cut at half", name)
    notes.add("empty", "c.png")
    assert notes.all() == [Note("cut at half", 2, "a.png"), Note("empty", 1, "c.png")]


def test_texts_and_records():
    notes = Notes()
    notes.add("empty", "a.png")
    assert str(notes.all()[0]) == "1 file: empty (for example a.png)"
    notes.add("empty", "b.png")
    assert str(notes.all()[0]) == "2 files: empty (for example a.png)"
    assert notes.as_json() == {"empty": {"count": 2, "example": "a.png"}}
    assert Notes().all() == []


def test_threads_lose_nothing():
    notes = Notes()

    def add(first: int) -> None:
        for number in range(first, first + 500):
            notes.add("noticed", f"{number:04d}.png")

    threads = [threading.Thread(target=add, args=(250 * part,)) for part in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert notes.all() == [Note("noticed", 1250, "0000.png")]


def test_notes_of_other_processes_are_added():
    """A file that both have noticed counts once, although each process has its own hashes."""
    program = (
        "import pickle, sys; from datasets.notes import Notes; notes = Notes()\n"
        "for name in ('a.png', 'c.png'): notes.add('empty', name)\n"
        "sys.stdout.buffer.write(pickle.dumps(notes))"
    )
    environment = os.environ | {"PYTHONHASHSEED": "7"}
    found = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, check=True
    )
    notes = Notes()
    notes.add("empty", "b.png")
    notes.add("empty", "c.png")
    notes.merge(pickle.loads(found.stdout))
    assert notes.all() == [Note("empty", 3, "a.png")]
    later = Notes()
    later.add("empty", "z.png")
    notes.merge(later)
    assert notes.all() == [Note("empty", 4, "a.png")]
