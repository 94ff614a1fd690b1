import functools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from patchcore import PatchCoreError
from patchcore.coreset import greedy_coreset, project, select_beyond, select_sizes
from patchcore.greedy import centre, select_greedily, select_group, starting_points
from patchcore.shards import LocalShards, first_distances, lower_distances_, squared_norms
from tests.support import one_thread


@pytest.fixture(autouse=True, params=[1])
def threads(request):
    """One thread, which is quick for small matrices, where a test does not ask for more."""
    with one_thread():
        torch.set_num_threads(request.param)
        yield


def centre_(points, seed):
    centre(LocalShards.of(points), seed)
    return points


def select(points, num_samples, seed, candidates=None, group_size=1024):
    """Return the numbers of the selected points, among the candidates."""
    shards = LocalShards.of(points, candidates)
    return select_greedily(shards, num_samples, seed=seed, group_size=group_size).numbers


def select_one_by_one(embeddings, num_samples, seed=0, projection_dim=128):
    """The slow twin: one pass over all patches for each selected one, in float64."""
    points = centre_(project(embeddings, seed, projection_dim), seed).double()
    starting = np.random.RandomState(seed).choice(len(points), min(10, len(points)), replace=False)
    distances = sum((points - points[s]).norm(dim=1) for s in starting) / len(starting)
    selected = []
    for _ in range(num_samples):
        farthest = int(distances.numpy().argmax())  # of equal ones the lowest patch number
        selected.append(farthest)
        distances = torch.minimum(distances, (points - points[farthest]).norm(dim=1))
        distances[farthest] = -1  # never a second time
    return selected


@functools.cache
def selected_one_by_one(count, num_samples, clusters):
    return select_one_by_one(make_embeddings(count, clusters=clusters), num_samples)


