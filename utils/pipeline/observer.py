"""Times and progress bars of a fit and of predictions."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import numpy as np
import torch
from tqdm import tqdm

from patchcore.observer import Observer
from utils.progress import show_progress
from utils.stopwatch import Stopwatch, clock_of

# Stages in which a larger percentage uses the results of the smaller ones.
CUMULATIVE = frozenset({"select", "search"})


class RunObserver(Observer):
    """Measures the stages of one category and one model, and shows their progress.

    Attributes:
        bar: Progress bar of the images that are being embedded; None for none.

    Args:
        name: Name of the category, for the progress bars.
        device: Device of the computation, which has its own clock.
    """

    def __init__(self, name: str, device: torch.device):
        self.bar: tqdm | None = None
        self._name = name
        self._watch = Stopwatch(clock_of(device))

    def stage(
        self, name: str, seed: int | None = None, part: int | None = None
    ) -> AbstractContextManager[None]:
        """Measure a stage, as `Observer.stage` describes it."""
        return self._watch.stage((name, seed, part))

    def read(self, batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Pass on batches, and measure the time spent waiting for them."""
        return self._watch.iterate(("read", None, None), batches)

    def advance(self, num_images: int) -> None:
        """Move the progress bar."""
        if self.bar is not None:
            self.bar.update(num_images)

    @contextmanager
    def selection(self, seed: int, sizes: Sequence[int]) -> Iterator[Callable[[int], None]]:
        """Show a selection, and measure when the coreset of each percentage is complete."""
        watch, part = self._watch, 0
        start = watch.mark()

        def on_progress(done: int) -> None:
            nonlocal part, start
            bar.update(done - bar.n)
            while part < len(sizes) and done >= sizes[part]:
                stop = watch.mark()
                watch.add_between(("select", seed, part), start, stop)
                part, start = part + 1, stop

        with show_progress(sizes[-1], f"{self._name}: select", "patch") as bar:
            yield on_progress

    def seconds(self, seed: int, part: int) -> dict[str, float]:
        """Return the seconds of all stages for one seed and position of a percentage."""
        found: dict[str, float] = {}
        for (name, of_seed, of_part), seconds in self._watch.seconds.items():
            is_needed = of_part in (None, part) or (name in CUMULATIVE and of_part < part)
            if of_seed in (None, seed) and is_needed:
                found[name] = found.get(name, 0.0) + seconds
        return found
