"""Where the time goes, by stage."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")


class Stopwatch:
    """Adds up the seconds of named stages.

    Stages may be nested: the inner one's time is not counted in the outer one's, so that all
    stages together are the whole.

    Attributes:
        seconds: Of each stage, in the order of their first start.

    Args:
        synchronise: Called before each reading of the clock: on a GPU, what waits until its work
            is done.
    """

    def __init__(self, synchronise: Callable[[], object] = lambda: None):
        self.seconds: dict[str, float] = {}
        self._synchronise = synchronise
        self._running: list[str] = []
        self._since = 0.0

    def now(self) -> float:
        """Return the time in seconds, after all work that was asked for so far."""
        self._synchronise()
        return time.perf_counter()

    def add(self, stage: str, seconds: float) -> None:
        """Add to a stage what was measured otherwise."""
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds

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
        now = self.now()
        if self._running:
            self.add(self._running[-1], now - self._since)
        self._since = now
