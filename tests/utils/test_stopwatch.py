"""A clock that only moves when told to makes every time exact."""

import time

import pytest
import torch

from utils.stopwatch import Stopwatch, clock_of


class Clock:
    """A clock that only moves when told to."""

    def __init__(self):
        self.seconds = 1000.0

    def wait(self, seconds: float) -> None:
        self.seconds += seconds


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", lambda: clock.seconds)
    return clock


def test_a_stage_counts_the_time_of_its_block_alone(clock):
    watch = Stopwatch()
    clock.wait(1)
    with watch.stage("embed"):
        clock.wait(2)
    clock.wait(4)
    assert watch.seconds == {"embed": 2}


def test_a_stage_that_comes_again_adds_up_and_keeps_its_place(clock):
    watch = Stopwatch()
    for stage, seconds in [("read", 1), ("embed", 2), ("read", 4)]:
        with watch.stage(stage):
            clock.wait(seconds)
    assert list(watch.seconds.items()) == [("read", 5), ("embed", 2)]


def test_the_time_of_nested_stages_is_counted_once(clock):
    watch = Stopwatch()
    with watch.stage("outer"):
        clock.wait(1)
        with watch.stage("middle"):
            clock.wait(2)
            with watch.stage("inner"):
                clock.wait(4)
            clock.wait(8)
        with watch.stage("middle"):
            clock.wait(16)
        clock.wait(32)
    assert watch.seconds == {"outer": 1 + 32, "middle": 2 + 8 + 16, "inner": 4}
    assert sum(watch.seconds.values()) == 63


def test_a_stage_within_itself_is_counted_once(clock):
    watch = Stopwatch()
    with watch.stage("read"):
        clock.wait(1)
        with watch.stage("read"):
            clock.wait(2)
    assert watch.seconds == {"read": 3}


def test_a_stage_that_fails_is_counted_and_ended(clock):
    watch = Stopwatch()

    def fail() -> None:
        with watch.stage("outer"):
            clock.wait(1)
            with watch.stage("inner"):
                clock.wait(2)
                raise KeyError

    with pytest.raises(KeyError):
        fail()
    clock.wait(4)
    with watch.stage("outer"):
        clock.wait(8)
    assert watch.seconds == {"outer": 9, "inner": 2}


def test_iterate_counts_the_waiting_for_items_and_not_their_use(clock):
    def items():
        for seconds in (1, 2):
            clock.wait(seconds)
            yield seconds
        clock.wait(4)  # also until it is known that there are no more

    watch = Stopwatch()
    found = []
    for item in watch.iterate("read", items()):
        found.append(item)
        clock.wait(100)
    assert found == [1, 2]
    assert watch.seconds == {"read": 1 + 2 + 4}


def test_iterate_within_a_stage_takes_its_time_out_of_that_stage(clock):
    def items():
        for item in range(3):
            clock.wait(1)
            yield item

    watch = Stopwatch()
    with watch.stage("embed"):
        for _ in watch.iterate("read", items()):
            clock.wait(10)
    assert watch.seconds == {"embed": 30, "read": 3}


def test_what_was_measured_otherwise_is_added(clock):
    watch = Stopwatch()
    watch.add("select", 1.5)
    watch.add("select", 2)
    with watch.stage("select"):
        clock.wait(4)
    assert watch.seconds == {"select": 7.5}


class DeviceThatLags:
    """A clock whose marks are passed later than they are made, as a GPU's are."""

    def __init__(self, clock: Clock, lag: float):
        self.clock, self.lag, self.asked = clock, lag, 0

    def mark(self) -> list[float]:
        return [self.clock.seconds + self.lag]

    def seconds(self, start: list[float], stop: list[float]) -> float:
        self.asked += 1
        return stop[0] - start[0]


def test_no_mark_is_asked_for_before_the_time_is_wanted(clock):
    device = DeviceThatLags(clock, lag=5)
    watch = Stopwatch(device)
    for _ in range(3):
        with watch.stage("embed"):
            clock.wait(10)
    start = watch.mark()
    clock.wait(1)
    watch.add_between("search", start, watch.mark())
    assert device.asked == 0
    assert watch.seconds == {"embed": 30, "search": 1}
    assert watch.seconds == {"embed": 30, "search": 1}  # nothing is counted twice


def test_the_first_stage_to_start_comes_first_however_it_was_measured(clock):
    watch = Stopwatch()
    with watch.stage("read"):
        clock.wait(1)
    watch.add_between("select", 2.0, 4.5)
    assert list(watch.seconds.items()) == [("read", 1), ("select", 2.5)]


@pytest.mark.gpu
def test_a_gpu_is_timed_by_its_own_work():
    watch = Stopwatch(clock_of(torch.device("cuda")))
    values = torch.randn(4096, 4096, device="cuda")
    torch.cuda.synchronize()
    started = time.perf_counter()
    with watch.stage("work"):
        for _ in range(50):
            values = torch.mm(values, values).clamp_(-1, 1)
    seconds = watch.seconds["work"]
    assert 0 < seconds <= time.perf_counter() - started
