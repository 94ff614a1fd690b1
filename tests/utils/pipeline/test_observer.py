"""Seconds of a run: what counts for which seed and percentage."""

from contextlib import contextmanager

import pytest
import torch

from utils.pipeline.observer import RunObserver

CPU = torch.device("cpu")


class Clock:
    """Clock that gains a second at each look."""

    def __init__(self):
        self.now = 0.0

    def mark(self) -> float:
        self.now += 1
        return self.now

    def seconds(self, start: float, stop: float) -> float:
        return stop - start


@pytest.fixture
def observer(monkeypatch) -> RunObserver:
    monkeypatch.setattr("utils.pipeline.observer.clock_of", lambda device: Clock())
    return RunObserver("nut", CPU)


def test_a_percentage_has_the_searches_of_smaller_ones_and_the_other_stages_of_its_own(observer):
    seconds = {
        ("embed", None, None): 1.0,  # of all
        ("project", 3, None): 2.0,  # of one seed
        ("search", 3, 0): 4.0,
        ("search", 3, 1): 8.0,
        ("search", 3, 2): 16.0,
        ("score", 3, 0): 32.0,
        ("score", 3, 1): 64.0,
        ("score", 3, 2): 128.0,
        ("search", 5, 0): 256.0,
        ("score", 5, 1): 512.0,
    }
    for stage, value in seconds.items():
        observer._watch.add(stage, value)
    shared = {"embed": 1.0, "project": 2.0}
    assert observer.seconds(3, 0) == shared | {"search": 4.0, "score": 32.0}
    assert observer.seconds(3, 1) == shared | {"search": 12.0, "score": 64.0}
    assert observer.seconds(3, 2) == shared | {"search": 28.0, "score": 128.0}
    assert observer.seconds(5, 0) == {"embed": 1.0, "search": 256.0}
    assert observer.seconds(5, 1) == {"embed": 1.0, "search": 256.0, "score": 512.0}


def test_a_selection_is_timed_from_one_percentages_size_to_the_next(observer):
    with observer.selection(3, (10, 20, 30)) as on_progress:
        for done in (5, 10, 15, 30):
            on_progress(done)
    # One look at the clock at the start, one as each size is reached.
    assert [observer.seconds(3, part) for part in range(3)] == [
        {"select": 1.0},
        {"select": 2.0},
        {"select": 3.0},
    ]


def test_waiting_for_batches_and_the_rest_of_a_stage_add_up(observer):
    with observer.stage("embed"):
        assert list(observer.read([1, 2])) == [1, 2]
    # Three looks for a batch, the last in vain, of a second each; four between them.
    assert observer.seconds(0, 0) == {"embed": 4.0, "read": 3.0}


class Bar:
    """Records how far a progress bar was moved each time."""

    def __init__(self):
        self.moves = []

    @property
    def n(self) -> int:
        return sum(self.moves)

    def update(self, count: int) -> None:
        self.moves.append(count)


def test_bars_move_by_what_was_done_since_the_last_time(observer, monkeypatch):
    observer.advance(2)  # without a bar
    observer.bar = Bar()
    for count in (4, 3):
        observer.advance(count)
    assert observer.bar.moves == [4, 3]
    shown = []

    @contextmanager
    def show(total, text, unit):
        shown.append((total, text, unit))
        yield bar

    monkeypatch.setattr("utils.pipeline.observer.show_progress", show)
    bar = Bar()
    with observer.selection(3, (10, 30)) as on_progress:
        for done in (5, 10, 30):
            on_progress(done)
    assert (shown, bar.moves) == ([(30, "nut: select", "patch")], [5, 5, 20])