def make_embeddings(count, dim=64, clusters=0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(count, dim, generator=generator)
    if clusters:
        centres = 5 * torch.randn(clusters, dim, generator=generator)
        embeddings += centres[torch.randint(clusters, (count,), generator=generator)]
    return embeddings


@pytest.mark.parametrize("group_size", [1, 2, 7, 64, 1024])
@pytest.mark.parametrize(
    ("count", "num_samples", "clusters"),
    [(1, 1, 0), (9, 9, 0), (50, 20, 0), (300, 299, 0), (2000, 500, 12), (5000, 200, 0)],
)
def test_selects_what_the_plain_loop_selects(count, num_samples, clusters, group_size):
    embeddings = make_embeddings(count, clusters=clusters)
    selected = greedy_coreset(embeddings, num_samples, group_size=group_size)
    assert selected.dtype == torch.int64
    expected = selected_one_by_one(count, num_samples, clusters)
    assert_nearly_the_same(selected.tolist(), expected)


def assert_nearly_the_same(selected, expected):
    """The same patches; a few may change places, whose distances float32 cannot tell apart."""
    assert set(selected) == set(expected)
    swapped = sum(a != b for a, b in zip(selected, expected, strict=True))
    assert swapped <= 0.01 * len(expected)


@pytest.mark.parametrize("group_size", [1, 4, 50, 1024])
def test_of_equal_patches_the_one_with_the_lowest_number_is_selected(group_size):
    order = np.random.RandomState(1).permutation(600)
    embeddings = make_embeddings(120).repeat(5, 1)[order]
    selected = greedy_coreset(embeddings, 120, group_size=group_size)
    assert selected.tolist() == select_one_by_one(embeddings, 120)


@pytest.mark.parametrize("group_size", [1, 2, 7, 64, 1024, 1100])
@pytest.mark.parametrize(("count", "largest"), [(60, 5), (300, 40), (1500, 25)])
def test_equal_distances_of_different_patches_are_taken_in_ascending_order(
    count, largest, group_size
):
    """Whole numbers on a line: all distances are exact, and many are equal."""
    line = np.random.RandomState(count).randint(-largest, largest + 1, count).astype(np.float32)
    starting = np.random.RandomState(3).choice(count, 10, replace=False)
    distances = np.square(np.abs(line[:, None] - line[starting]).sum(1) / np.float32(10))
    expected = []
    for _ in range(count):
        expected.append(int(distances.argmax()))
        distances = np.minimum(distances, np.square(line - line[expected[-1]]))
        distances[expected] = -1
    points = torch.zeros(count, 4)
    points[:, 1] = torch.from_numpy(line)
    assert select(points, count, seed=3, group_size=group_size).tolist() == expected


def test_equal_patches_are_all_selected_in_ascending_order():
    seen = []
    selected = greedy_coreset(torch.ones(40, 16), 40, group_size=8, progress=seen.append)
    assert selected.tolist() == list(range(40))
    assert seen == [8, 16, 24, 32, 40]  # equal distances make no group shorter


on_threads = pytest.mark.parametrize("threads", [1, 2], indirect=True)
BATCHES = [1, 100, 784, 3 * 784]


@on_threads
@pytest.mark.parametrize("rows", BATCHES[1:])
@pytest.mark.parametrize("dim", [200, 33])
def test_projects_batches_to_the_same_bits(rows, dim):
    embeddings = make_embeddings(4 * 784 + 1, dim=dim)  # some last batches have one row only
    in_batches = torch.cat([project(batch, 0) for batch in embeddings.split(rows)])
    assert torch.equal(in_batches, project(embeddings, 0))


@on_threads
def test_projects_single_rows_to_the_same_bits(threads):
    embeddings = make_embeddings(50, dim=1024)
    in_batches = torch.cat([project(row, 0) for row in embeddings.split(1)])
    assert torch.equal(in_batches, project(embeddings, 0))


@on_threads
@pytest.mark.parametrize("rows", BATCHES)
@pytest.mark.parametrize(("group", "dim"), [(1, 128), (5, 33), (300, 128)])
def test_distances_of_shards_have_the_same_bits(rows, group, dim):
    """Among them distances that were lost, and went through the same groups once more."""
    count = 20 if rows == 1 else 1100
    points = make_embeddings(count, dim=dim).repeat(2, 1)
    starting = points[starting_points(len(points), 0)]
    groups = (torch.arange(2 * group) % count).split(group)

    def distances_of(shard):
        norms = squared_norms(shard)
        distances = first_distances(shard, starting)
        for centres in groups:
            centre_norms = squared_norms(points)[centres]
            lower_distances_(distances, shard, norms, points[centres], centre_norms)
        return distances

    expected = distances_of(points)
    assert torch.equal(expected[:count], expected[count:])  # equal points, equal distances
    assert torch.equal(torch.cat([distances_of(shard) for shard in points.split(rows)]), expected)


@pytest.mark.parametrize("rows", [100, 784])
def test_selects_the_same_from_batches(rows):
    embeddings = make_embeddings(1200, dim=200, clusters=7).repeat(2, 1)
    points = torch.cat([project(batch, 5) for batch in embeddings.split(rows)])
    selected = select(centre_(points, 5), 900, seed=5, group_size=128)
    expected = greedy_coreset(embeddings, 900, seed=5, group_size=128)
    assert selected.tolist() == expected.tolist()


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(1, 120),
    share=st.floats(0.01, 1),
    group_size=st.integers(1, 200),
    seed=st.integers(0, 5),
    copies=st.integers(1, 3),
)
def test_a_shorter_selection_is_the_beginning_of_a_longer_one(
    count, share, group_size, seed, copies
):
    embeddings = make_embeddings(count, dim=8, seed=seed).repeat(copies, 1)
    longest = greedy_coreset(embeddings, len(embeddings), seed=seed, group_size=group_size)
    assert sorted(longest.tolist()) == list(range(len(embeddings)))
    size = max(1, int(share * len(embeddings)))
    shorter = greedy_coreset(embeddings, size, seed=seed, group_size=group_size)
    assert shorter.tolist() == longest[:size].tolist()


def test_the_seed_matters_and_repeats():
    embeddings = make_embeddings(500, dim=300)
    first = greedy_coreset(embeddings, 50, seed=1).tolist()
    assert greedy_coreset(embeddings, 50, seed=1).tolist() == first
    assert greedy_coreset(embeddings, 50, seed=2).tolist() != first


