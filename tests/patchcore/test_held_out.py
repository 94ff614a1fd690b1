"""Thresholds that follow from the scores of held-out images; their computing is in test_fit.py."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from patchcore.folds import NUM_FOLDS, Folds
from patchcore.held_out import (
    ENOUGH_IMAGES,
    NUM_PIXELS,
    PIXEL_RATES,
    HeldOutCollector,
    HeldOutScores,
)


def of_images(scores) -> HeldOutScores:
    """Return held-out scores of training images, given in their order."""
    order = np.argsort(scores, kind="stable")
    return HeldOutScores(np.float32(scores)[order], np.zeros(102, np.float32), order)


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


def test_two_images_are_scored_by_each_other():
    folds = Folds(np.array([0, 1]), seed=0)
    assert sorted(
        int(number) for fold in folds.needed() for number in folds.scored_images(fold)
    ) == [0, 1]


def test_up_to_100_images_all_are_scored_and_of_more_100_to_198():
    """As docs/models.md says: one fold of 99 images is not enough, and two are 198."""
    numbers = {}
    for count in range(2, 500):
        folds = Folds(np.arange(count), seed=0)
        numbers[count] = sum(len(folds.scored_images(fold)) for fold in folds.needed())
    assert all(numbers[count] == count for count in range(2, 101))
    assert min(numbers[count] for count in range(101, 500)) == 100
    assert max(numbers.values()) == 198


class TestThresholds:
    def test_by_hand(self):
        scores = of_images(np.arange(1, 100))
        value, rate = scores.image_threshold(0.01)  # of 100 alike, one is the largest
        assert (np.float32(99) < value < 99.001, rate) == (True, 0.01)
        value, rate = scores.image_threshold(0.05)  # above the fifth largest
        assert (np.float32(95) < value < 95.001, rate) == (True, 0.05)

    def test_few_images_keep_no_small_rate(self):
        scores = of_images([1, 2, 3, 4])
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
            rest = of_images([v for i, v in enumerate(values) if i != new])
            value, kept = rest.image_threshold(rate)
            above += values[new] >= value
        assert kept <= max(rate * (1 + 1e-6), 1 / len(values))
        assert above / len(values) <= kept + 1e-9

    def test_pixels_by_hand(self):
        scores = HeldOutScores(np.float32([1]), np.float32(10 * (1 - PIXEL_RATES)), np.arange(1))
        for rate in (1e-5, 0.001, 0.0123, 1.0):
            assert scores.pixel_threshold(rate) == pytest.approx(10 * (1 - rate), abs=1e-3)


class TestPValues:
    def test_by_hand(self):
        scores = of_images([3, 1, 2, 2])
        found = [scores.p_value(score) for score in (0.5, 1, 1.5, 2, 2.5, 3, 3.5, np.nan)]
        assert found == [1, 1, 0.8, 0.8, 0.4, 0.4, 0.2, 0.2]

    @given(
        values=st.lists(st.integers(0, 9), min_size=1, max_size=12),
        score=st.floats(-1, 11, width=32),
    )
    def test_is_the_share_of_normal_scores_that_are_as_large(self, values, score):
        expected = (1 + sum(value >= score for value in values)) / (1 + len(values))
        found = of_images(values).p_value(score)
        assert found == expected
        assert 1 / (1 + len(values)) <= found <= 1
        assert of_images(values).p_value(score + 0.5) <= found

    @given(values=st.lists(st.integers(0, 9), min_size=2, max_size=12))
    def test_are_uniform_on_exchangeable_scores(self, values):
        """Each image in turn is the new one: exactly uniform without ties, else larger."""
        found = [
            of_images([v for i, v in enumerate(values) if i != new]).p_value(values[new])
            for new in range(len(values))
        ]
        steps = np.arange(1, len(values) + 1) / len(values)
        assert (np.sort(found) >= steps - 1e-12).all()
        if len(set(values)) == len(values):
            np.testing.assert_allclose(np.sort(found), steps)

    @given(
        values=st.lists(st.integers(0, 40), min_size=1, max_size=40),
        rate=st.floats(0.03, 1),
        score=st.integers(0, 40),
    )
    def test_agree_with_the_threshold(self, values, rate, score):
        """An image reaches the threshold of a rate exactly if its p-value is at most the rate."""
        held_out = of_images(values)
        value, kept = held_out.image_threshold(rate)
        is_anomaly = np.float32(score) >= value
        assert is_anomaly == (held_out.p_value(score) <= kept + 1e-12)


def test_the_images_with_the_largest_scores():
    assert of_images([3, 1, 7, 2]).largest(2) == [(2, 7.0), (0, 3.0)]
    assert of_images([3, 1]).largest(5) == [(0, 3.0), (1, 1.0)]


@pytest.mark.parametrize(
    ("height", "width", "stride"),
    [
        (224, 224, 1),
        (300, 300, 2),
        (448, 448, 2),
        (1024, 1024, 4),
        (2048, 2048, 8),
        (64, 2048, 2),
        (2048, 64, 2),
    ],
)
def test_of_large_maps_every_nth_pixel_is_kept(height, width, stride):
    """At most `NUM_PIXELS` of all maps together."""
    scorer = SimpleNamespace(ignored=None)
    collector = HeldOutCollector(scorer, (height, width), 1)
    kept = collector._judged(torch.zeros(1, height, width))
    assert len(kept) == height * width // stride**2
    assert 2 * ENOUGH_IMAGES * len(kept) <= NUM_PIXELS
