"""Scores of images that the bank has not seen, and the thresholds that follow from them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from patchcore import PatchCore
from patchcore.backbone import Backbone
from patchcore.coreset import greedy_coreset
from patchcore.embedded_origins import Origins
from patchcore.held_out import (
    NUM_FOLDS,
    PIXEL_RATES,
    HeldOutScores,
    held_out_scores,
    scores_without_own_patches,
)
from patchcore.memory_bank import Coreset, MemoryBank
from tests.support import one_thread

GRID = 4  # positions of the small network's map along each axis
PATCHES = GRID * GRID


@pytest.fixture(autouse=True)
def quick():
    with one_thread():
        yield


def make_model(**arguments) -> PatchCore:
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 12, 8, stride=8))
    size = (8 * GRID, 8 * GRID)
    return PatchCore(
        Backbone(network, ["0"], size),
        size_resize=size,
        size_crop=size,
        embed_dim=48,
        **arguments,
    )


def make_embeddings(count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count * PATCHES, 48, generator=generator)


def as_they_are(count: int) -> Origins:
    return Origins(np.arange(count), np.zeros(count, dtype=np.int64))


def nearest_by_hand(queries: torch.Tensor, bank: torch.Tensor, k: int) -> np.ndarray:
    """Return (Q,) mean distances to the k nearest rows, by all differences."""
    distances = (queries.double()[:, None] - bank.double()[None]).norm(dim=2)
    return distances.sort(dim=1).values[:, :k].mean(1).numpy()


class TestCrossValidation:
    @pytest.mark.parametrize("k", [1, 3])
    def test_each_image_is_scored_by_a_coreset_of_the_other_folds(self, k):
        count, percentages = 11, (0.1, 0.4)
        model = make_model(percentage_coreset=percentages, k=k)
        embeddings = make_embeddings(count)
        found = held_out_scores(model, embeddings, as_they_are(count), 3)

        order = np.random.RandomState(3).permutation(count)
        expected = {percentage: [] for percentage in percentages}
        images = embeddings.view(count, PATCHES, -1)
        for fold in range(NUM_FOLDS):
            held_out = [image for place, image in enumerate(order) if place % NUM_FOLDS == fold]
            rest = images[[i for i in range(count) if i not in held_out]].flatten(0, 1)
            for percentage, scores in expected.items():
                bank = rest[greedy_coreset(rest, int(len(rest) * percentage), seed=3)]
                scores.extend(nearest_by_hand(images[i], bank, k).max() for i in held_out)
        for scores, result in zip(expected.values(), found, strict=True):
            np.testing.assert_allclose(result.image_scores, np.sort(scores), rtol=1e-4)

    def test_flips_of_a_held_out_image_are_held_out_with_it(self):
        model = make_model(percentage_coreset=1.0, flip=["horizontal"])
        one = make_embeddings(5).view(5, PATCHES, -1)
        # Each image's flip is its twin: in the bank it would make the image's distance 0.
        embeddings = torch.stack([one, one], dim=1).flatten(0, 2)
        origins = Origins(np.repeat(np.arange(5), 2), np.tile([0, 1], 5))
        (found,) = held_out_scores(model, embeddings, origins, 0)
        assert len(found.image_scores) == 5
        assert found.image_scores.min() > 1

    def test_stops_when_enough_images_are_scored(self, monkeypatch):
        monkeypatch.setattr("patchcore.held_out.ENOUGH_IMAGES", 5)
        model = make_model(percentage_coreset=0.1)
        count = 4 * NUM_FOLDS
        (found,) = held_out_scores(model, make_embeddings(count), as_they_are(count), 0)
        assert len(found.image_scores) == 8  # two folds of four

    def test_of_a_large_fold_enough_images_are_scored(self, monkeypatch):
        monkeypatch.setattr("patchcore.held_out.ENOUGH_IMAGES", 5)
        model = make_model(percentage_coreset=0.1)
        count = 8 * NUM_FOLDS
        (found,) = held_out_scores(model, make_embeddings(count), as_they_are(count), 0)
        assert len(found.image_scores) == 5  # one fold of eight

    @pytest.mark.parametrize(("count", "k"), [(1, 1), (2, 9)])
    def test_too_few_images_have_no_scores(self, count, k):
        model = make_model(percentage_coreset=0.5, k=k)
        found = held_out_scores(model, make_embeddings(count), as_they_are(count), 0)
        assert found == [None]

    def test_pixels_are_the_maps(self):
        model = make_model(percentage_coreset=1.0, sigma=0.0)
        (found,) = held_out_scores(model, make_embeddings(10), as_they_are(10), 0)
        # Bilinear resizing neither adds to the largest patch score nor takes from the smallest.
        assert found.pixel_scores[0] <= found.image_scores[-1] * (1 + 1e-6)
        assert np.all(np.diff(found.pixel_scores) <= 0)


def test_without_own_patches_the_rest_of_the_coreset_scores():
    count = 10
    model = make_model(percentage_coreset=(0.2, 0.5))
    embeddings = make_embeddings(count)
    indices = greedy_coreset(embeddings, 80)
    coreset = Coreset(indices.numpy(), (32, 80), MemoryBank(embeddings[indices]), 0)
    found = scores_without_own_patches(
        model, coreset, as_they_are(count), model.embedded(embeddings)
    )
    fold = np.empty(count, dtype=int)
    fold[np.random.RandomState(0).permutation(count)] = np.arange(count) % NUM_FOLDS
    for size, result in zip(coreset.sizes, found, strict=True):
        expected = []
        for image in range(count):
            others = [i for i in indices[:size].tolist() if fold[i // PATCHES] != fold[image]]
            queries = embeddings[image * PATCHES : (image + 1) * PATCHES]
            expected.append(nearest_by_hand(queries, embeddings[others], 1).max())
        np.testing.assert_allclose(result.image_scores, np.sort(expected), rtol=1e-4)


class TestThresholds:
    def test_by_hand(self):
        scores = HeldOutScores(np.arange(1, 100, dtype=np.float32), np.zeros(102, np.float32))
        value, rate = scores.image_threshold(0.01)  # of 100 alike, one is the largest
        assert (np.float32(99) < value < 99.001, rate) == (True, 0.01)
        value, rate = scores.image_threshold(0.05)  # above the fifth largest
        assert (np.float32(95) < value < 95.001, rate) == (True, 0.05)

    def test_few_images_keep_no_small_rate(self):
        scores = HeldOutScores(np.float32([1, 2, 3, 4]), np.zeros(102, np.float32))
        assert scores.image_threshold(0.01) == (np.nextafter(np.float32(4), np.float32(9)), 0.2)

    @settings(max_examples=50, deadline=None)
    @given(
        values=st.lists(st.integers(0, 12), min_size=2, max_size=12),
        rate=st.floats(0.01, 1),
    )
    def test_a_new_image_of_the_same_kind_is_above_it_at_most_that_often(self, values, rate):
        """The law of split conformal prediction, by all choices of which image is the new one."""
        above, kept = 0, 0.0
        for new in range(len(values)):
            rest = np.sort(np.float32([v for i, v in enumerate(values) if i != new]))
            value, kept = HeldOutScores(rest, np.zeros(102, np.float32)).image_threshold(rate)
            above += values[new] >= value
        assert kept <= max(rate * (1 + 1e-6), 1 / len(values))
        assert above / len(values) <= kept + 1e-9

    def test_pixels_by_hand(self):
        scores = HeldOutScores(np.float32([1]), np.float32(10 * (1 - PIXEL_RATES)))
        for rate in (1e-5, 0.001, 0.0123, 1.0):
            assert scores.pixel_threshold(rate) == pytest.approx(10 * (1 - rate), abs=1e-3)

    def test_the_share_of_pixels_above_is_the_rate(self):
        model = make_model(percentage_coreset=0.5)
        count, size = NUM_FOLDS, (NUM_FOLDS - 1) * PATCHES // 2  # folds of one image each
        embeddings = make_embeddings(count)
        (found,) = held_out_scores(model, embeddings, as_they_are(count), 0)
        maps = []
        images = embeddings.view(count, PATCHES, -1)
        for image in range(count):
            rest = images[[i for i in range(count) if i != image]].flatten(0, 1)
            bank = MemoryBank(rest[greedy_coreset(rest, size)])
            coreset = Coreset(np.arange(size), (size,), bank, 0)
            one = images[image].view(1, GRID, GRID, -1)
            (neighbours,) = model.nearest(one, coreset)
            maps.append(model.score(one, neighbours, coreset).anomaly_map)
        values = np.concatenate(maps)
        for rate in PIXEL_RATES[1:]:
            share = (values >= found.pixel_threshold(rate)).mean()
            assert share == pytest.approx(rate, abs=2 / values.size)
