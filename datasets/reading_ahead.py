"""Reading ahead in threads, in bounded memory."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count, islice
from typing import TypeVar

import numpy as np

Item = TypeVar("Item")
Result = TypeVar("Result")

# Bytes of images that are decoded or wait at one time; an image that needs more is decoded alone.
BUDGET = 384 * 2**20
# Bytes of results in a batch, which ends early if it has more.
BATCH_BYTES = 256 * 2**20


class ByteBudget:
    """Limits the bytes of items that are processed at one time.

    Items are admitted in their order, so that the first one never waits for a later one.

    Args:
        limit: Largest sum of bytes; a larger item is admitted alone.
    """

    def __init__(self, limit: int):
        self._limit = limit
        self._used = 0
        self._next = 0
        self._is_closed = False
        self._changed = threading.Condition()

    def acquire(self, number: int, num_bytes: int) -> None:
        """Wait until an item is admitted.

        Args:
            number: Number of the item: 0, 1, ..., each once.
            num_bytes: Bytes that it needs.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._is_admitted(number, num_bytes))
            self._used += num_bytes
            self._next = number + 1
            self._changed.notify_all()

    def release(self, num_bytes: int) -> None:
        """Return bytes of an admitted item."""
        with self._changed:
            self._used -= num_bytes
            self._changed.notify_all()

    def close(self) -> None:
        """Admit everything that still waits."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _is_admitted(self, number: int, num_bytes: int) -> bool:
        has_room = self._used == 0 or self._used + num_bytes <= self._limit
        return self._is_closed or (number == self._next and has_room)


def map_ahead(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    num_workers: int,
    ahead: int,
    size_of: Callable[[Item], int] | None = None,
    budget: int = BUDGET,
) -> Iterator[Result]:
    """Yield ``function(item)`` in the order of the items, computed ahead by threads.

    Threads are sufficient because OpenCV releases the interpreter lock while it decodes.

    Args:
        function: Called once per item; an exception is raised in place of the result.
        items: Consumed lazily.
        num_workers: Number of threads; 0 to compute in the calling thread.
        ahead: Largest number of results that are computed or kept ahead, at least 1.
        size_of: Returns the bytes that an item needs while it is computed; called in the threads.
            None if items are small.
        budget: Largest sum of bytes of items that are computed, and of results that are kept
            ahead.
    """
    if num_workers == 0:
        yield from map(function, items)
        return
    limited = _Limited(function, size_of, ByteBudget(budget))
    numbered = zip(count(), items)
    with ThreadPoolExecutor(num_workers, thread_name_prefix="read") as pool:
        pending = deque(pool.submit(limited, *entry) for entry in islice(numbered, max(ahead, 1)))
        try:
            while pending:
                result, num_bytes = pending.popleft().result()
                limited.budget.release(num_bytes)
                pending.extend(pool.submit(limited, *entry) for entry in islice(numbered, 1))
                yield result
        finally:
            for future in pending:
                future.cancel()
            limited.budget.close()


class _Limited:
    """Computes items within a budget of bytes."""

    def __init__(
        self,
        function: Callable[[Item], Result],
        size_of: Callable[[Item], int] | None,
        budget: ByteBudget,
    ):
        self.budget = budget
        self._function = function
        self._size_of = size_of

    def __call__(self, number: int, item: Item) -> tuple[Result, int]:
        """Return the result of an item, and the bytes of the budget that it still holds."""
        needed = 0
        try:
            if self._size_of is not None:
                needed = self._size_of(item)
        finally:  # even without a size, the next item must have its turn
            self.budget.acquire(number, needed)
        held = 0
        try:
            result = self._function(item)
            held = min(needed, bytes_in(result))
        finally:
            self.budget.release(needed - held)
        return result, held


def in_batches(
    items: Iterable[Item], batch_size: int, max_bytes: float = float("inf")
) -> Iterator[list[Item]]:
    """Yield lists of ``batch_size`` items; the last list may be shorter.

    Args:
        items: Consumed lazily.
        batch_size: Number of items of a batch.
        max_bytes: A batch whose arrays have as many bytes ends early.
    """
    remaining = iter(items)
    while batch := list(islice(remaining, 1)):
        num_bytes = bytes_in(batch[0])
        while len(batch) < batch_size and num_bytes < max_bytes:
            following = list(islice(remaining, 1))
            if not following:
                break
            batch += following
            num_bytes += bytes_in(following[0])
        yield batch


def read_batches(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    batch_size: int,
    threads: int,
    size_of: Callable[[Item], int],
) -> Iterator[list[Result]]:
    """Yield what is read of items in batches, while the next ones are read.

    Args:
        function: Reads an item; called in threads.
        items: Consumed lazily.
        batch_size: Number of items of a batch. A batch ends early if its results have more than
            `BATCH_BYTES`, which happens only if they hold large images.
        threads: Number of threads; 0 to read in the calling thread.
        size_of: Returns the bytes that an item needs while it is read.
    """
    results = map_ahead(
        function, items, num_workers=threads, ahead=2 * batch_size + threads, size_of=size_of
    )
    return in_batches(results, batch_size, BATCH_BYTES)


def bytes_in(value: object) -> int:
    """Return the bytes of an array, or of the arrays in a tuple."""
    if isinstance(value, tuple):
        return sum(map(bytes_in, value))
    return value.nbytes if isinstance(value, np.ndarray) else 0
