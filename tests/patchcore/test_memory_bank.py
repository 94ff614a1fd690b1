import contextlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import faiss
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from patchcore import PatchCoreError, lower_bounds, memory_bank
from patchcore.distances import faiss_nearest, fixed_blocks, near_origin
from patchcore.lower_bounds import LowerBounds
from patchcore.memory_bank import MemoryBank, search_method, torch_nearest
from patchcore.nearby import LimitedSearch, Places, SearchArea
from patchcore.settings import Settings


def nearest_by_loops(queries, embeddings, k):
    """The slow twin: every distance from the difference, in float64."""
    distances = np.empty((len(queries), k))
    indices = np.empty((len(queries), k), dtype=np.int64)
    for row, query in enumerate(queries.double().numpy()):
        all_distances = [np.sqrt(((query - e) ** 2).sum()) for e in embeddings.double().numpy()]
        indices[row] = np.argsort(all_distances, kind="stable")[:k]
        distances[row] = np.sort(all_distances)[:k]
    return distances, indices


def make_points(count, dim=24, seed=0, offset=0.0):
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)) + offset


@pytest.mark.parametrize("k", [1, 3, 40])
def test_finds_the_nearest(k):
    queries, embeddings = make_points(57, seed=1), make_points(40, seed=2)
    distances, indices = MemoryBank(embeddings).search(queries, k)
    expected_distances, expected_indices = nearest_by_loops(queries, embeddings, k)
    assert indices.dtype == torch.int64
    np.testing.assert_array_equal(indices, expected_indices)
    np.testing.assert_allclose(distances, expected_distances, rtol=1e-6)


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("offset", [30.0, 100.0, 300.0])
def test_finds_the_nearest_far_from_the_origin(offset, k):
    queries, embeddings = (
        make_points(count, dim=1024, seed=seed, offset=offset)
        for seed, count in ((1, 400), (2, 300))
    )
    found = MemoryBank(embeddings).search(queries, k)[1]
    exact = torch.cdist(
        queries.double(), embeddings.double(), compute_mode="donot_use_mm_for_euclid_dist"
    )
    assert torch.equal(found, exact.topk(k, largest=False).indices)
    assert torch.equal(torch_nearest(queries, embeddings, k), found)


@pytest.mark.parametrize("limit", [{"search_radius": 0}, {"retrieve_images": 1}])
def test_a_limited_search_finds_the_nearest_far_from_the_origin(limit):
    """In two images of one patch each, a limit leaves all rows, or those of the nearest image."""
    queries, embeddings = make_points(100, seed=1, offset=3e3), make_points(200, offset=3e3)
    numbers, images = np.arange(200) % 2, torch.stack([embeddings[0], embeddings[1] + 9])
    places = Places.of_patches(numbers, (1, 1), embeddings.device, images)
    area = SearchArea.of(Settings(**limit), places)
    where = Places.of_patches(np.zeros(100, int), (1, 1), embeddings.device, images)
    step = 2 if "retrieve_images" in limit else 1
    found = MemoryBank(embeddings, area).begin(queries, 1, where).extend_to(200)
    expected = exact_distances(queries, embeddings[::step]).min(dim=1)
    assert torch.equal(found[1][:, 0], step * expected.indices)
    torch.testing.assert_close(found[0][:, 0].double(), expected.values, rtol=1e-6, atol=0)


@pytest.mark.parametrize(("offset", "moved"), [(0.0, False), (7.5, False), (8.5, True)])
def test_banks_near_the_origin_are_searched_as_they_are(offset, moved):
    queries, embeddings = make_points(9, dim=500), make_points(90, dim=500, offset=offset)
    found = near_origin(queries, embeddings)
    assert (found[0] is queries, found[1] is embeddings) == (not moved, not moved)
    assert (found[1].mean() - (0 if moved else offset)).abs() < 0.1


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_vectors_of_other_types_are_converted(dtype):
    queries, embeddings = (make_points(57, seed=seed).to(dtype) for seed in (1, 2))
    expected = MemoryBank(embeddings.float()).search(queries.float(), 3)
    found = MemoryBank(embeddings.requires_grad_()).search(queries.requires_grad_(), 3)
    assert all(map(torch.equal, found, expected))


