"""The selection over any number of shards, against one shard."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from patchcore.coreset import project, select_sizes
from patchcore.greedy import centre, select_greedily
from patchcore.shards import LocalShards, Shard
from tests.support import one_thread


@pytest.fixture(autouse=True)
def quick():
    with one_thread():
        yield


def select(parts, sizes, seed, candidates=None):
    """Select from points that are divided into parts; return what was found, and the centring."""
    masks = [None] * len(parts)
    if candidates is not None:
        masks = torch.split(candidates, [len(part) for part in parts])
    parts = [part.clone() for part in parts]
    taken = [None if mask is None else mask.nonzero()[:, 0] for mask in masks]
    shards = LocalShards([Shard(*one) for one in zip(parts, taken, strict=True)])
    centre(shards, seed)
    return select_sizes(shards, sizes, seed=seed), torch.cat(parts)


def assert_the_same(found, expected):
    (selection, points), (expected_selection, expected_points) = found, expected
    np.testing.assert_array_equal(selection.numbers, expected_selection.numbers)
    assert selection.coverage == expected_selection.coverage
    assert torch.equal(points, expected_points)


@pytest.mark.parametrize("count", [2, 3, 7])
@pytest.mark.parametrize("masked", [False, True])
def test_any_number_of_workers_selects_the_same(count, masked):
    """Shards of whole images, each image there three times; one shard has no candidate."""
    generator = torch.Generator().manual_seed(1)
    embeddings = torch.randn(7 * 100, 200, generator=generator)
    embeddings += 4 * torch.randn(9, 200, generator=generator)[torch.arange(700) % 9]
    points = project(embeddings.repeat(3, 1), 2)
    candidates = torch.arange(len(points)) % 3 != 1 if masked else None
    if masked:
        candidates[:1000] = False
    number = len(points) if candidates is None else int(candidates.sum())
    for sizes in ([1, 40, number // 2], [3, number]):
        expected = select([points], sizes, 2, candidates)
        images = np.array_split(np.arange(21), count)
        parts = torch.split(points, [100 * len(part) for part in images])
        assert_the_same(select(parts, sizes, 2, candidates), expected)


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 40), min_size=1, max_size=7).filter(sum),
    share=st.floats(0.01, 1),
    group_size=st.integers(1, 60),
    values=st.integers(1, 30),
    seed=st.integers(0, 99),
)
def test_equal_distances_are_taken_in_the_order_of_one_shard(
    lengths, share, group_size, values, seed
):
    """Whole numbers: all distances are exact, and many are equal, also at the border of a group."""
    count = sum(lengths)
    points = torch.zeros(count, 16)
    drawn = np.random.RandomState(seed).randint(values, size=(count, 2))
    points[:, :2] = torch.from_numpy(drawn).float()
    size = max(1, int(share * count))
    expected, found = (
        select_greedily(
            LocalShards([Shard(part) for part in parts]), size, seed=seed, group_size=group_size
        )
        for parts in ([points], torch.split(points, lengths))
    )
    np.testing.assert_array_equal(found.numbers, expected.numbers)
    np.testing.assert_array_equal(found.reached, expected.reached)


def test_rows_keep_the_order_that_was_asked_for():
    points = torch.arange(20.0)[:, None]
    shards = LocalShards([Shard(part) for part in torch.split(points, [3, 0, 9, 8])])
    numbers = np.array([19, 0, 5, 3, 12, 5])
    assert shards.rows(numbers)[:, 0].tolist() == numbers.tolist()


def test_a_shard_without_patches_does_not_count():
    """Neither for the largest length of a patch nor for the smallest first distance."""
    shards = LocalShards([Shard(torch.tensor([[0.5], [-0.25]])), Shard(torch.empty(0, 1))])
    assert shards.prepare() == 0.25
    assert shards.begin(torch.tensor([[2.0], [2.0]])) == 1.5**2


@pytest.mark.parametrize("size", [1, 2, 3, 5, 9])
def test_of_equal_distances_those_of_the_lowest_numbers_are_the_farthest(size):
    shard = Shard(torch.tensor([[3.0], [-3], [1], [3], [-3], [0], [-3]]))
    shard.prepare()
    shard.begin_beyond(torch.zeros(1, 1), torch.zeros(1))
    distances, numbers = shard.farthest(size)
    expected = sorted([0, 1, 3, 4, 6, 2, 5][:size])
    assert numbers.tolist() == expected
    assert distances.tolist() == [[9, 9, 1, 9, 9, 0, 9][number] for number in expected]
