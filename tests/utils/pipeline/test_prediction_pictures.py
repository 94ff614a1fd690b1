"""The colour scale of the pictures of `infer`, and the pixels that they show as ignored."""

from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from datasets.items import Item
from patchcore import Prediction
from patchcore.held_out import PIXEL_RATES, HeldOutScores
from patchcore.ignored import Ignored
from patchcore.preprocess import Preprocess
from patchcore.thresholds import Threshold, Thresholds
from utils import plots
from utils.options.infer import InferOptions
from utils.pipeline.prediction_pictures import PredictionPictures
from utils.result_folder import ResultFolder

CROP = np.zeros((6, 8, 3), np.uint8)
PREDICTION = Prediction(np.ones(1), np.ones((1, 6, 8), np.float32), distance=None, nearest=None)


@pytest.fixture
def thumbnail(tmp_path, monkeypatch):
    """Draw a thumbnail; return its colour scale and ignored pixels."""

    def thumbnail(score_max=0.0, held_out=None, ignored=None, threshold=1.5):
        model = SimpleNamespace(
            scorer=SimpleNamespace(ignored=ignored),
            trained=SimpleNamespace(held_out=held_out),
        )
        thresholds = Thresholds(Threshold(9.0, "given"), Threshold(threshold, "given"))
        options = InferOptions(score_max=score_max)
        pictures = PredictionPictures(model, thresholds, options, ResultFolder(tmp_path))
        found = []

        def note(crop, anomaly_map, rebuilt, score_range, hidden):
            found.extend((score_range, hidden))
            return crop

        monkeypatch.setattr(plots, "draw_thumbnail", note)
        pictures.thumbnail(CROP, PREDICTION)
        return tuple(found)

    return thumbnail


@pytest.mark.parametrize(
    ("score_max", "threshold", "lowest", "expected"),
    [
        (0.0, 1.5, None, (0.0, 3.0)),  # up to twice the pixel threshold
        (7.0, 1.5, None, (0.0, 7.0)),
        (0.0, 1.5, 0.5, (0.5, 3.0)),  # from the score that all pixels of normal images reach
        (7.0, 1.5, 0.5, (0.5, 7.0)),
        (0.25, 1.5, 0.5, (0.25, 0.25)),
        (0.0, -1.5, None, (-3.0, -3.0)),
    ],
)
def test_the_colours_end_at_twice_the_pixel_threshold_or_where_it_is_asked(
    thumbnail, score_max, threshold, lowest, expected
):
    held_out = None
    if lowest is not None:
        values = np.float32(1 + lowest - PIXEL_RATES)
        held_out = HeldOutScores(np.ones(3, np.float32), values, np.arange(3))
    assert thumbnail(score_max, held_out, threshold=threshold)[0] == expected


def test_ignored_pixels_are_shown(thumbnail):
    pixels = np.eye(6, 8, dtype=bool)
    assert thumbnail(ignored=Ignored(pixels, None))[1] is pixels
    assert thumbnail()[1] is None


@pytest.mark.parametrize("has_ignored", [False, True])
def test_a_mask_has_the_pixels_from_the_threshold_on_without_ignored_ones(tmp_path, has_ignored):
    pixels = np.eye(6, 8, dtype=bool)
    model = SimpleNamespace(
        scorer=SimpleNamespace(ignored=Ignored(pixels, None) if has_ignored else None),
        trained=SimpleNamespace(held_out=None),
        preprocess=Preprocess((6, 8), (6, 8)),
    )
    anomaly_map = np.float32([1.5, 1.5 - 2**-20])[np.indices((6, 8)).sum(0) % 2]
    prediction = replace(PREDICTION, anomaly_map=anomaly_map[None])
    thresholds = Thresholds(Threshold(9.0, "given"), Threshold(1.5, "given"))
    options = InferOptions(save_masks=True, pictures="none", explain_top=0)
    pictures = PredictionPictures(model, thresholds, options, ResultFolder(tmp_path))
    files = pictures.draw(Item("a.png"), CROP, CROP, prediction, is_anomaly=True)
    assert set(files) == {"mask"}
    found = cv2.imread(str(tmp_path / files["mask"]), cv2.IMREAD_UNCHANGED)
    expected = (anomaly_map == 1.5) & ~(pixels & has_ignored)
    np.testing.assert_array_equal(found, 255 * expected.astype(np.uint8), strict=True)