def search_prefixes(bank, queries, k, sizes):
    """Search the first rows of a bank, for several sizes."""
    search = bank.begin(queries, k)
    return [search.extend_to(size) for size in sizes]


def test_rows_that_are_not_contiguous_become_so():
    across = make_points(24, dim=40)
    bank = MemoryBank(across.T)
    assert bank.embeddings.is_contiguous()
    assert torch.equal(bank.embeddings, across.T)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_a_prefix_is_searched_as_a_bank_of_its_own(k):
    queries, embeddings = make_points(57, seed=1), make_points(200, seed=2)
    queries[0] = embeddings[20]  # so that it finds the only row that the third size adds
    sizes = [5, 20, 21, 200]
    found = search_prefixes(MemoryBank(embeddings), queries, k, sizes)
    for size, (distances, indices) in zip(sizes, found, strict=True):
        alone = MemoryBank(embeddings[:size]).search(queries, k)
        assert torch.equal(distances, alone[0])
        assert torch.equal(indices, alone[1])


def test_the_first_of_all_rows_are_the_bank_itself():
    """So that what its first search prepared is there."""
    bank = MemoryBank(make_points(20))
    assert bank.first(20) is bank
    assert torch.equal(bank.first(19).embeddings, bank.embeddings[:19])


def test_of_many_equal_distances_the_lowest_row_comes_first():
    """More than 16 values are sorted by a method that does not keep the order of equal ones."""
    queries, embeddings = make_points(9, seed=1), make_points(6, seed=2).repeat(10, 1)
    found = search_prefixes(MemoryBank(embeddings), queries, 30, [30, 60])
    for size, (_, indices) in zip([30, 60], found, strict=True):
        expected = nearest_by_loops(queries, embeddings[:size], 30)[1]
        np.testing.assert_array_equal(indices, expected)


@pytest.mark.parametrize(("has_gpu", "k"), [(False, 3), (True, 2049)])
def test_torch_searches_on_a_gpu_where_faiss_cannot(monkeypatch, has_gpu, k):
    monkeypatch.setattr(memory_bank, "_faiss_has_gpu", lambda: has_gpu)
    monkeypatch.setattr(memory_bank, "torch_nearest", lambda *given: given)
    given = SimpleNamespace(is_cuda=True), torch.empty(9, 2), k
    assert memory_bank._search_in_full(*given) == given


def test_blocks_have_one_shape_and_hold_each_row_once():
    vectors = make_points(2500, dim=5)
    taken = torch.arange(2499, -1, -1)
    (first,) = fixed_blocks(vectors, taken[:9])  # as many blocks as the taken ones need
    assert first[0] == slice(0, 9)
    for order in (None, taken):
        rows, blocks = zip(*fixed_blocks(vectors, order), strict=True)
        assert rows == (slice(0, 1024), slice(1024, 2048), slice(2048, 2500))
        assert all(block.shape == (1024, 16) for block in blocks)
        joined = torch.cat(blocks)
        assert torch.equal(joined[:2500, :5], vectors if order is None else vectors[order])
        assert not joined[:, 5:].any()
        assert not joined[2500:].any()


def test_blocks_are_views_where_nothing_has_to_be_copied():
    vectors = make_points(2048 + 1, dim=16)  # a row is as long as a cache line
    views = [block.data_ptr() == vectors[rows].data_ptr() for rows, block in fixed_blocks(vectors)]
    assert views == [True, True, False]


