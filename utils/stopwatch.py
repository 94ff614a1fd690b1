"""Measure the seconds of named stages."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

Item = TypeVar("Item")


class HostClock:
    """Wall clock: marks points in time, and measures the time between two marks."""

    def mark(self) -> float:
        """Return the current time in seconds."""
        return time.perf_counter()

    def seconds(self, start: float, stop: float) -> float:
        """Return the seconds between two marks."""
        return stop - start


class DeviceClock:
    """Clock of a GPU: marks are events in its queue of operations.

    A GPU works asynchronously, and waiting for it at every mark would slow it down. An event is
    reached when all operations before it are finished. Events are reached in order, so the stages
    between them add up to the total time.

    Args:
        device: The GPU.
    """

    def __init__(self, device: torch.device):
        self._device = device

    def mark(self) -> torch.cuda.Event:
        """Return a mark that follows all operations queued so far."""
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event

    def seconds(self, start: torch.cuda.Event, stop: torch.cuda.Event) -> float:
        """Wait until the second mark is reached; return the seconds between both."""
        stop.synchronize()
        return start.elapsed_time(stop) / 1000  # elapsed_time is in milliseconds


def clock_of(device: torch.device) -> HostClock | DeviceClock:
    """Return the clock of a device."""
    return DeviceClock(device) if device.type == "cuda" else HostClock()


class Stopwatch:
    """Sums the seconds of named stages.

    Stages may be nested: the time of an inner stage is not part of the outer one, so that all
    stages add up to the total time.

    Args:
        clock: Measures the time; None for the wall clock.
    """

    def __init__(self, clock: HostClock | DeviceClock | None = None):
        self._clock = clock or HostClock()
        self._seconds: dict[str, float] = {}
        self._spans: list[tuple[str, Any, Any]] = []  # not summed yet
        self._running: list[str] = []
        self._since: Any = None

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds of each stage, in the order of their first start."""
        for stage, start, stop in self._spans:
            self.add(stage, self._clock.seconds(start, stop))
        self._spans.clear()
        return self._seconds

    def mark(self) -> Any:
        """Return a mark of the current time, for `add_between`."""
        return self._clock.mark()

    def add(self, stage: str, seconds: float) -> None:
        """Add seconds to a stage."""
        self._seconds[stage] = self._seconds.get(stage, 0.0) + seconds

    def add_between(self, stage: str, start: Any, stop: Any) -> None:
        """Add the time between two marks to a stage."""
        self._spans.append((stage, start, stop))

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure the time of a block of code."""
        self._switch()
        self._running.append(name)
        try:
            yield
        finally:
            self._switch()
            self._running.pop()

    def iterate(self, name: str, items: Iterable[Item]) -> Iterator[Item]:
        """Yield the items, and measure the time spent waiting for them."""
        remaining = iter(items)
        while True:
            with self.stage(name):
                try:
                    item = next(remaining)
                except StopIteration:
                    return
            yield item

    def _switch(self) -> None:
        """Add the time since the last switch to the innermost running stage."""
        now = self.mark()
        if self._running:
            self.add_between(self._running[-1], self._since, now)
        self._since = now
