"""What a caller may follow of a fit or a prediction: stages for timing, counts for bars."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np


class Observer:
    """Follows a fit or a prediction and does nothing; subclasses measure and show."""

    def stage(
        self, name: str, seed: int | None = None, part: int | None = None
    ) -> AbstractContextManager[None]:
        """Enclose a stage.

        Args:
            name: ``embed``, ``select``, ``normalise``, ``search`` or ``score``.
            seed: Seed of the selection that the stage serves; None if it serves all.
            part: Position of the percentage, ascending, that the stage serves; None if it serves
                all. For ``select`` and ``search``, larger percentages build on the stage as well.
        """
        return nullcontext()

    def read(self, batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Pass on batches of images, which may have to be waited for."""
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
            A context manager that gives a function, called with the number of patches selected
            so far.
        """
        return nullcontext(lambda done: None)


NO_OBSERVER = Observer()