def test_blocks_are_copied_where_their_rows_begin_elsewhere_in_a_cache_line():
    vectors = torch.randn(2048 * 16 + 1)[1:].view(2048, 16)
    for rows, block in fixed_blocks(vectors):
        assert block.data_ptr() % 64 == 0 != vectors[rows].data_ptr() % 64
        assert torch.equal(block, vectors[rows])


def test_prefixes_of_the_same_size_are_the_same(monkeypatch):
    """Nothing is searched for the second one: on a GPU an empty search is an error."""
    searched = []

    def search(queries, part, k):
        searched.append(len(part))
        return torch_nearest(queries, part, k)

    monkeypatch.setattr(memory_bank, "faiss_nearest", search)
    queries, embeddings = make_points(57, seed=1), make_points(40, seed=2)
    first, second, _ = search_prefixes(MemoryBank(embeddings), queries, 2, [20, 20, 40])
    assert searched == [20, 20]
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])


def test_of_equally_far_neighbours_a_prefix_keeps_the_first_selected():
    embeddings = make_points(10).repeat(3, 1)
    found = search_prefixes(MemoryBank(embeddings), make_points(20, seed=5), 1, [10, 20, 30])
    assert all(torch.equal(indices, found[0][1]) for _, indices in found)


def test_a_patch_of_the_bank_is_at_distance_zero_of_itself():
    """Far from the origin a search by squared norms alone would say 0.1 or so."""
    embeddings = make_points(500, dim=256, offset=60.0)
    distances, indices = MemoryBank(embeddings).search(embeddings, 1)
    assert torch.equal(indices[:, 0], torch.arange(500))
    assert (distances == 0).all()


@pytest.mark.parametrize("block_floats", [1, 1000, 1 << 20])
def test_the_search_in_torch_finds_what_faiss_finds(monkeypatch, block_floats):
    monkeypatch.setattr(memory_bank, "BLOCK_FLOATS", block_floats)
    queries, embeddings = make_points(57, seed=1), make_points(40, seed=2)
    found = torch_nearest(queries, embeddings, 3)
    assert torch.equal(found, MemoryBank(embeddings).search(queries, 3)[1])


def exact_distances(queries, embeddings):
    """Return (Q, M) float64 from the differences, which keeps small ones of large values."""
    return torch.cdist(
        queries.double(), embeddings.double(), compute_mode="donot_use_mm_for_euclid_dist"
    )


def assert_nearest(queries, embeddings, k, sizes=None):
    """Compare with the slow twin; of rows that float32 cannot tell apart any may be found."""
    bank = MemoryBank(embeddings)
    sizes = [len(embeddings)] if sizes is None else sizes
    for size, (found, indices) in zip(sizes, search_prefixes(bank, queries, k, sizes), strict=True):
        expected = exact_distances(queries, embeddings[:size]).sort(dim=1).values[:, :k]
        exact = (queries[:, None].double() - embeddings[indices].double()).norm(dim=2)
        # What was found is as near as the nearest, and as far as it is said to be.
        torch.testing.assert_close(exact, expected, rtol=2e-6, atol=0)
        torch.testing.assert_close(found.double(), exact, rtol=2e-6, atol=0)
        assert all(len(set(row)) == k for row in indices.tolist())
    return bank


