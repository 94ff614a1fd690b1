"""A few training images are chosen by seed alone, and fewer are among more."""

from pathlib import Path

import pytest

from datasets.base import GOOD, Category, Sample
from datasets.shots import choose_shots, shuffled_training

FILES = [Path(f"{number:03d}.png") for number in range(10)]
CATEGORY = Category("nut", tuple(Sample(f, "nut", GOOD) for f in FILES), (), has_masks=False)


def chosen(shots: int, seed: int = 0) -> list[int]:
    return [int(sample.path.stem) for sample in choose_shots(CATEGORY, shots, seed).train]


def test_the_choice_stays_the_same_in_all_versions():
    assert [chosen(shots) for shots in (1, 2, 4)] == [[2], [2, 8], [2, 4, 8, 9]]
    assert chosen(2, seed=1) == [2, 9]


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_fewer_shots_are_among_more(seed):
    order = shuffled_training(CATEGORY, seed)
    assert sorted(order) == list(range(10))
    for shots in range(1, 11):
        assert chosen(shots, seed) == sorted(order[:shots])


@pytest.mark.parametrize("shots", [10, 11, 500])
def test_all_images_keep_the_order_of_the_dataset(shots):
    assert choose_shots(CATEGORY, shots, 3) == CATEGORY
