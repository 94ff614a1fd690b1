"""Which test images get large figures."""

import math
from pathlib import Path

import numpy as np
import pytest

from datasets.base import Sample
from utils.pipeline.chosen_images import choose_images, misclassification_margin

TYPES = ["crack", "crack", "crack", "good", "good", "hole"]


def samples(types: list[str]) -> tuple[Sample, ...]:
    return tuple(
        Sample(Path(f"data/nut/test/{kind}/{n:03d}.png"), "nut", kind)
        for n, kind in enumerate(types)
    )


def choose(which: str, limit: int = 0, scores=(5, 1, 4, 2, 3.5, 6), threshold=3.0) -> list[int]:
    return choose_images(samples(TYPES), np.array(scores), threshold, which, limit)


@pytest.mark.parametrize(
    ("which", "limit", "expected"),
    [
        ("none", 0, []),
        ("all", 0, [0, 1, 2, 3, 4, 5]),
        ("defective", 0, [0, 1, 2, 5]),
        ("all", 3, [0, 3, 5]),  # the first of each type
        ("all", 4, [0, 1, 3, 5]),
        ("defective", 3, [0, 1, 5]),
        ("all", 99, [0, 1, 2, 3, 4, 5]),
        ("worst", 2, [1, 4]),  # missed by 2, a false alarm by 0.5
    ],
)
def test_images_are_chosen(which, limit, expected):
    assert choose(which, limit) == expected


def test_margins_are_distances_to_the_threshold():
    margins = misclassification_margin(samples(TYPES), np.array([5, 1, 3, 2, 3.5, 3]), 3.0)
    np.testing.assert_array_equal(margins, [-2, 2, 0, -1, 0.5, 0])


def test_without_a_threshold_the_worst_good_images_score_highest():
    chosen = choose_images(samples(["good"] * 3), np.array([1, 3, 2]), math.nan, "worst", 2)
    assert chosen == [1, 2]


def test_the_worst_have_a_limit_of_their_own():
    many = samples(["good"] * 30)
    assert len(choose_images(many, np.arange(30.0), 10.0, "worst", 0)) == 10


def test_of_equally_bad_images_the_first_are_shown():
    many = samples(["good"] * 600)
    scores = np.tile([1.0, 2.0], 300)
    assert choose_images(many, scores, 0.5, "worst", 5) == [1, 3, 5, 7, 9]