def make_embeddings(kind, count, dim, generator):
    """Make data with and without the structure that makes bounds worthwhile."""
    noise = torch.randn(count, dim, generator=generator)
    few = torch.randn(4, dim, generator=generator)
    return {
        "no structure": noise,
        "low rank": noise[:, :4] @ few,
        "nearly low rank": noise[:, :4] @ few + 0.01 * noise,
        "duplicates": (noise[:, :4] @ few + 0.1 * noise)[torch.arange(count) % (count // 3 + 1)],
        "constant": torch.full((count, dim), 3.7),
        "zero": torch.zeros(count, dim),
        "far from the origin": 1e4 + noise[:, :4] @ few + 0.1 * noise,
        "tiny": 1e-12 * (noise[:, :4] @ few + 0.1 * noise),
        "huge": 1e12 * (noise[:, :4] @ few + 0.1 * noise),
        "one outlier": noise[:, :4] @ few + 1e5 * torch.eye(count, dim),
    }[kind]


KINDS = [
    "no structure",
    "low rank",
    "nearly low rank",
    "duplicates",
    "constant",
    "zero",
    "far from the origin",
    "tiny",
    "huge",
    "one outlier",
]


@pytest.fixture
def small_bounds(monkeypatch):
    """Let the bounds search small banks too, in several blocks.

    What they leave to the plain search is found without rounding, so that only they can err.
    """

    def plain(queries, part, k):
        return exact_distances(queries, part).sort(dim=1, stable=True).indices[:, :k]

    for module in (memory_bank, lower_bounds):
        monkeypatch.setattr(module, "faiss_nearest", plain)
    monkeypatch.setattr(lower_bounds, "HEAD", 8)
    monkeypatch.setattr(lower_bounds, "GROUP", 4)
    monkeypatch.setattr(lower_bounds, "BOUND_MIN_ROWS", 8)
    monkeypatch.setattr(lower_bounds, "BOUND_MIN_DIM", 9)
    monkeypatch.setattr(lower_bounds, "BOUND_MIN_QUERIES", 16)
    monkeypatch.setattr(lower_bounds, "BOUND_FLOATS", 4096)
    monkeypatch.setattr(lower_bounds, "MAX_GROUP_SHARE", 1 / 8)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    kind=st.sampled_from(KINDS),
    count=st.integers(8, 300),
    dim=st.sampled_from([9, 16, 40, 200]),
    num_queries=st.integers(16, 80),
    k=st.integers(1, 4),
    seed=st.integers(0, 1000),
    itself=st.booleans(),
)
def test_the_bounds_lose_no_neighbour_whatever_the_data(
    small_bounds, kind, count, dim, num_queries, k, seed, itself
):
    generator = torch.Generator().manual_seed(seed)
    vectors = make_embeddings(kind, count + num_queries, dim, generator)
    embeddings = vectors[:count].contiguous()
    queries = vectors[:num_queries] if itself else vectors[count:]
    assert_nearest(queries.contiguous(), embeddings, k)


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("kind", ["nearly low rank", "duplicates", "far from the origin"])
def test_the_bounds_serve_prefixes_too(small_bounds, kind, k):
    vectors = make_embeddings(kind, 500, 60, torch.Generator().manual_seed(3))
    bank = assert_nearest(vectors[400:], vectors[:400], k, sizes=[5, 60, 61, 400])
    assert list(bank._bounds._parts) == [(5, 60), (61, 400)]  # the others are too small


@pytest.mark.parametrize("k", [1, 3])
def test_on_data_with_structure_the_bounds_settle_every_query(monkeypatch, k):
    """With the real constants: nothing is left to the plain search."""
    for module in (memory_bank, lower_bounds):
        monkeypatch.delattr(module, "faiss_nearest")
    vectors = make_embeddings("nearly low rank", 2000, 300, torch.Generator().manual_seed(1))
    assert_nearest(vectors[1500:], vectors[:1500], k)


def test_rows_that_only_fill_up_a_group_are_never_found(small_bounds):
    """They would lie in the bank's middle, nearer to these queries than any real row."""
    vectors = make_embeddings("nearly low rank", 81, 60, torch.Generator().manual_seed(1))
    embeddings = 10 * torch.nn.functional.normalize(vectors)
    bank = assert_nearest(embeddings.mean(0) + 0.01 * vectors[:20], embeddings, 1)
    assert bank._bounds._parts


def is_bounded(bank, queries, k=1):
    """Tell whether a search of the whole bank is one by bounds."""
    short = bank._bounds.shorten(queries)
    return bank._bounds.nearest(queries, short, 0, len(bank), k) is not None


def test_bounds_begin_at_these_sizes(small_bounds):
    """Two searches of one size must take the same way: it decides what rounding does."""

    def is_shortened(rows, dim, count):
        return LowerBounds(make_points(rows, dim)).shorten(make_points(count, dim)) is not None

    assert is_shortened(8, 9, 16)
    assert not any(is_shortened(*sizes) for sizes in ((7, 9, 16), (8, 8, 16), (8, 9, 15)))
    bounds = LowerBounds(make_points(16, 9))
    short = bounds.shorten(queries := make_points(16, 9))
    for stop, k, is_prepared in ((7, 1, False), (8, 1, True), (11, 3, False), (12, 3, True)):
        bounds.nearest(queries, short, 0, stop, k)
        assert ((0, stop) in bounds._parts) == is_prepared


def test_the_plan_of_the_memory_counts_what_the_bounds_keep():
    bounds = LowerBounds(make_points(1024, dim=256))
    queries = make_points(256, dim=256)
    bounds.nearest(queries, bounds.shorten(queries), 0, 1024, 1)
    (part,) = bounds._parts.values()
    assert part._factors.numel() == 1024 * lower_bounds.FLOATS_PER_ROW


def test_bounds_that_avoid_no_work_are_not_used():
    vectors = make_points(1800, dim=300)
    bank = assert_nearest(vectors[1500:], vectors[:1500], 1)
    assert not is_bounded(bank, vectors[1500:])


def test_earlier_searches_do_not_change_a_result():
    """The plain search cannot tell apart what lies close together far from the origin."""
    embeddings = make_points(750, dim=300, offset=30.0).repeat(2, 1)
    embeddings += 1e-3 * make_points(1500, dim=300, seed=1)
    queries = embeddings[:500] + 1e-3 * make_points(500, dim=300, seed=2)
    distances, indices = MemoryBank(embeddings).search(queries)
    assert not torch.equal(indices, faiss_nearest(queries, embeddings, 1))
    bank = MemoryBank(embeddings)
    noise = make_points(500, dim=300, seed=3, offset=30.0)
    bank.search(noise)
    assert not is_bounded(bank, noise)
    after = bank.search(queries)
    assert torch.equal(after[0], distances)
    assert torch.equal(after[1], indices)


def test_threads_that_search_a_new_bank_find_what_one_finds():
    """Each begins with the preparation of another range, at the same time as the others."""
    vectors = make_embeddings("nearly low rank", 9000, 300, torch.Generator().manual_seed(1))
    embeddings, queries = vectors[:8500], vectors[8500:]
    all_sizes = [[1024 * n + 256 * thread for n in range(1, 8)] for thread in range(4)]
    expected = [search_prefixes(MemoryBank(embeddings), queries, 1, s) for s in all_sizes]
    bank = MemoryBank(embeddings)
    begin = threading.Barrier(4, timeout=60)

    def search(sizes):
        begin.wait()
        return search_prefixes(bank, queries, 1, sizes)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(search, all_sizes))
    for thread, wanted in zip(found, expected, strict=True):
        for (distances, indices), (own_distances, own_indices) in zip(thread, wanted, strict=True):
            assert torch.equal(distances, own_distances)
            assert torch.equal(indices, own_indices)


