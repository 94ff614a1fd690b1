"""Predictions by several workers, without Ray: the workers are objects of this process."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from patchcore import PatchCore, PatchCoreError
from patchcore.distributed_prediction import predict_distributed
from tests.patchcore.distributed_fit import make_images, make_model
from tests.patchcore.ray_actors import ActorPool, LocalRay, use
from tests.support import one_thread


@pytest.fixture(scope="module")
def model():
    with one_thread():
        return make_model(percentage_coreset=0.02).fit(make_images())


@pytest.fixture
def batches():
    return np.array_split(np.stack(make_images(11)), 5)


@pytest.fixture(autouse=True)
def ray(monkeypatch):
    ray = LocalRay()
    use(monkeypatch, ray)
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray.util", SimpleNamespace(ActorPool=ActorPool))
    with one_thread():
        yield ray


@pytest.mark.parametrize("num_workers", [1, 2, 7])
def test_results_are_those_of_one_process(model, batches, ray, num_workers):
    waiting = []

    def read():
        for number, batch in enumerate(batches):
            waiting.append(number + 1 - len(ray.calls))
            yield batch

    found = predict_distributed(model, read(), num_workers, cpus=3)
    expected = model.predict_crops(batches)
    for name in ("score", "anomaly_map", "distance", "nearest"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert len(ray.actors) == num_workers
    assert ray.calls == ["predict"] * len(batches)
    assert set(waiting) == {1}  # a batch is read when a worker can take it
    assert (ray.resources["num_cpus"], ray.resources["num_gpus"]) == (3, 0)


@pytest.mark.parametrize(("num_threads", "expected"), [(0, 1), (3, 3)])
def test_threads_of_a_worker(model, batches, ray, monkeypatch, num_threads, expected):
    counts = []
    monkeypatch.setattr(torch, "set_num_threads", counts.append)
    predict_distributed(model, batches, 2, num_threads=num_threads)
    assert counts[:2] == [expected] * 2
    assert ray.resources["num_cpus"] == 1


def test_gpus_are_reserved_where_the_model_is_on_one(model, batches, ray, monkeypatch):
    monkeypatch.setattr(PatchCore, "device", torch.device("cuda"))
    predict_distributed(model, batches, 1, gpus=0.5)
    assert ray.resources["num_gpus"] == 0.5


def test_the_error_of_a_worker_is_raised_as_it_is(model, batches):
    with pytest.raises(PatchCoreError, match=r"expected .* uint8"):
        predict_distributed(model, [batches[0].astype(np.float32)], 2)


def test_a_worker_that_is_lost_again_and_again_is_an_error(model, batches, ray):
    ray.losses = {3}  # Ray restarts it before
    with pytest.raises(PatchCoreError, match="expected workers to keep running, lost one: killed"):
        predict_distributed(model, batches, 2)
    assert (ray.resources["max_restarts"], ray.resources["max_task_retries"]) == (3, 3)


def test_at_least_one_image_is_expected(model):
    with pytest.raises(PatchCoreError, match="at least one image to predict"):
        predict_distributed(model, [], 1)
