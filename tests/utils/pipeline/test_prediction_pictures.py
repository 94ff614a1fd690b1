"""The colour scale of the pictures of `infer`, and the pixels that they show as ignored."""

from types import SimpleNamespace

import numpy as np
import pytest

from patchcore import Prediction
from patchcore.held_out import PIXEL_RATES, HeldOutScores
from patchcore.ignored import Ignored
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