def test_a_query_that_the_bounds_do_not_settle_is_searched_in_full(small_bounds):
    """Most queries lie near the bank, where bounds tell much; some so far off that none does."""
    generator = torch.Generator().manual_seed(2)
    vectors = make_embeddings("nearly low rank", 400, 60, generator)
    queries = vectors[300:].clone()
    queries[60:70] += 1e3 * torch.randn(10, 60, generator=generator)
    assert is_bounded(assert_nearest(queries, vectors[:300], 1), queries)


@pytest.mark.parametrize(
    ("count", "dim", "num_queries"), [(1023, 300, 300), (1024, 255, 300), (1024, 300, 255)]
)
def test_small_searches_are_plain(count, dim, num_queries):
    bank = assert_nearest(make_points(num_queries, dim, 1), make_points(count, dim, 2), 1)
    assert not bank._bounds._parts


def test_of_equally_far_rows_the_bounds_find_the_first(small_bounds):
    vectors = make_embeddings("nearly low rank", 100, 60, torch.Generator().manual_seed(4))
    embeddings = vectors[:80].repeat(3, 1)
    bank = MemoryBank(embeddings)
    assert bank.search(vectors[80:], 1)[1].max() < 80
    assert is_bounded(bank, vectors[80:])


def test_the_bounds_leave_the_global_random_state_alone(small_bounds):
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    MemoryBank(make_points(300)).search(make_points(50), 1)
    assert torch.equal(torch.rand(4), expected)


