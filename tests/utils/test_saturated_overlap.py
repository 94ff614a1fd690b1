"""The saturated per-region overlap, against a loop over thresholds, and against AUPRO."""

import math
from itertools import pairwise

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.metrics import measure_pixels
from utils.saturated_overlap import SaturatedRegion, au_spro


def slow_au_spro(maps, masks, regions, limit):
    """Follow the definition at every threshold, then interpolate at the limit."""
    points = [(0.0, 0.0)]
    for threshold in np.unique(maps)[::-1]:
        found = maps >= threshold
        overlaps = [
            min((found[r.image] & r.mask).sum() / (r.share * r.mask.sum()), 1) for r in regions
        ]
        points.append(((found & ~masks).sum() / (~masks).sum(), np.mean(overlaps)))
    area = 0.0
    for (x0, y0), (x1, y1) in pairwise(points):
        stop = min(x1, limit)
        if x0 < stop:
            at_stop = y0 + (stop - x0) / (x1 - x0) * (y1 - y0)
            area += (stop - x0) * (y0 + at_stop) / 2
    return area / limit


def make(seed, levels):
    """Return maps of few values, so that many are equal, with overlapping regions."""
    rng = np.random.default_rng(seed)
    maps = rng.integers(0, levels, (3, 9, 8)).astype(np.float32)
    regions = []
    for _ in range(rng.integers(1, 5)):
        mask = np.zeros((9, 8), bool)
        row, column = rng.integers(0, 6, 2)
        mask[row : row + rng.integers(1, 4), column : column + rng.integers(1, 4)] = True
        regions.append(SaturatedRegion(int(rng.integers(0, 3)), mask, float(rng.uniform(0.05, 1))))
    masks = np.zeros(maps.shape, bool)
    for region in regions:
        masks[region.image] |= region.mask
    return maps, masks, regions


@given(st.integers(0, 2**32), st.sampled_from([2, 5, 1000]), st.sampled_from([0.05, 0.3, 1.0]))
def test_it_follows_the_definition(seed, levels, limit):
    maps, masks, regions = make(seed, levels)
    expected = slow_au_spro(maps, masks, regions, limit)
    assert au_spro(maps, masks, regions, limit) == pytest.approx(expected, abs=1e-9)


@given(st.integers(0, 2**32), st.sampled_from([0.05, 0.3, 1.0]))
def test_without_saturation_it_is_aupro(seed, limit):
    maps, masks, _ = make(seed, 50)
    regions = []
    for image, mask in enumerate(masks):
        count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
        regions += [SaturatedRegion(image, labels == number, 1.0) for number in range(1, count)]
    assert au_spro(maps, masks, regions, limit) == pytest.approx(
        measure_pixels(maps, masks, limit).aupro
    )


def test_equal_infinite_scores_share_a_threshold():
    maps, masks, regions = make(0, 3)
    infinite = np.where(maps == 2, np.inf, np.where(maps == 0, -np.inf, maps))
    for limit in (0.05, 1.0):
        assert au_spro(infinite, masks, regions, limit) == au_spro(maps, masks, regions, limit)


def test_half_of_a_region_suffices_where_half_is_needed():
    maps = np.zeros((1, 2, 4), np.float32)
    maps[0, 0] = [3, 3, 0, 0]
    masks = np.zeros((1, 2, 4), bool)
    masks[0, 0] = True
    region = masks[0]
    assert au_spro(maps, masks, [SaturatedRegion(0, region, 0.5)], 0.5) == 1
    # Half of the region is found before, the rest with all normal pixels: from 0.5 to 1.
    assert au_spro(maps, masks, [SaturatedRegion(0, region, 1.0)], 1.0) == pytest.approx(0.75)


def test_nothing_to_measure():
    maps, masks = np.zeros((1, 2, 2), np.float32), np.zeros((1, 2, 2), bool)
    assert math.isnan(au_spro(maps, masks, [], 0.05))
    assert math.isnan(au_spro(maps, masks, [SaturatedRegion(0, masks[0], 1.0)], 0.05))
    assert math.isnan(au_spro(maps, ~masks, [SaturatedRegion(0, ~masks[0], 1.0)], 0.05))
