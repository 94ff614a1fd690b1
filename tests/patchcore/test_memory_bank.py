import numpy as np
import pytest
import torch

from patchcore import PatchCoreError, memory_bank
from patchcore.memory_bank import MemoryBank, search_method, torch_nearest


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


@pytest.mark.parametrize("k", [1, 3, 5])
def test_a_prefix_is_searched_as_a_bank_of_its_own(k):
    queries, embeddings = make_points(57, seed=1), make_points(200, seed=2)
    sizes = [5, 20, 21, 200]
    found = list(MemoryBank(embeddings).search_prefixes(queries, k, sizes))
    for size, (distances, indices) in zip(sizes, found, strict=True):
        alone = MemoryBank(embeddings[:size]).search(queries, k)
        assert torch.equal(distances, alone[0])
        assert torch.equal(indices, alone[1])


def test_of_equally_far_neighbours_a_prefix_keeps_the_first_selected():
    embeddings = make_points(10).repeat(3, 1)
    found = list(MemoryBank(embeddings).search_prefixes(make_points(20, seed=5), 1, [10, 20, 30]))
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


@pytest.mark.parametrize("k", [0, 6])
def test_refuses_more_neighbours_than_there_are_or_none(k):
    with pytest.raises(PatchCoreError, match=f"k from 1 to the coreset's size 5, found {k}"):
        MemoryBank(make_points(5)).search(make_points(3), k)


@pytest.mark.parametrize("shape", [(0, 4), (4,), (2, 3, 4)])
def test_refuses_what_is_no_bank(shape):
    with pytest.raises(PatchCoreError, match="coreset embeddings"):
        MemoryBank(torch.zeros(shape))


def test_says_what_searches(monkeypatch):
    assert search_method(torch.device("cpu")) == "faiss on the CPU"
    for has_gpu, text in ((True, "faiss on the GPU"), (False, "torch on the GPU")):
        monkeypatch.setattr(memory_bank, "_faiss_has_gpu", lambda has_gpu=has_gpu: has_gpu)
        assert search_method(torch.device("cuda")).startswith(text)


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
