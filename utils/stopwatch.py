"""Where the time goes, by stage."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import torch

Item = TypeVar("Item")


class Clock(Protocol):
    """Marks moments now, and tells later how far they are apart."""

    def mark(self) -> Any:
        """Return a mark of this moment."""

    def seconds(self, start: Any, stop: Any) -> float:
        """Return the time from one mark to a later one."""


class HostClock:
    """Time by the wall clock."""

    def mark(self) -> float:
        """Return the time in seconds."""
        return time.perf_counter()

    def seconds(self, start: float, stop: float) -> float:
        """Return the difference."""
        return stop - start


class DeviceClock:
    """A GPU's time: when its work comes to a mark, which nobody has to wait for.

    A GPU works behind the program's back. Waiting for it at every mark would make both slower than
    they are; a mark among its work is passed when all that was asked for before is done. Marks are
    passed one after another, so that the stages between them still add up to the whole.

    Args:
        device: Which GPU.
    """

    def __init__(self, device: torch.device):
        self._device = device

    def mark(self) -> torch.cuda.Event:
        """Put a mark behind the work asked for so far."""
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event

    def seconds(self, start: torch.cuda.Event, stop: torch.cuda.Event) -> float:
        """Return the time between two marks, once the second one has been passed."""
        stop.synchronize()
        return start.elapsed_time(stop) / 1000  # from milliseconds


def clock_of(device: torch.device) -> Clock:
    """Return the clock that times a device's work."""
    return DeviceClock(device) if device.type == "cuda" else HostClock()


class Stopwatch:
    """Adds up the seconds of named stages.

    Stages may be nested: the inner one's time is not counted in the outer one's, so that all
    stages together are the whole.

    Attributes:
        clock: Whose time is taken.

    Args:
        clock: None for the wall clock.
    """

    def __init__(self, clock: Clock | None = None):
        self.clock = clock or HostClock()
        self._seconds: dict[str, float] = {}
        self._spans: list[tuple[str, Any, Any]] = []  # not yet added up
        self._running: list[str] = []
        self._since: Any = None

    @property
    def seconds(self) -> dict[str, float]:
        """The seconds of each stage, in the order of their first start."""
        for stage, start, stop in self._spans:
            self.add(stage, self.clock.seconds(start, stop))
        self._spans.clear()
        return self._seconds

    def mark(self) -> Any:
        """Return a mark of this moment, for `add_between`."""
        return self.clock.mark()

    def add(self, stage: str, seconds: float) -> None:
        """Add to a stage what was measured otherwise."""
        self._seconds[stage] = self._seconds.get(stage, 0.0) + seconds

    def add_between(self, stage: str, start: Any, stop: Any) -> None:
        """Add to a stage the time between two marks."""
        self._spans.append((stage, start, stop))

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time of a block."""
        self._switch()
        self._running.append(name)
        try:
            yield
        finally:
            self._switch()
            self._running.pop()

    def iterate(self, name: str, items: Iterable[Item]) -> Iterator[Item]:
        """Yield the items, counting the time until each one is there."""
        remaining = iter(items)
        while True:
            with self.stage(name):
                try:
                    item = next(remaining)
                except StopIteration:
                    return
            yield item

    def _switch(self) -> None:
        """Give the time since the last switch to the innermost running stage."""
        now = self.mark()
        if self._running:
            self.add_between(self._running[-1], self._since, now)
        self._since = now
