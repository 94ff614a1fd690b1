"""A fit over Ray workers, on a Ray head on loopback, against the fit of one process."""

import importlib.util
import logging
import os
import signal
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from patchcore import PatchCoreError
from patchcore.distributed import RayEngine
from patchcore.distributed_prediction import Predictor, predict_distributed
from patchcore.memory_plan import Needs
from patchcore.observer import Observer
from patchcore.ray_workers import Workers
from tests.patchcore.distributed_fit import assert_equal, fit_images, make_images, make_model
from tests.support import one_thread
from utils.ray_cluster import connected

pytestmark = [
    pytest.mark.ray,
    pytest.mark.skipif(
        importlib.util.find_spec("ray") is None, reason="no Ray (requirements-ray.txt)"
    ),
]
CPU = torch.device("cpu")
ENGINE = RayEngine(shards=2, cpus=1)


@pytest.fixture(scope="module")
def head():
    """Start Ray on loopback, as the program does: a process cannot change its authentication."""
    with connected("", ()):
        import ray

        yield ray


@pytest.fixture(scope="module")
def model():
    return make_model(percentage_coreset=(0.02, 0.4), augment=("vertical",))


@pytest.fixture(scope="module")
def expected(model):
    with one_thread():
        return fit_images(model, None, seeds=(3, 0))


@pytest.fixture(autouse=True)
def quick():
    with one_thread():
        yield


@pytest.fixture
def killer(head, monkeypatch):
    """An observer that kills the second worker in the middle of the first selection."""
    started = []

    class Known(Workers):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            started.append(self)

    class Killer(Observer):
        has_killed = False

        @contextmanager
        def selection(self, seed, sizes):
            yield self.progress

        def progress(self, done):
            if not self.has_killed and done > 200:  # the distances have been lowered before
                self.has_killed = True
                pid = started[0].actors[1].__ray_call__.remote(lambda worker: os.getpid())
                os.kill(head.get(pid), signal.SIGKILL)

    monkeypatch.setattr("patchcore.distributed.Workers", Known)
    return Killer()


def test_everything_equals_one_process_to_the_last_bit(killer, model, expected, caplog):
    """Also if a worker is killed in the middle of a selection, and replaced."""
    caplog.set_level(logging.WARNING)
    found = fit_images(model, ENGINE, killer, seeds=(3, 0))
    assert_equal(found, expected)
    assert "in 2 shards" in found.plan.describe()
    assert killer.has_killed
    assert caplog.text.count("is lost and replaced") == 1


@pytest.mark.slow
def test_images_are_predicted_by_workers(head, monkeypatch, tmp_path):
    """The model is fitted over workers too; a worker is killed meanwhile."""
    killed = tmp_path / "killed"

    class Fragile(Predictor):
        def predict(self, batch):
            if len(batch) == 1 and not killed.exists():
                killed.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return super().predict(batch)

    monkeypatch.setattr("patchcore.distributed_prediction.Predictor", Fragile)
    images = make_images(11)
    model = make_model().fit(images, engine=ENGINE)
    expected = make_model().fit(images)
    assert model.thresholds == expected.thresholds
    batches = np.array_split(np.stack(images), 6)
    found = predict_distributed(model, iter(batches), 2)
    assert killed.exists()
    wanted = expected.predict_crops(batches)
    for name in ("score", "anomaly_map", "distance", "nearest"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))


def needs(gigabytes):
    return Needs(int(gigabytes * 1e9 / 520), 1, 1024, (10,))  # 130 floats a patch


def test_the_number_of_shards_follows_from_the_memory(head):
    total = sum(node["Resources"]["memory"] for node in head.nodes()) / 1e9
    share = 0.6 * (total - 1)  # of a worker: two of this size do not fit with their packages
    assert RayEngine().plan(needs(0.001), 0, CPU).shards == 1
    assert RayEngine().plan(needs(0.5), 0.3, CPU).shards == 2
    assert RayEngine(shards=1).plan(needs(share), 0, CPU).shards == 1
    for engine, size, budget in (
        (RayEngine(), total, 0),  # too much for all together
        (RayEngine(shards=2), 2 * share, 0),
        (RayEngine(), 0.5, 0.2),  # more workers than CPUs
        (RayEngine(shards=3), 0.001, 0),
    ):
        with pytest.raises(PatchCoreError, match=r"expected a Ray cluster for .* found a node"):
            engine.plan(needs(size), budget, CPU)


def test_a_gpu_where_there_is_none_is_refused(head):
    with pytest.raises(PatchCoreError, match=r"1 CPU, 1 GPU each, found a node .* 0 GPU"):
        RayEngine(shards=1).plan(needs(0.001), 0, torch.device("cuda"))
