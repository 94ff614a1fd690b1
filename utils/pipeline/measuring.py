"""Metrics of the predictions of a category."""

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from datasets.base import GOOD, Category
from patchcore import Prediction
from patchcore.ignored import Ignored
from utils.metrics import Metrics, defect_record, measure, measure_pixels
from utils.options.evaluate import EvaluateOptions
from utils.pipeline.ground_truth import GroundTruth, without_pixels
from utils.saturated_overlap import au_spro

log = logging.getLogger(__name__)


def measure_prediction(
    prediction: Prediction,
    category: Category,
    truth: GroundTruth,
    options: EvaluateOptions,
    device: torch.device,
    ignored: Ignored | None,
) -> tuple[Metrics, Metrics, dict[str, dict[str, float]]]:
    """Measure images, pixels, and the images of each defect type against the good ones."""
    types = np.array([sample.defect_type for sample in category.test])
    scores = prediction.score
    images = measure(scores, types != GOOD)
    hidden = None if ignored is None else ignored.pixels
    pixels = Metrics()
    if truth.masks is not None:
        known = np.array([sample.has_ground_truth for sample in category.test])
        judged = truth.pixels(prediction.anomaly_map, hidden)
        pixels = measure_pixels(
            _chosen(judged.maps, known),
            _chosen(judged.masks, known),
            options.aupro_limit,
            device,
            judged.hidden if judged.hidden is hidden else _chosen(judged.hidden, known),
        )
        if judged.regions:
            seen = without_pixels(judged)
            area = au_spro(seen.maps, seen.masks, seen.regions, options.spro_limit)
            pixels = replace(pixels, au_spro=area, spro_limit=options.spro_limit)
    defects = {}
    for defect_type in dict.fromkeys(types[types != GOOD].tolist()):
        chosen = (types == GOOD) | (types == defect_type)
        found = measure(scores[chosen], types[chosen] != GOOD)
        num_test = int((types == defect_type).sum())
        defects[defect_type] = {"num_test": num_test} | defect_record(found)
    return images, pixels, defects


def _chosen(arrays: Sequence[np.ndarray], chosen: np.ndarray) -> Sequence[np.ndarray]:
    """Return the chosen ones of a stack or a list of arrays, without a copy if all are."""
    if chosen.all():
        return arrays
    return [array for array, is_chosen in zip(arrays, chosen, strict=True) if is_chosen]


def report_hidden_defects(
    category: Category, masks: np.ndarray | None, ignored: Ignored | None
) -> None:
    """Log the number of defects that no score can find, since they are ignored entirely."""
    if masks is None or ignored is None:
        return
    is_hidden = masks.any((1, 2)) & ~(masks & ~ignored.pixels).any((1, 2))
    if is_hidden.any():
        log.warning(
            "%s: in %d of %d defective test images the whole defect is ignored (--ignore_mask); "
            "they still count as defective in the metrics of images",
            category.name,
            is_hidden.sum(),
            masks.any((1, 2)).sum(),
        )