def test_a_query_that_is_not_finite_disturbs_no_other(small_bounds):
    vectors = make_embeddings("nearly low rank", 400, 60, torch.Generator().manual_seed(2))
    queries = vectors[300:].clone()
    queries[7, 3] = torch.nan
    distances, _ = MemoryBank(vectors[:300]).search(queries, 1)
    assert not torch.isfinite(distances[7])
    others = torch.arange(100) != 7
    expected = exact_distances(queries[others], vectors[:300]).amin(1)
    torch.testing.assert_close(distances[others, 0].double(), expected, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("k", [0, 6])
def test_refuses_more_neighbours_than_there_are_or_none(k):
    with pytest.raises(PatchCoreError, match=f"k from 1 to the coreset's size 5, found {k}"):
        MemoryBank(make_points(5)).search(make_points(3), k)
    with pytest.raises(PatchCoreError, match=f"k from 1 to the coreset's size 5, found {k}"):
        LimitedSearch(make_points(5), None, make_points(3), None, k).extend_to(5)


@pytest.mark.parametrize("shape", [(0, 4), (4,), (2, 3, 4)])
def test_refuses_what_is_no_bank(shape):
    with pytest.raises(PatchCoreError, match="coreset embeddings"):
        MemoryBank(torch.zeros(shape))


@pytest.mark.parametrize(
    ("has_part", "num_gpus", "expected"),
    [(True, 1, True), (True, 0, False), (False, 1, False), (False, 0, False)],
)
def test_faiss_searches_on_a_gpu_with_its_part_for_it_and_a_gpu(
    monkeypatch, has_part, num_gpus, expected
):
    part = {"StandardGpuResources": None} if has_part else {}
    installed = SimpleNamespace(get_num_gpus=lambda: num_gpus, **part)
    monkeypatch.setattr(memory_bank, "faiss", installed)
    assert memory_bank._faiss_has_gpu() is expected


def test_says_what_searches(monkeypatch):
    assert search_method(torch.device("cpu")) == "lower bounds and faiss on the CPU"
    for has_gpu, text in ((True, "faiss on the GPU"), (False, "torch on the GPU")):
        monkeypatch.setattr(memory_bank, "_faiss_has_gpu", lambda has_gpu=has_gpu: has_gpu)
        assert search_method(torch.device("cuda")).startswith(text)


def test_neighbours_found_in_the_wrong_order_are_put_right():
    """What a search cannot tell apart is decided by true distances, then by the order selected."""
    embeddings = torch.tensor([[3.0, 0], [1, 0], [-1, 0], [2, 0]])
    queries = torch.zeros(1, 2)
    found = torch.tensor([[0, 2, 3, 1]])
    distances, indices = memory_bank._in_order(queries, embeddings, found, 3)
    assert indices.tolist() == [[1, 2, 3]]
    assert distances.tolist() == [[1, 1, 2]]


def test_on_a_gpu_already_the_first_search_takes_tensors(monkeypatch):
    """`faiss.knn_gpu` knows tensors only when faiss's own memory, and so torch's part, is there."""

    def for_arrays(*_, **__):
        raise AttributeError("'Tensor' object has no attribute 'flags'")

    def take_memory():
        monkeypatch.setattr(faiss, "knn_gpu", lambda *_, **__: ("distances", "indices"))
        return "resources"

    monkeypatch.setattr(faiss, "knn_gpu", for_arrays, raising=False)
    monkeypatch.setattr(memory_bank, "_gpu_resources", take_memory)
    monkeypatch.setattr(memory_bank, "_faiss_has_gpu", lambda: True)
    monkeypatch.setattr(torch.cuda, "device", contextlib.nullcontext)
    queries = SimpleNamespace(is_cuda=True, device=torch.device("cuda", 0))

    assert memory_bank._search_in_full(queries, make_points(3), 1) == "indices"


def test_on_a_gpu_one_thread_searches_at_a_time(monkeypatch):
    """faiss's memory on a GPU is not safe for several threads."""
    inside, most = [], []

    def search(*_, **__):
        inside.append(None)
        most.append(len(inside))
        time.sleep(0.01)
        inside.pop()
        return "distances", "indices"

    monkeypatch.setattr(faiss, "knn_gpu", search, raising=False)
    monkeypatch.setattr(memory_bank, "_gpu_resources", lambda: "resources")
    monkeypatch.setattr(memory_bank, "_faiss_has_gpu", lambda: True)
    monkeypatch.setattr(torch.cuda, "device", contextlib.nullcontext)
    queries = SimpleNamespace(is_cuda=True, device=torch.device("cuda", 0))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: memory_bank._search_in_full(queries, make_points(3), 1), range(8)))
    assert most == [1] * 8


