"""Scores of batches become one prediction, whenever they are copied."""

import numpy as np
import pytest
import torch

from patchcore import prediction
from patchcore.errors import PatchCoreError
from patchcore.prediction import Collector, Prediction

NAMES = ("score", "anomaly_map", "distance", "nearest")


def make_prediction(count, seed):
    generator = torch.Generator().manual_seed(seed)
    return Prediction(
        torch.rand(count, generator=generator),
        torch.rand(count, 8, 8, generator=generator),
        torch.rand(count, 2, 2, 3, generator=generator),
        torch.randint(99, (count, 2, 2, 3), generator=generator),
    )


@pytest.mark.parametrize("at_a_time", [1, 2, 3, 32])
def test_keeps_order_whenever_it_copies(monkeypatch, at_a_time):
    batches = [make_prediction(count, seed) for seed, count in enumerate((4, 4, 4, 4, 1))]
    size = sum(getattr(batches[0], name).nbytes for name in NAMES)
    monkeypatch.setattr(prediction, "BYTES_ON_DEVICE", at_a_time * size)
    collector = Collector()
    for batch in batches:
        collector.add(batch)
        assert collector._bytes < at_a_time * size  # a device's memory is not filled
    found = collector.finish()
    for name in NAMES:
        expected = torch.cat([getattr(batch, name) for batch in batches]).numpy()
        assert getattr(found, name).dtype == expected.dtype
        assert np.array_equal(getattr(found, name), expected)


def test_keeps_nothing_after_it_has_finished():
    collector = Collector()
    collector.add(make_prediction(2, 0))
    assert len(collector.finish().score) == 2
    with pytest.raises(PatchCoreError, match="at least one image"):
        collector.finish()


def test_one_image_of_several():
    whole = make_prediction(3, 0)
    for number in range(-3, 3):
        one = whole.of(number)
        for name in NAMES:
            assert torch.equal(getattr(one, name), getattr(whole, name)[[number]])


@pytest.mark.parametrize("number", [-4, 3])
def test_refuses_an_image_that_is_not_there(number):
    with pytest.raises(PatchCoreError, match=f"one of 3 images, found {number}"):
        make_prediction(3, 0).of(number)
