"""Items come in order, in threads whose number, results ahead and bytes are limited."""

import threading
import time
from itertools import count

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.reading_ahead import bytes_in, in_batches, map_ahead, read_batches


def reading_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("read")]


class TestMapAhead:
    @settings(deadline=None)
    @given(st.lists(st.integers()), st.integers(0, 4), st.integers(1, 9))
    def test_results_come_in_the_items_order(self, items, num_workers, ahead):
        results = map_ahead(str, items, num_workers=num_workers, ahead=ahead)
        assert list(results) == [str(item) for item in items]

    @pytest.mark.parametrize(("num_workers", "ahead"), [(1, 1), (2, 5), (4, 4), (0, 3)])
    def test_no_more_than_ahead_items_are_taken_before_they_are_wanted(self, num_workers, ahead):
        taken = 0

        def endless():
            nonlocal taken
            while True:
                taken += 1
                yield taken

        results = map_ahead(str, endless(), num_workers=num_workers, ahead=ahead)
        for given_out in range(1, 20):
            next(results)
            assert taken <= given_out + (ahead if num_workers else 0)
        results.close()

    def test_nothing_is_taken_before_the_first_result_is_asked_for(self):
        items = iter([1, 2])
        map_ahead(str, items, num_workers=2, ahead=2)
        assert list(items) == [1, 2]

    @pytest.mark.parametrize("num_workers", [1, 3])
    def test_as_many_items_as_workers_are_under_way_at_once(self, num_workers):
        meeting = threading.Barrier(num_workers, timeout=10)  # broken if one comes too late
        items = range(2 * num_workers)
        results = map_ahead(
            lambda item: (meeting.wait(), item)[1], items, num_workers=num_workers, ahead=6
        )
        assert list(results) == list(items)

    def test_no_workers_compute_in_the_callers_thread(self):
        results = map_ahead(lambda _: threading.current_thread(), [1], num_workers=0, ahead=4)
        assert list(results) == [threading.current_thread()]

    @pytest.mark.parametrize("num_workers", [0, 2])
    def test_an_exception_is_raised_where_its_result_was_due(self, num_workers):
        results = map_ahead(lambda item: 6 // item, [1, 2, 0, 3], num_workers=num_workers, ahead=4)
        assert [next(results), next(results)] == [6, 3]
        with pytest.raises(ZeroDivisionError):
            next(results)
        assert not reading_threads()

    def test_closing_early_ends_the_threads_and_begins_nothing_more(self):
        begun = []

        def work(item: int) -> int:
            begun.append(item)
            time.sleep(0.05 if item else 0)
            return item

        results = map_ahead(work, count(), num_workers=2, ahead=8)
        next(results)
        assert reading_threads()
        results.close()
        assert not reading_threads()
        assert len(begun) < 6  # of the 9 that were asked for


class TestInBatches:
    @given(st.lists(st.integers()), st.integers(1, 7))
    def test_all_items_in_order_in_full_batches_but_the_last(self, items, batch_size):
        batches = list(in_batches(items, batch_size))
        assert [item for batch in batches for item in batch] == items
        assert all(len(batch) == batch_size for batch in batches[:-1])
        assert all(1 <= len(batch) <= batch_size for batch in batches[-1:])

    def test_items_are_taken_as_batches_are_asked_for(self):
        items = count()
        assert next(in_batches(items, 3)) == [0, 1, 2]
        assert next(items) == 3

    def test_a_batch_of_large_arrays_ends_early(self):
        sizes = (10, 10, 10, 25, 1, 1, 1)
        batches = in_batches((np.zeros(size, np.uint8) for size in sizes), 3, max_bytes=20)
        assert [[len(array) for array in batch] for batch in batches] == [
            [10, 10],
            [10, 25],
            [1, 1, 1],
        ]


def test_bytes_of_arrays_in_tuples():
    assert bytes_in(np.zeros((2, 3), np.float32)) == 24
    assert bytes_in(("name", np.zeros(5, np.uint8), (np.zeros(2, np.uint16), None))) == 9


class Meter:
    """Counts the bytes of items that are processed or wait, and the largest sum of them."""

    def __init__(self) -> None:
        self.now = self.largest = 0
        self._lock = threading.Lock()

    def change(self, num_bytes: int) -> None:
        with self._lock:
            self.now += num_bytes
            self.largest = max(self.largest, self.now)


class TestBudget:
    @pytest.mark.parametrize("sizes", [[30] * 20, [100] * 8, [10, 250, 10, 250, 250, 10] * 3])
    def test_bytes_under_way_are_limited_and_a_larger_item_is_alone(self, sizes):
        meter = Meter()

        def read(size: int) -> np.ndarray:
            meter.change(size)
            time.sleep(0.002)
            return np.zeros(size, np.uint8)

        results = map_ahead(
            read, sizes, num_workers=6, ahead=12, size_of=lambda size: size, budget=100
        )
        found = []
        for result in results:
            found.append(len(result))
            meter.change(-len(result))
        assert found == sizes
        # The result that was handed over no longer counts for the budget, and does here.
        assert meter.largest <= max(100, *sizes) + max(sizes)

    def test_what_a_result_does_not_keep_is_free_again(self):
        meeting = threading.Barrier(2, timeout=10)
        results = map_ahead(
            lambda item: (meeting.wait(), np.zeros(1, np.uint8))[1] if item >= 4 else item,
            range(6),
            num_workers=2,
            ahead=6,
            size_of=lambda item: 40 if item >= 4 else 90,
            budget=100,
        )
        assert len(list(results)) == 6  # the last two fit together

    @pytest.mark.parametrize("fails_in", ["size_of", "function"])
    def test_an_error_passes_its_turn_on(self, fails_in):
        def fail(item: int) -> int:
            if item == 1:
                raise ValueError(fails_in)
            return 80

        def work(item: int) -> np.ndarray:
            if fails_in == "function":
                fail(item)
            return np.zeros(80, np.uint8)

        size_of = fail if fails_in == "size_of" else lambda item: 80
        results = map_ahead(work, range(6), num_workers=3, ahead=6, size_of=size_of, budget=100)
        assert len(next(results)) == 80
        with pytest.raises(ValueError, match=fails_in):
            next(results)
        assert not reading_threads()

    def test_closing_early_does_not_wait_for_room(self):
        results = map_ahead(
            lambda item: np.zeros(80, np.uint8),
            count(),
            num_workers=3,
            ahead=9,
            size_of=lambda item: 80,
            budget=100,
        )
        next(results)
        results.close()
        assert not reading_threads()

    @pytest.mark.parametrize("threads", [0, 2])
    def test_batches_are_full_whatever_the_budget(self, threads):
        batches = read_batches(
            lambda item: np.full(3, item),
            range(7),
            batch_size=3,
            threads=threads,
            size_of=lambda item: 10**12,
        )
        assert [[int(array[0]) for array in batch] for batch in batches] == [
            [0, 1, 2],
            [3, 4, 5],
            [6],
        ]
