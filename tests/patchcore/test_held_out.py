"""Thresholds that follow from the scores of held-out images; their computing is in test_fit.py."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchcore.held_out import NUM_FOLDS, PIXEL_RATES, Folds, HeldOutScores


def test_folds_are_of_nearly_one_size_and_drawn_by_the_seed():
    folds = Folds(np.arange(10), seed=3)
    assert np.bincount(folds.fold_of_image).tolist() == [3, 3, 2, 2]
    shuffled = np.random.RandomState(3).permutation(10)
    assert folds.fold_of_image[shuffled].tolist() == [n % NUM_FOLDS for n in range(10)]
    scored = np.concatenate([folds.scored_images(fold) for fold in folds.needed()])
    assert sorted(scored.tolist()) == list(range(10))


@pytest.mark.parametrize("seed", range(5))
def test_copies_are_in_one_fold_and_scored_once(seed):
    groups = np.array([0, 1, 0, 2, 1, 3, 4, 4, 4, 5])
    folds = Folds(groups, seed)
    fold_of_group = [set(folds.fold_of_image[groups == group].tolist()) for group in range(6)]
    assert [len(found) for found in fold_of_group] == [1] * 6
    assert sorted(np.bincount([*map(min, fold_of_group)]).tolist()) == [1, 1, 2, 2]
    scored = np.concatenate([folds.scored_images(fold) for fold in folds.needed()])
    assert sorted(scored.tolist()) == [0, 1, 3, 5, 6, 9]


@pytest.mark.parametrize("num_copies", [1, 5])
def test_one_image_has_no_folds(num_copies):
    assert list(Folds(np.zeros(num_copies, np.int64), seed=0).needed()) == []


class TestThresholds:
    def test_by_hand(self):
        scores = HeldOutScores(np.arange(1, 100, dtype=np.float32), np.zeros(102, np.float32))
        value, rate = scores.image_threshold(0.01)  # of 100 alike, one is the largest
        assert (np.float32(99) < value < 99.001, rate) == (True, 0.01)
        value, rate = scores.image_threshold(0.05)  # above the fifth largest
        assert (np.float32(95) < value < 95.001, rate) == (True, 0.05)

    def test_few_images_keep_no_small_rate(self):
        scores = HeldOutScores(np.float32([1, 2, 3, 4]), np.zeros(102, np.float32))
        assert scores.image_threshold(0.01) == (np.nextafter(np.float32(4), np.float32(9)), 0.2)

    @settings(max_examples=50, deadline=None)
    @given(
        values=st.lists(st.integers(0, 12), min_size=2, max_size=12),
        rate=st.floats(0.01, 1),
    )
    def test_a_new_image_of_the_same_kind_is_above_it_at_most_that_often(self, values, rate):
        """The law of split conformal prediction, by all choices of which image is the new one."""
        above, kept = 0, 0.0
        for new in range(len(values)):
            rest = np.sort(np.float32([v for i, v in enumerate(values) if i != new]))
            value, kept = HeldOutScores(rest, np.zeros(102, np.float32)).image_threshold(rate)
            above += values[new] >= value
        assert kept <= max(rate * (1 + 1e-6), 1 / len(values))
        assert above / len(values) <= kept + 1e-9

    def test_pixels_by_hand(self):
        scores = HeldOutScores(np.float32([1]), np.float32(10 * (1 - PIXEL_RATES)))
        for rate in (1e-5, 0.001, 0.0123, 1.0):
            assert scores.pixel_threshold(rate) == pytest.approx(10 * (1 - rate), abs=1e-3)
