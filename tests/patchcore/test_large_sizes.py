"""Selection and search of more rows than are computed at a time, against brute force."""

import numpy as np
import pytest
import torch

from patchcore.coreset import greedy_coreset
from patchcore.memory_bank import MemoryBank
from tests.support import one_thread

BLOCK = 2048  # rows at a time on a CPU


@pytest.fixture(autouse=True)
def quick():
    with one_thread():
        yield


def make_points(count: int, dim: int, seed: int = 0) -> torch.Tensor:
    """Return (count, dim) float32 that mostly lie along a few directions, as embeddings do."""
    generator = torch.Generator().manual_seed(seed)
    few = torch.randn(8, dim, generator=torch.Generator().manual_seed(99))
    noise = torch.randn(count, dim, generator=generator)
    return noise[:, :8] @ few + 0.05 * noise


def strided(points: torch.Tensor) -> torch.Tensor:
    """Return the same values as every second column of a larger tensor."""
    wide = torch.zeros(len(points), 2 * points.shape[1])
    wide[:, ::2] = points
    return wide[:, ::2]


LAYOUTS = pytest.mark.parametrize(
    "layout",
    [
        pytest.param(lambda points: points.T.contiguous().T, id="transposed"),
        pytest.param(strided, id="every second column"),
        pytest.param(lambda points: points.flip(0).contiguous().flip(0), id="flipped"),
    ],
)


def check_selection(embeddings: torch.Tensor, selected: torch.Tensor, seed: int) -> None:
    """Check that each patch was the farthest when it was selected, but for rounding."""
    torch.manual_seed(seed)
    linear = torch.nn.Linear(embeddings.shape[1], 128, bias=False)
    points = embeddings.double() @ linear.weight.detach().double().T
    starting = np.random.RandomState(seed).choice(len(points), 10, replace=False)
    distances = torch.cdist(points, points[starting]).mean(1)
    assert len(set(selected.tolist())) == len(selected)
    for index in selected.tolist():
        assert distances[index] >= distances.max() * (1 - 1e-5)
        distances = torch.minimum(distances, (points - points[index]).norm(dim=1))


class TestSelection:
    @pytest.mark.parametrize("count", [BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 1, 5000])
    def test_each_patch_was_the_farthest(self, count):
        embeddings = make_points(count, 160, seed=count)
        check_selection(embeddings, greedy_coreset(embeddings, 200, seed=3), seed=3)

    def test_more_patches_than_a_block_or_a_group(self):
        embeddings = make_points(3000, 160)
        check_selection(embeddings, greedy_coreset(embeddings, 2900), seed=0)

    def test_an_outlier_in_any_block_comes_first(self):
        embeddings = make_points(3 * BLOCK, 160)
        outliers = [0, BLOCK - 1, BLOCK, 2 * BLOCK - 1, 2 * BLOCK, 3 * BLOCK - 1]
        embeddings[outliers] = 100.0 * torch.eye(6, 160)
        assert sorted(greedy_coreset(embeddings, 6, seed=1).tolist()) == outliers

    @LAYOUTS
    def test_the_memory_layout_changes_nothing(self, layout):
        embeddings = make_points(BLOCK + 100, 160)
        expected = greedy_coreset(embeddings, 100, seed=2)
        assert greedy_coreset(layout(embeddings), 100, seed=2).tolist() == expected.tolist()


def check_search(bank: MemoryBank, queries: torch.Tensor, embeddings: torch.Tensor, k: int) -> None:
    """Compare a search with all distances, computed in float64."""
    distances, indices = bank.search(queries, k)
    expected = torch.cdist(queries.double(), embeddings.double())
    nearest = expected.topk(k, dim=1, largest=False, sorted=True)
    np.testing.assert_allclose(distances, nearest.values, rtol=1e-5)
    np.testing.assert_array_equal(indices, nearest.indices)


class TestSearch:
    @pytest.mark.parametrize("k", [1, 3])
    @pytest.mark.parametrize("count", [BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 2 * BLOCK + 33])
    def test_finds_the_nearest(self, count, k):
        embeddings, queries = make_points(count, 256, seed=1), make_points(300, 256, seed=2)
        check_search(MemoryBank(embeddings), queries, embeddings, k)

    def test_more_queries_than_a_block(self):
        """A second search of the same bank uses what the first one prepared."""
        embeddings, queries = make_points(5000, 256, seed=1), make_points(4000, 256, seed=2)
        bank = MemoryBank(embeddings)
        check_search(bank, queries, embeddings, 1)
        check_search(bank, queries[:700], embeddings, 2)

    @pytest.mark.parametrize("k", [1, 3])
    def test_prefixes_are_banks_of_their_own(self, k):
        embeddings, queries = make_points(6000, 256, seed=1), make_points(300, 256, seed=2)
        sizes = [30, BLOCK + 1, BLOCK + 1, 6000]
        search = MemoryBank(embeddings).begin(queries, k)
        found = [search.extend_to(size) for size in sizes]
        for size, (distances, indices) in zip(sizes, found, strict=True):
            expected = torch.cdist(queries.double(), embeddings[:size].double())
            nearest = expected.topk(k, dim=1, largest=False, sorted=True)
            np.testing.assert_array_equal(indices, nearest.indices)
            np.testing.assert_allclose(distances, nearest.values, rtol=1e-5)

    @LAYOUTS
    @pytest.mark.parametrize("count", [50, 1500])
    def test_the_memory_layout_changes_nothing(self, layout, count):
        """Searched plainly (50 rows) and by bounds (1,500 rows)."""
        embeddings, queries = make_points(count, 256, seed=1), make_points(300, 256, seed=2)
        check_search(MemoryBank(embeddings), layout(queries), embeddings, 2)
        check_search(MemoryBank(layout(embeddings)), queries, embeddings, 2)

    def test_queries_that_are_every_second_row(self):
        embeddings, queries = make_points(1500, 256, seed=1), make_points(600, 256, seed=2)
        check_search(MemoryBank(embeddings), queries[::2], embeddings, 1)
