"""Evaluation of ensembles: the predictions of several models, combined."""

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from patchcore.ensemble import combine
from patchcore.ignored import Ignored
from utils.metrics import metrics_record
from utils.options.evaluate import EvaluateOptions
from utils.pipeline.category_result import CategoryResult, Measurement
from utils.pipeline.measuring import measure_prediction
from utils.sorted_scores import CPU

ENSEMBLE = "ensemble"


def combine_members(members: Sequence[CategoryResult], options: EvaluateOptions) -> CategoryResult:
    """Evaluate the ensemble of all members, with scores normalised by training patches."""
    first = members[0]
    ignored = _joined_pixels(members)
    measurements, predictions = [], []
    for number, of_first in enumerate(first.measurements):
        start = time.perf_counter()
        row = of_first.row
        part = first.learned.percentages.index(row.percentage_coreset)
        prediction = combine(
            [member.predictions[number] for member in members],
            [member.learned.normal[row.seed][part] for member in members],
        )
        images, pixels, defects = measure_prediction(
            prediction, first.category, first.truth, options, CPU, ignored
        )
        rows = [member.measurements[number].row for member in members]
        stages = dict.fromkeys(stage for one in rows for stage in one.seconds)
        seconds = {s: sum(one.seconds.get(s, 0.0) for one in rows) for s in stages}
        seconds["combine"] = time.perf_counter() - start
        row = replace(
            row,
            metrics=metrics_record(images, pixels),
            seconds=seconds,
            model=ENSEMBLE,
            defects=defects,
        )
        measurements.append(Measurement(row, images, pixels))
        predictions.append(prediction)
    return replace(
        first,
        measurements=tuple(measurements),
        predictions=tuple(predictions),
        ignored=ignored,
    )


def _joined_pixels(members: Sequence[CategoryResult]) -> Ignored | None:
    """Return the pixels that any member ignores, with the patches of the first."""
    first = members[0].ignored
    if first is None:
        return None
    pixels = np.any([member.ignored.pixels for member in members], axis=0)
    return Ignored(pixels, first.patches)
