import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from patchcore import PatchCoreError
from patchcore.coreset import greedy_coreset, project


def select_one_by_one(embeddings, num_samples, seed=0, num_starting_points=10, projection_dim=128):
    """The slow twin: one pass over all patches for each selected one, in float64."""
    points = project(embeddings, projection_dim, seed).double()
    generator = np.random.RandomState(seed)
    starting = generator.choice(len(points), min(num_starting_points, len(points)), replace=False)
    distances = torch.cdist(points, points[starting]).mean(1)
    selected = []
    for _ in range(num_samples):
        farthest = int(distances.argmax())
        selected.append(farthest)
        distances = torch.minimum(distances, (points - points[farthest]).norm(dim=1))
        distances[farthest] = -1  # never a second time
    return selected


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
    [(1, 1, 0), (9, 9, 0), (50, 20, 0), (300, 299, 0), (2000, 200, 0), (2000, 500, 12)],
)
def test_selects_what_the_plain_loop_selects(count, num_samples, clusters, group_size):
    embeddings = make_embeddings(count, clusters=clusters)
    selected = greedy_coreset(embeddings, num_samples, group_size=group_size)
    assert selected.dtype == torch.int64
    expected = select_one_by_one(embeddings, num_samples)
    assert_nearly_the_same(selected.tolist(), expected)


def assert_nearly_the_same(selected, expected):
    """The same patches; a few may change places, whose distances float32 cannot tell apart."""
    assert set(selected) == set(expected)
    swapped = sum(a != b for a, b in zip(selected, expected, strict=True))
    assert swapped <= 0.01 * len(expected)


@pytest.mark.parametrize("group_size", [4, 1024])
def test_selects_the_same_set_with_duplicates_in_the_data(group_size):
    """Of equal patches any may be selected, so the *vectors* are compared."""
    distinct = make_embeddings(120)
    embeddings = distinct.repeat(5, 1)
    selected = greedy_coreset(embeddings, 120, group_size=group_size)
    expected = select_one_by_one(embeddings, 120)
    assert {i % 120 for i in selected.tolist()} == {i % 120 for i in expected} == set(range(120))


def test_never_selects_a_patch_twice_even_where_all_are_equal():
    selected = greedy_coreset(torch.ones(40, 16), 40, group_size=8)
    assert sorted(selected.tolist()) == list(range(40))


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


def test_projection_is_the_reference_codes_draw_and_is_centred():
    embeddings = make_embeddings(30, dim=256)
    torch.manual_seed(7)
    linear = torch.nn.Linear(256, 128, bias=False)
    expected = linear(embeddings).detach()
    projected = project(embeddings, 128, seed=7)
    torch.testing.assert_close(projected, expected - expected.mean(0))


def test_projection_is_left_out_where_it_would_not_shorten():
    embeddings = make_embeddings(30, dim=128)
    torch.testing.assert_close(project(embeddings, 128, seed=0), embeddings - embeddings.mean(0))
    assert project(make_embeddings(30, dim=40), None, seed=0).shape == (30, 40)


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


def test_refuses_values_that_are_not_finite():
    embeddings = make_embeddings(10)
    embeddings[3, 2] = float("nan")
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
