"""Callbacks of a fit or a prediction: stages for timing, counts for progress bars."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np


class Observer:
    """Observes a fit or a prediction and does nothing; subclasses measure or show progress."""

    def stage(
        self, name: str, seed: int | None = None, part: int | None = None
    ) -> AbstractContextManager[None]:
        """Enclose a stage.

        Args:
            name: ``embed``, ``select``, ``normalise``, ``search`` or ``score``.
            seed: Seed of the selection to which the stage belongs; None for all.
            part: Position of the percentage, ascending, to which the stage belongs; None for all.
                Larger percentages also use the stages ``select`` and ``search``.
        """
        return nullcontext()

    def read(self, batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Pass on batches of images; a subclass can time the waiting for them."""
        return iter(batches)

    def advance(self, num_images: int) -> None:
        """Note that images have been embedded."""

    def selection(
        self, seed: int, sizes: Sequence[int]
    ) -> AbstractContextManager[Callable[[int], None]]:
        """Enclose a selection.

        Args:
            seed: Seed of the selection.
            sizes: Coreset sizes of the percentages, ascending.

        Returns:
            A context manager with a function as its value, which is called with the number of
            patches selected so far.
        """
        return nullcontext(lambda done: None)


NO_OBSERVER = Observer()
