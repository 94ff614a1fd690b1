"""Pictures look as they did when somebody last looked at them, see golden.py."""

import json

import cv2
import numpy as np
import pytest

from tests.utils.golden import FOLDER, PICTURES, RELEASES, reduce, releases

# In values of 0 to 255: a letter's smoothing stays far below, a moved line or colour does not.
MEAN_DIFFERENCE = 0.6
# How many pixels may differ visibly.
VISIBLE, VISIBLE_SHARE = 24, 0.0008
# With the releases that drew them, only the rounding of another processor remains.
ROUNDING, ROUNDED_SHARE = 2, 0.001


def differences(picture: np.ndarray, golden: np.ndarray) -> tuple[float, float]:
    """Return the mean difference and the share of pixels that differ visibly."""
    difference = np.abs(picture.astype(int) - golden).max(axis=2)
    return difference.mean(), (difference > VISIBLE).mean()


@pytest.mark.parametrize("name", PICTURES)
def test_it_looks_as_it_did(name):
    golden = cv2.imread(str(FOLDER / f"{name}.png"), cv2.IMREAD_COLOR_RGB)
    picture = reduce(PICTURES[name]())
    assert picture.shape == golden.shape
    mean, share = differences(picture, golden)
    assert mean < MEAN_DIFFERENCE
    assert share < VISIBLE_SHARE
    if releases() == json.loads(RELEASES.read_text()):
        difference = np.abs(picture.astype(int) - golden).max(axis=2)
        assert difference.max() <= ROUNDING
        assert (difference > 0).mean() < ROUNDED_SHARE


def test_small_changes_are_seen():
    picture = reduce(PICTURES["localization"]())
    moved = np.roll(picture, 2, axis=1)
    without_title = picture.copy()
    without_title[:28, :40] = 255
    recoloured = picture.copy()
    recoloured[30:150, 270:390, 0] //= 2
    for changed in (moved, without_title, recoloured):
        mean, share = differences(changed, picture)
        assert mean > MEAN_DIFFERENCE or share > VISIBLE_SHARE