@pytest.mark.parametrize("group_size", [16, 1024])
@pytest.mark.parametrize("share", [0.02, 0.5, 1.0])
@pytest.mark.parametrize("whole_images", [False, True])
def test_a_mask_selects_as_from_a_copy_of_the_candidates(share, group_size, whole_images):
    count, per_image = 2400, 100
    points = centre_(make_embeddings(count // 2, dim=128, clusters=5).repeat(2, 1), 0)
    generator = np.random.RandomState(2)
    if whole_images:
        mask = np.repeat(generator.permutation(count // per_image) % 4 > 0, per_image)
    else:
        mask = generator.rand(count) < 0.6
    before, mask = points.clone(), torch.from_numpy(mask)
    num_samples = int(share * int(mask.sum()))
    selected = select(points, num_samples, seed=3, candidates=mask, group_size=group_size)
    expected = select(points[mask], num_samples, seed=3, group_size=group_size)
    assert selected.tolist() == expected.tolist()
    assert torch.equal(points, before)


def test_what_a_mask_leaves_out_may_be_anything():
    points = make_embeddings(300, dim=16)
    points[7], mask = float("nan"), torch.arange(300) != 7
    expected = select(points[mask], 50, seed=0)
    assert select(points, 50, seed=0, candidates=mask).tolist() == expected.tolist()
    with pytest.raises(PatchCoreError, match="finite"):
        select(points, 50, seed=0)


def test_refuses_more_patches_than_there_are_candidates():
    mask = torch.arange(20) < 5
    with pytest.raises(PatchCoreError, match=r"1 to 5 patches.*found 6"):
        select(make_embeddings(20), 6, seed=0, candidates=mask)


def test_projection_is_the_reference_codes_draw():
    embeddings = make_embeddings(30, dim=256)
    torch.manual_seed(7)
    linear = torch.nn.Linear(256, 128, bias=False)
    torch.testing.assert_close(project(embeddings, 7), linear(embeddings).detach())


@pytest.mark.parametrize(("dim", "projection_dim"), [(128, 128), (40, None)])
def test_projection_is_left_out_where_it_would_not_shorten(dim, projection_dim):
    embeddings = make_embeddings(30, dim=dim)
    before = embeddings.clone()
    points = project(embeddings, 0, projection_dim)
    assert torch.equal(points, before)
    centre_(points, 0)
    assert torch.equal(embeddings, before)  # what was given is left as it is


def test_starting_points_are_the_reference_codes_draw():
    expected = np.random.RandomState(4).choice(500, 10, replace=False)
    assert starting_points(500, 4).tolist() == expected.tolist()
    assert sorted(starting_points(6, 4).tolist()) == list(range(6))


def test_starting_points_of_very_many_patches_need_no_memory_for_each():
    found = starting_points(10**13, 4).tolist()
    assert found == starting_points(10**13, 4).tolist() != starting_points(10**13, 5).tolist()
    assert len(set(found)) == 10
    assert 10**10 < max(found) < 10**13


def test_the_mean_of_the_starting_points_becomes_the_origin():
    points = make_embeddings(100)
    expected = points - points[np.random.RandomState(4).choice(100, 10, replace=False)].mean(0)
    centre(LocalShards.of(points), 4)
    torch.testing.assert_close(points, expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_embeddings_of_other_types_are_converted(dtype):
    embeddings = make_embeddings(80).to(dtype)
    expected = greedy_coreset(embeddings.float(), 20)
    assert torch.equal(greedy_coreset(embeddings.requires_grad_(), 20), expected)


def test_leaves_the_global_random_state_alone():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    np_state = np.random.get_state()[1].copy()
    greedy_coreset(make_embeddings(50), 10)
    assert torch.equal(torch.rand(4), expected)
    assert (np.random.get_state()[1] == np_state).all()


def test_large_common_offset_does_not_blur_the_selection():
    """Distances are small differences of large squares here, unless the points are centred."""
    embeddings = make_embeddings(400, dim=128)
    shifted = embeddings + 300
    expected = select_one_by_one(shifted, 100)
    assert greedy_coreset(shifted, 100).tolist() == expected


def test_reports_progress_up_to_the_end():
    seen = []
    greedy_coreset(make_embeddings(300), 100, group_size=16, progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 100


@pytest.mark.parametrize("num_samples", [0, -1, 11])
def test_refuses_more_patches_than_there_are_or_none(num_samples):
    with pytest.raises(PatchCoreError, match=f"1 to 10 patches.*found {num_samples}"):
        greedy_coreset(make_embeddings(10), num_samples)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_refuses_values_that_are_not_finite(value):
    embeddings = make_embeddings(10)
    embeddings[3, 2] = value
    with pytest.raises(PatchCoreError, match="finite"):
        greedy_coreset(embeddings, 3)


@pytest.mark.gpu
def test_selects_the_same_on_a_gpu():
    embeddings = make_embeddings(3000, clusters=5)
    on_cpu = greedy_coreset(embeddings, 300)
    assert_nearly_the_same(greedy_coreset(embeddings.cuda(), 300).tolist(), on_cpu.tolist())


@pytest.mark.gpu
def test_leaves_the_random_state_of_a_gpu_alone():
    before = torch.cuda.get_rng_state()
    greedy_coreset(make_embeddings(50).cuda(), 10)
    assert torch.equal(torch.cuda.get_rng_state(), before)


class TestAllPatches:
    @pytest.fixture
    def points(self):
        return centre_(torch.randn(60, 16, generator=torch.Generator().manual_seed(2)), 0)

    def test_all_are_taken_in_their_order_without_a_selection(self, points, monkeypatch):
        monkeypatch.setattr("patchcore.coreset.select_greedily", None)
        seen = []
        found = select_sizes(LocalShards.of(points), [60], seed=0, progress=seen.append)
        assert found.numbers.tolist() == list(range(60))
        assert found.coverage == ((0.0, 1.0),)
        assert seen == [60]

    def test_a_smaller_coreset_stays_the_prefix(self, points):
        found = select_sizes(LocalShards.of(points), [12, 60], seed=0).numbers.tolist()
        assert found[:12] == select(points, 12, seed=0).tolist()
        assert found[12:] == [number for number in range(60) if number not in found[:12]]

    def test_all_candidates(self, points):
        shards = LocalShards.of(points, torch.arange(60) % 3 != 0)
        found = select_sizes(shards, [5, 40], seed=0).numbers.tolist()
        assert found[:5] == select(points, 5, 0, torch.arange(60) % 3 != 0).tolist()
        assert sorted(found) == list(range(40))

    def test_other_sizes_are_selected(self, points):
        expected = select(points, 59, seed=0).tolist()
        assert select_sizes(LocalShards.of(points), [3, 59], seed=0).numbers.tolist() == expected

    def test_values_that_are_not_finite_are_refused(self, points):
        points[7, 3] = torch.inf
        with pytest.raises(PatchCoreError, match="expected finite embeddings"):
            select_sizes(LocalShards.of(points), [60], seed=0)

    def test_more_than_all_are_refused(self, points):
        with pytest.raises(PatchCoreError, match=r"1 to 60 patches.*found 61"):
            select_sizes(LocalShards.of(points), [61], seed=0)


@pytest.mark.parametrize(("num_samples", "group_size"), [(3, 2), (5, 2), (6, 2), (6, 9)])
def test_each_selected_patch_has_its_distance_and_the_next_one_too(num_samples, group_size):
    """Docstring of `Greedy`: M + 1 squared distances, the last 0 if no other is left."""
    line = np.array([0.0, 1, 3, 7, 15, 31])
    distances = np.square(np.abs(line[:, None] - line).mean(1))  # all are starting points
    expected = []
    for _ in line:
        expected.append(distances.max())
        distances = np.minimum(distances, np.square(line - line[distances.argmax()]))
    points = torch.from_numpy(line).float()[:, None]
    found = select_greedily(LocalShards.of(points), num_samples, seed=0, group_size=group_size)
    assert found.reached.tolist() == pytest.approx([*expected, 0][: num_samples + 1])


@pytest.mark.parametrize(("limit", "expected"), [(3.9, [0, 1]), (4.0, [0]), (4.1, [0])])
def test_a_group_ends_at_the_limit(limit, expected):
    """Only patches beyond it are selected, also if one outside of the group is just at it."""
    points = torch.tensor([[9.0], [2.0], [-2.0]])
    distances, numbers = np.float32([81, 4, 4]), np.arange(3)
    chosen = select_group(LocalShards.of(points), distances, numbers, 2, 3, limit)
    assert chosen.numbers.tolist() == expected


class TestSelectBeyond:
    @pytest.mark.parametrize("radius", [0.0, 2.0, 3.5, 9.0])
    @pytest.mark.parametrize("count", [5, 3000])
    def test_is_the_greedy_selection_that_goes_on(self, radius, count):
        """The slow twin, in float64: each was the farthest of all, but for rounding."""
        generator = torch.Generator().manual_seed(7)
        points = torch.randn(count, 8, generator=generator) + 3
        kept = torch.randn(30, 8, generator=generator) + 3
        found = select_beyond(points, kept, radius).tolist()
        assert len(set(found)) == len(found)
        distances = torch.cdist(points.double(), kept.double()).amin(1)
        for number in found:
            assert distances[number] >= max(float(distances.max()) * (1 - 1e-5), radius)
            to_it = (points.double() - points[number].double()).norm(dim=1)
            distances = torch.minimum(distances, to_it)
        assert distances.max() <= radius + 1e-6

    def test_patches_that_are_there_already_are_not_added(self):
        kept = 100 + torch.randn(50, 8, generator=torch.Generator().manual_seed(7))
        assert len(select_beyond(kept[10:30], kept, 0.0)) == 0
        assert len(select_beyond(torch.cat([kept + 1, kept + 1]), kept, 0.0)) == 50
