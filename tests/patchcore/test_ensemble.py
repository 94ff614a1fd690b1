from dataclasses import replace

import numpy as np
import pytest
import torch

from patchcore import PatchCoreError, Prediction
from patchcore.ensemble import NUM_SAMPLES, NormalScores, combine, draw_sample, normal_scores
from patchcore.memory_bank import Coreset, MemoryBank
from patchcore.nearby import Places, SearchArea
from patchcore.origins import EmbeddingOrder, Origins
from patchcore.scoring import Scorer
from patchcore.settings import Settings


def make_coreset(embeddings, sizes, seed=0):
    order = np.random.RandomState(seed).permutation(len(embeddings))[: sizes[-1]]
    bank = MemoryBank(embeddings[torch.from_numpy(order)])
    # One patch an image.
    origins = Origins.locate(order, (1, 1), EmbeddingOrder.of(len(embeddings), 1, 8), (), ("",))
    return Coreset(order, tuple(sizes), bank, seed, origins)


def make_scorer(k, **options):
    return Scorer(Settings(k=k, **options), (1, 1), torch.device("cpu"))


def make_prediction(score):
    score = np.array(score, dtype=np.float32)
    empty = np.zeros((len(score), 1, 1, 1))
    maps = np.broadcast_to(score[:, None, None], (len(score), 2, 2))
    return Prediction(score, maps, empty, empty)


@pytest.mark.parametrize("k", [1, 3])
def test_normal_scores_are_those_of_training_patches_without_themselves(k):
    embeddings = torch.randn(200, 8, generator=torch.Generator().manual_seed(0))
    coreset = make_coreset(embeddings, [20, 200])
    sample = draw_sample(200, seed=0)
    found = normal_scores(embeddings[torch.from_numpy(sample)], sample, coreset, make_scorer(k))
    for size, result in zip(coreset.sizes, found, strict=True):
        members = coreset.indices[:size]
        scores = []
        for patch in range(200):
            others = members[members != patch]
            distances = (embeddings[others] - embeddings[patch]).norm(dim=1)
            scores.append(float(distances.sort().values[:k].mean()))
        assert result.mean == pytest.approx(np.mean(scores), rel=1e-5)
        assert result.std == pytest.approx(np.std(scores), rel=1e-5)


def test_normal_scores_are_those_of_the_search_area():
    grid, radius = (4, 5), 1
    embeddings = torch.randn(200, 8, generator=torch.Generator().manual_seed(0))
    coreset = make_coreset(embeddings, [120])
    places = Places.of_patches(coreset.indices, grid, torch.device("cpu"))
    bank = MemoryBank(coreset.bank.embeddings, SearchArea(places, radius, 0))
    scorer = Scorer(Settings(search_radius=radius), grid, torch.device("cpu"))
    (found,) = normal_scores(embeddings, np.arange(200), replace(coreset, bank=bank), scorer)
    scores = []
    for patch in range(200):
        row, column = divmod(patch % 20, 5)
        rows, columns = np.divmod(coreset.indices % 20, 5)
        is_near = (abs(rows - row) <= radius) & (abs(columns - column) <= radius)
        others = coreset.indices[is_near & (coreset.indices != patch)]
        scores.append(float((embeddings[others] - embeddings[patch]).norm(dim=1).min()))
    assert found.mean == pytest.approx(np.mean(scores), rel=1e-5)
    assert found.std == pytest.approx(np.std(scores), rel=1e-5)


@pytest.mark.parametrize("k", [1, 3])
def test_a_coreset_of_k_patches_changes_nothing_for_larger_ones(k):
    embeddings = torch.randn(200, 8, generator=torch.Generator().manual_seed(0))
    numbers, scorer = np.arange(200), make_scorer(k)
    several = normal_scores(embeddings, numbers, make_coreset(embeddings, [k, 50, 100]), scorer)
    alone = normal_scores(embeddings, numbers, make_coreset(embeddings, [50, 100]), scorer)
    assert several[1:] == alone


def test_a_sample_is_of_all_patches_without_repetition_and_seeded():
    assert sorted(draw_sample(7, seed=1)) == list(range(7))
    first, again, other = (draw_sample(3 * NUM_SAMPLES, seed) for seed in (0, 0, 1))
    assert len(np.unique(first)) == len(first) == NUM_SAMPLES
    assert 2 * NUM_SAMPLES < first.max() < 3 * NUM_SAMPLES
    assert (first == again).all()
    assert (first != other).any()


def test_normal_scores_of_equal_patches_can_still_divide():
    embeddings = torch.ones(50, 8)
    coreset = make_coreset(embeddings, [10])
    (result,) = normal_scores(embeddings, np.arange(50), coreset, make_scorer(1))
    assert result.mean == 0
    assert result.std > 0


def test_a_single_patch_has_no_normal_scores():
    coreset = make_coreset(torch.ones(1, 8), [1])
    with pytest.raises(PatchCoreError, match="more than one training patch to normalise scores by"):
        normal_scores(torch.ones(1, 8), np.arange(1), coreset, make_scorer(1))


def test_members_count_equally_whatever_their_units():
    small, large = make_prediction([1.0, 2.0, 3.0]), make_prediction([3000.0, 1000.0, 2000.0])
    result = combine([small, large], [NormalScores(1.0, 0.5), NormalScores(1000.0, 500.0)])
    np.testing.assert_allclose(result.score, [2.0, 1.0, 3.0])
    np.testing.assert_allclose(result.anomaly_map[:, 0, 0], result.score)


def test_one_member_keeps_its_order():
    result = combine([make_prediction([1.0, 5.0, 3.0])], [NormalScores(2.0, 0.1)])
    assert result.score.argsort().tolist() == [0, 2, 1]
