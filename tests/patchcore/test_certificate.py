"""Covering radii and what they prove, against all differences and all coresets."""

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from patchcore.certificate import Coverage, _coverage, _rounding
from patchcore.coreset import select_sizes
from patchcore.greedy import NUM_STARTING_POINTS, centre, select_greedily, starting_points
from patchcore.shards import CHECKED_AT_A_TIME, LocalShards, Shard, squared_norms
from tests.support import one_thread


@pytest.fixture(autouse=True)
def quick():
    with one_thread():
        yield


def coverage_and_radii(points, sizes, seed=0):
    """Return the coverage, and the radii by all differences in float64."""
    points = points.clone()
    shards = LocalShards.of(points)
    centre(shards, seed)
    found = select_sizes(shards, sizes, seed=seed)
    exact = points.double()
    radii = [float(torch.cdist(exact, exact[found.numbers[:size]]).amin(1).max()) for size in sizes]
    return found.coverage, radii


def smallest_radius(points, size):
    """Return the smallest covering radius of any ``size`` of the points, by trying all."""
    apart = torch.cdist(points.double(), points.double())
    return min(float(apart[:, c].amin(1).max()) for c in combinations(range(len(points)), size))


@settings(max_examples=100, deadline=None)
@given(
    count=st.integers(2, 11),
    share=st.floats(0, 1),
    dim=st.integers(1, 3),
    clusters=st.integers(1, 6),
    spread=st.sampled_from([0.0, 0.01, 0.3, 1.0]),
    seed=st.integers(0, 10**6),
)
def test_no_coreset_is_better_by_more_than_the_factor(count, share, dim, clusters, spread, seed):
    """Also with duplicates, and few patches, which the starting points' distances found."""
    size = 1 + int(share * (count - 2))
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(clusters, dim, generator=generator)
    points = centres[torch.randint(clusters, (count,), generator=generator)]
    points = points + spread * torch.randn(count, dim, generator=generator)
    ((found,), (radius,)) = coverage_and_radii(points, [size])
    assert found.radius == pytest.approx(radius, rel=1e-4, abs=1e-2)
    if found.factor is None:
        assert found.radius < 0.01
    else:
        assert radius <= found.factor * smallest_radius(points, size) + 1e-12


@pytest.mark.parametrize("scattered", [20, CHECKED_AT_A_TIME + 300])
def test_radii_of_any_size_are_exact(scattered):
    """All starting points are within a crowd that none of the first selected patches is in."""
    generator = torch.Generator().manual_seed(3)
    crowd = 3 * CHECKED_AT_A_TIME
    points = torch.randn(crowd + scattered, 16, generator=generator)
    points[:crowd] *= 0.3
    points[crowd:] *= 3
    seed = next(s for s in range(999) if starting_points(len(points), s).max() < crowd)
    sizes = [1, 2, 3, 10, scattered // 2, scattered, scattered + 200]
    coverage, radii = coverage_and_radii(points, sizes, seed)
    for found, radius in zip(coverage, radii, strict=True):
        assert found.radius == pytest.approx(radius, rel=1e-5)


def test_the_loops_distances_alone_are_too_small_for_few_patches():
    """One patch is selected: all others have a mean distance to the starting points."""
    points = torch.randn(200, 16, generator=torch.Generator().manual_seed(5))
    points -= points[starting_points(200, 0)].mean(0)
    reached = select_greedily(LocalShards.of(points), 1, seed=0).reached[1] ** 0.5
    ((found,), (radius,)) = coverage_and_radii(points, [1])
    assert reached < 0.9 * radius
    assert found.radius == pytest.approx(radius, rel=1e-5)
    assert found.factor == pytest.approx(2, rel=1e-4)


def test_patches_near_the_starting_points_may_stay_far_from_the_selected_ones():
    """Ten at 0, where all starting points are, one at 10 and one at 10.1; both are selected."""
    points = torch.tensor([[0.0]] * 10 + [[10.0], [10.1]])
    seed = next(s for s in range(9999) if starting_points(12, s).max() < 10)
    ((found,), (radius,)) = coverage_and_radii(points, [2], seed)
    assert smallest_radius(points, 2) == pytest.approx(0.1, rel=1e-4)
    assert found.radius == pytest.approx(radius) == pytest.approx(10)
    assert found.factor == pytest.approx(200, rel=0.05)


def test_the_farthest_patch_is_found_behind_more_promising_ones(monkeypatch):
    """The centre near the starting point is far from ten patches, which are centres themselves."""
    monkeypatch.setattr("patchcore.shards.CHECKED_AT_A_TIME", 3)
    near, start, farthest = [-4.0, 6.0], [0.0, 0.0], [-4.0, 0.0]
    crowd = [[4.0, 0.01 * number] for number in range(10)]
    points = torch.tensor([near, start, farthest, *crowd])
    shard = Shard(points)
    shard.prepare()
    shard.begin(points[1:2])
    centres = points[[0, *range(3, 13)]]
    squared = shard.radius(np.array([0]), centres, squared_norms(centres), 17.0)
    assert squared == pytest.approx(36)


def test_the_factor_is_two_where_the_starting_points_do_not_matter():
    points = torch.randn(2000, 32, generator=torch.Generator().manual_seed(5))
    coverage, _ = coverage_and_radii(points, [300, 1900])
    for found in coverage:
        assert 2 < found.factor < 2.001


@pytest.mark.parametrize("dim", [1, 128, 1024])
def test_the_rounding_is_at_least_the_bound_for_sums_of_products(dim):
    """n u / (1 - n u) of the sum of their sizes: |x|^2 + |c|^2 + 2 |x||c|, at most 4 |x|^2."""
    unit, longest = 2.0**-24, 7.0
    assert _rounding(longest, dim) > dim * unit / (1 - dim * unit) * 4 * longest


def test_the_factor_holds_whatever_the_rounding_was():
    """The squared radius 8 may be 9, and the squared distance 5 may be 4: 2 * 3 / 2."""
    assert _coverage(8.0, 5.0, 1.0) == (pytest.approx(8**0.5), pytest.approx(3))
    assert _coverage(8.0, 1.0, 1.0).factor is None


def test_a_radius_below_the_rounding_proves_nothing():
    points = 1000 + torch.randn(20, 8, generator=torch.Generator().manual_seed(5)).repeat(30, 1)
    ((found,), _) = coverage_and_radii(points, [300])
    assert found.radius < 0.01
    assert found.factor is None


def test_a_coreset_of_all_patches_is_the_best():
    coverage, _ = coverage_and_radii(torch.randn(NUM_STARTING_POINTS + 5, 4), [3, 15])
    assert coverage[1] == (0.0, 1.0)


def test_a_bound_is_not_rounded_down():
    assert "at most 2.002 times" in Coverage(0.5, 2.0010001).describe()
    assert "too small" in Coverage(1e-4, None).describe()