@pytest.mark.gpu
@pytest.mark.parametrize("faiss_on_gpu", [True, False])
@pytest.mark.parametrize("k", [1, 4])
def test_equal_patches_on_a_gpu_come_in_the_order_selected(monkeypatch, faiss_on_gpu, k):
    if not faiss_on_gpu:
        monkeypatch.setattr(memory_bank, "_faiss_has_gpu", lambda: False)
    embeddings = make_points(300, seed=2) + 100  # far from 0: squares lose the digits
    embeddings = torch.cat([embeddings, embeddings])
    distances, indices = MemoryBank(embeddings.cuda()).search(embeddings[:300].cuda(), k)
    assert (distances[:, 0] == 0).all()
    assert torch.equal(indices[:, 0].cpu(), torch.arange(300))
    assert (distances.diff(dim=1) >= 0).all()


@pytest.mark.gpu
@pytest.mark.parametrize("faiss_on_gpu", [True, False])
def test_finds_the_same_on_a_gpu(monkeypatch, faiss_on_gpu):
    if not faiss_on_gpu:
        monkeypatch.setattr(memory_bank, "_faiss_has_gpu", lambda: False)
    queries, embeddings = make_points(570, seed=1), make_points(400, seed=2)
    distances, indices = MemoryBank(embeddings.cuda()).search(queries.cuda(), 3)
    expected_distances, expected_indices = MemoryBank(embeddings).search(queries, 3)
    assert torch.equal(indices.cpu(), expected_indices)
    torch.testing.assert_close(distances.cpu(), expected_distances)


@pytest.mark.parametrize(
    ("radius", "k", "count"), [(2, 1, 0), (1, 1, 1), (2, 2, 0), (1, 2, 1), (-1, 2, 0)]
)
def test_positions_with_fewer_than_k_rows_within_the_radius_are_counted(radius, k, count):
    """Rows of a bank at columns 0 and 1 of a grid of one row: column 2 is 2 and 1 away."""
    places = Places.of_patches(np.array([0, 1]), (1, 3), torch.device("cpu"))
    if k == 1:
        places = places[:1]
    area = SearchArea(places, radius, 0)
    assert area.num_widened((1, 3), k) == count
