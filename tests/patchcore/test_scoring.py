import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter

from patchcore import PatchCoreError, anomaly_map, settings
from patchcore.anomaly_map import AnomalyMap
from patchcore.ignored import IgnoreMask
from patchcore.metric import Metric
from patchcore.scoring import (
    IMAGE_SCORES,
    ScoredPatches,
    Scorer,
    max_map,
    max_patch,
    patch_scores,
    top_share,
    top_share_map,
)
from patchcore.settings import Settings


@pytest.mark.parametrize("sigma", [0.0, 1.5, 4.0])
@pytest.mark.parametrize(
    ("grid", "size"),
    [((28, 28), (224, 224)), ((7, 5), (60, 41)), ((1, 3), (8, 8)), ((9, 9), (4, 6))],
)
def test_anomaly_map_equals_resizing_and_filtering(grid, size, sigma):
    scores = torch.rand(3, *grid, generator=torch.Generator().manual_seed(0))
    maps = AnomalyMap(grid, size, sigma)(scores)
    resized = F.interpolate(scores[:, None].double(), size, mode="bilinear", align_corners=False)
    for found, one in zip(maps, resized[:, 0].numpy(), strict=True):
        expected = gaussian_filter(one, sigma) if sigma else one
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("sigma", [1e-310, 1e-160, 0.124])
def test_a_gaussian_narrower_than_a_pixel_smooths_nothing(sigma):
    scores = torch.rand(1, 5, 4)
    assert torch.equal(
        AnomalyMap((5, 4), (50, 40), sigma)(scores), AnomalyMap((5, 4), (50, 40), 0)(scores)
    )


def test_anomaly_map_keeps_a_constant_and_never_leaves_the_scores_range():
    constant = AnomalyMap((5, 4), (50, 40))(torch.full((1, 5, 4), 3.0))
    torch.testing.assert_close(constant, torch.full((1, 50, 40), 3.0))
    scores = torch.rand(8, 5, 4)
    maps = AnomalyMap((5, 4), (50, 40))(scores)
    assert (maps.amax((1, 2)) <= scores.amax((1, 2)) + 1e-6).all()
    assert (maps.amin((1, 2)) >= scores.amin((1, 2)) - 1e-6).all()


def test_a_patch_is_scored_by_its_mean_distance():
    assert torch.equal(patch_scores(torch.tensor([[1.0, 2.0, 6.0]])), torch.tensor([3.0]))


def scored(scores: torch.Tensor, maps: torch.Tensor) -> ScoredPatches:
    nothing = torch.empty(0)
    metric, top_counts = Metric(), (2, 4)
    return ScoredPatches(
        scores, maps, nothing, nothing, nothing, lambda rows: rows, metric, top_counts
    )


def test_an_image_is_scored_by_its_most_anomalous_patches_or_pixels():
    scores = torch.tensor([[[1.0, 5.0], [2.0, 3.0]], [[0.0, 0.0], [0.0, 0.5]]])
    patches = scored(scores, scores / 2)
    assert torch.equal(max_patch(patches), torch.tensor([5.0, 0.5]))
    assert torch.equal(max_map(patches), torch.tensor([2.5, 0.25]))
    assert torch.equal(top_share(patches), torch.tensor([4.0, 0.25]))
    assert torch.equal(top_share_map(patches), torch.tensor([1.375, 0.0625]))


def test_a_share_counts_judged_patches_and_pixels():
    assert AnomalyMap((5, 4), (50, 40)).top_counts(0.1) == (2, 200)
    assert AnomalyMap((5, 4), (50, 40)).top_counts(1e-9) == (1, 1)
    mask = np.zeros((50, 40), bool)
    mask[:20] = True  # with a sharp map, no other pixel depends on the first two rows alone
    judged = AnomalyMap((5, 4), (50, 40), 0.0, IgnoreMask(mask, mask.shape))
    assert judged.top_counts(0.25) == (3, 300)


def test_images_are_compared_by_the_mean_of_their_judged_patches():
    points = torch.tensor([[[1.0, 2.0], [3.0, 6.0], [-50.0, 70.0]]])
    judged = torch.tensor([[True, True, False]])
    scorer = Scorer(Settings(), (1, 3), torch.device("cpu"))
    found = scorer.image_features(points, judged)
    torch.testing.assert_close(found, torch.tensor([[2.0, 4.0]]))
    torch.testing.assert_close(scorer.image_features(points[:, :2]), found)


@pytest.mark.parametrize(("count", "expected"), [(0, False), (1, True), (5, True)])
def test_images_are_only_compared_if_the_setting_says_so(count, expected):
    scorer = Scorer(Settings(retrieve_images=count), (1, 3), torch.device("cpu"))
    assert scorer.retrieves_images is expected


def test_every_choice_of_the_setting_has_its_score():
    assert tuple(IMAGE_SCORES) == settings.IMAGE_SCORES


def test_a_mask_that_leaves_no_pixel_is_refused(monkeypatch):
    """One patch of 12 is judged; in a grid of a million, no pixel depends on it enough."""
    monkeypatch.setattr(anomaly_map, "MIN_WEIGHT", 0.5)
    mask = np.ones((40, 30), bool)
    mask[:10, :10] = False
    with pytest.raises(PatchCoreError, match=r"a pixel to judge, found none .*\(ignore_mask\)"):
        AnomalyMap((4, 3), (40, 30), 100.0, IgnoreMask(mask, mask.shape))
