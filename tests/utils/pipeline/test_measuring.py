"""Metrics of predictions: which images and pixels are measured, and what is reported."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from datasets.base import GOOD, Category, Sample
from datasets.masks import MaskFiles
from patchcore.ignored import Ignored
from utils.options.evaluate import EvaluateOptions
from utils.pipeline.ground_truth import JudgedPixels
from utils.pipeline.measuring import measure_prediction, report_hidden_defects
from utils.sorted_scores import CPU


@pytest.mark.parametrize("as_lists", [False, True])
def test_pixels_of_unknown_ground_truth_are_not_measured(as_lists):
    """Of images of one size, which are a stack, and of several, which are a list."""
    rng = np.random.default_rng(0)
    maps, masks = rng.random((4, 8, 8), dtype=np.float32), rng.random((4, 8, 8)) > 0.75
    masks[0] = False
    samples = [Sample(Path("0.png"), "cap", GOOD)]
    mask = MaskFiles((Path("mask.png"),))
    samples += [Sample(Path(f"{n}.png"), "cap", "crack", mask) for n in (1, 2)]
    samples.append(Sample(Path("3.png"), "cap", "crack"))
    assert [s.has_ground_truth for s in samples] == [True, True, True, False]

    def measured(count):
        judged = JudgedPixels(maps[:count], masks[:count], (), None)
        if as_lists:
            judged = JudgedPixels(list(maps[:count]), list(masks[:count]), (), None)
        truth = SimpleNamespace(masks=masks, pixels=lambda *_: judged)
        category = Category("cap", (), tuple(samples[:count]), has_masks=True)
        prediction = SimpleNamespace(score=maps[:count].max((1, 2)), anomaly_map=maps[:count])
        found = measure_prediction(prediction, category, truth, EvaluateOptions(), CPU, None)[1]
        return found.auroc, found.average_precision, found.aupro

    assert measured(4) == measured(3)


def test_defects_that_are_ignored_entirely_are_reported(caplog):
    masks = np.zeros((3, 4, 4), bool)
    masks[1, :2, :2] = masks[2, 2:, 2:] = True
    category = Category("cap", (), (), has_masks=True)
    ignored = np.zeros((4, 4), bool)
    ignored[:2, :1] = True
    report_hidden_defects(category, masks, Ignored(ignored, None))
    report_hidden_defects(category, None, Ignored(ignored, None))
    report_hidden_defects(category, masks, None)
    assert caplog.messages == []
    ignored[:2, 1] = True
    report_hidden_defects(category, masks, Ignored(ignored, None))
    (message,) = caplog.messages
    assert message.startswith("cap: in 1 of 2 defective test images the whole defect is ignored")
