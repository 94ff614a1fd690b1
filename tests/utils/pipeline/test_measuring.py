"""What is measured of which images, and what is said of defects that nothing can find."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets.base import Category, MaskFiles, Sample
from patchcore import Prediction
from patchcore.ignored import Ignored
from utils.metrics import measure_pixels
from utils.options.evaluate import EvaluateOptions
from utils.pipeline.ground_truth import GroundTruth, OriginalTruth
from utils.pipeline.measuring import measure_prediction, report_hidden_defects

CPU = torch.device("cpu")
MASK = MaskFiles((Path("mask.png"),))
# The second defective image has no mask: nobody knows which of its pixels are defective.
SAMPLES = tuple(
    Sample(Path(f"{kind}/{n}.png"), "nut", kind, mask)
    for n, (kind, mask) in enumerate((("good", None), ("hole", MASK), ("hole", None)))
)
CATEGORY = Category("nut", (), SAMPLES, has_masks=True)


def predict(maps: np.ndarray) -> Prediction:
    return Prediction(maps.max(axis=(1, 2)), maps, distance=None, nearest=None)


@pytest.mark.parametrize("is_hidden", [False, True])
@pytest.mark.parametrize("at_original_size", [False, True])
def test_pixels_are_measured_where_the_ground_truth_is_known(at_original_size, is_hidden):
    maps = np.random.default_rng(0).random((3, 6, 8), dtype=np.float32)
    masks = np.zeros((3, 6, 8), bool)
    masks[1, :3, 2:5] = True
    ignored = Ignored(np.eye(6, 8, dtype=bool), None) if is_hidden else None
    originals = tuple(
        OriginalTruth.of((6, 8), (0.0, 0.0, 8.0, 6.0), mask, [])
        for mask in (None, masks[1], None)
        if at_original_size
    )
    truth = GroundTruth(masks, originals=originals)
    options = EvaluateOptions()
    _, found, _ = measure_prediction(predict(maps), CATEGORY, truth, options, CPU, ignored)
    hidden = None if ignored is None else ignored.pixels
    expected = measure_pixels(maps[:2], masks[:2], options.aupro_limit, CPU, hidden)
    assert replace(found, curve=None) == replace(expected, curve=None)
    spoilt = maps.copy()
    spoilt[2] += 9
    _, found, _ = measure_prediction(predict(spoilt), CATEGORY, truth, options, CPU, ignored)
    assert found.auroc == expected.auroc


@pytest.mark.parametrize(
    ("num_columns", "text"), [(4, ""), (5, "in 1 of 2 defective"), (8, "in 2 of 2 defective")]
)
def test_defects_that_are_ignored_entirely_are_counted(caplog, num_columns, text):
    """A defect of the columns 2 to 4, and one of 3 to 7, which is longer."""
    caplog.set_level(logging.INFO)
    masks = np.zeros((3, 6, 8), bool)
    masks[1, 2, 2:5] = masks[2, 4, 3:8] = True
    ignored = Ignored(np.broadcast_to(np.arange(8) < num_columns, (6, 8)), None)
    report_hidden_defects(CATEGORY, masks, ignored)
    assert [f"nut: {text}" in line for line in caplog.messages] == ([True] if text else [])
