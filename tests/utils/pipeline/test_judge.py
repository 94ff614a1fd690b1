"""The time of a batch is divided among its images."""

from types import SimpleNamespace

import numpy as np
import pytest

from utils.pipeline import judge as module
from utils.pipeline.judge import Judge, Loaded

CROP = np.zeros((4, 4, 3), np.uint8)


@pytest.mark.parametrize(("num_crops", "seconds"), [(1, 6.0), (2, 3.0), (3, 2.0)])
def test_the_time_of_a_batch_is_divided_among_the_images_that_could_be_read(
    monkeypatch, num_crops, seconds
):
    clock = iter([10.0, 16.0])
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(clock))
    judge = SimpleNamespace(
        _is_shown_again=lambda _: False,
        _predict=lambda crops: ["found"] * len(crops),
        _finish=lambda loaded, found, seconds: (found, seconds),
    )
    batch = [Loaded(None, error="damaged"), *[Loaded(None, crop=CROP)] * num_crops]
    found = Judge._judge(judge, batch)
    assert found == [("damaged", seconds), *[("found", seconds)] * num_crops]
