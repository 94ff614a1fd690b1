"""A fit spread over workers, without Ray: the workers are objects of this process."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from patchcore import PatchCoreError
from patchcore.distributed import RayEngine
from patchcore.memory_plan import MemoryPlan, Needs
from patchcore.passes import CroppedImages
from patchcore.shard_worker import ShardWorker, versions
from tests.patchcore.spread import SIDE, assert_equal, fit_images, make_images, make_model
from tests.support import one_thread


@pytest.fixture(autouse=True)
def quick():
    with one_thread():
        yield


class Workers:
    """Workers in this process, with the methods of `patchcore.distributed.Workers`."""

    def __init__(self, arguments):
        self._workers = [ShardWorker(*own) for own in arguments]

    def __len__(self):
        return len(self._workers)

    def ask(self, method, arguments, key=None):
        pairs = zip(self._workers, arguments, strict=True)
        return [getattr(worker, method)(*own) for worker, own in pairs]

    change = tell = ask

    def know(self, arguments):
        self.known = arguments

    def forget(self, key):
        self.ask("close", [(key,)] * len(self))

    def put(self, value):
        return value

    def stop(self):
        self._workers.clear()


class Engine(RayEngine):
    def plan(self, needs, budget, device):
        return MemoryPlan(2, needs.two_passes() / 1e9, self.shards)


@pytest.fixture(autouse=True)
def without_ray(monkeypatch):
    class Ray:
        put = staticmethod(lambda value: value)

    monkeypatch.setattr("patchcore.distributed.import_ray", lambda: Ray)
    monkeypatch.setattr("patchcore.distributed.Workers", lambda own, resources: Workers(own))


def some_pixels():
    mask = np.zeros((SIDE, SIDE), dtype=bool)
    mask[:16, 24:] = True
    return mask


@pytest.mark.parametrize(
    ("shards", "settings", "request_"),
    [
        (1, {}, {}),
        (2, {"percentage_coreset": (0.02, 1.0)}, {}),
        (3, {"augment": ("horizontal", "brightness")}, {"seeds": (3, 0), "normal": True}),
        (7, {"banks": "per_layer"}, {}),
        (50, {"ignore_mask": some_pixels(), "retrieve_images": 3}, {"patches": False}),
    ],
)
def test_everything_equals_one_process_to_the_last_bit(shards, settings, request_):
    model = make_model(**{"percentage_coreset": (0.05, 0.3), **settings})
    expected = fit_images(model, None, **request_)
    found = fit_images(model, Engine(shards=shards), **request_)
    assert_equal(found, expected)
    assert found.plan.describe().count(f"in {shards} shards") == (shards > 1)


@pytest.fixture
def worker():
    model, images = make_model(), make_images(4)
    part = CroppedImages(images, (), 3)
    return ShardWorker(model.embedder, model.scorer, part, None, (0,), 1)


def test_a_worker_with_other_versions_is_refused(worker):
    with pytest.raises(PatchCoreError, match=r"versions \(.*torch 1\.0.*found one with torch "):
        worker.embed(versions() | {"torch": "1.0"}, None)


def test_images_that_changed_when_they_are_embedded_again_are_refused(worker):
    digests, _ = worker.embed(versions(), None)
    worker.embed(versions(), digests)
    with pytest.raises(PatchCoreError, match="expected the same training images when those of a"):
        worker.embed(versions(), digests + np.uint64(1))


def test_without_a_connection_and_without_ray_an_error_says_so(monkeypatch):
    monkeypatch.undo()
    needs = Needs(10, 4, 48, (3,))
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: False))
    with pytest.raises(PatchCoreError, match=r"expected a connection to a Ray cluster: call ray"):
        RayEngine().plan(needs, 0.0, torch.device("cpu"))
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(PatchCoreError, match=r"pip install -r requirements-ray\.txt"):
        RayEngine().plan(needs, 0.0, torch.device("cpu"))
