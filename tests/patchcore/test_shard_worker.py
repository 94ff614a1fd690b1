"""A fit spread over workers, without Ray: the workers are objects of this process."""

import pickle
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from datasets.base import DatasetError, UnusableFilesError
from patchcore import PatchCoreError
from patchcore.distributed import WORKER_BYTES, RayEngine, _even_cpus
from patchcore.errors import ChangedImagesError
from patchcore.memory_plan import MemoryPlan, Needs
from patchcore.passes import CroppedImages
from patchcore.shard_worker import ShardWorker, versions
from tests.patchcore.distributed_fit import SIDE, assert_equal, fit_images, make_images, make_model
from tests.support import one_thread


@pytest.fixture(autouse=True)
def quick():
    with one_thread():
        yield


class Workers:
    """Workers in this process, with the methods of `patchcore.ray_workers.Workers`."""

    def __init__(self, arguments):
        self._workers = [ShardWorker(*own) for own in arguments]

    def __len__(self):
        return len(self._workers)

    def call(self, method, arguments, key=None):
        pairs = zip(self._workers, arguments, strict=True)
        return [getattr(worker, method)(*own) for worker, own in pairs]

    def send(self, method, arguments, key=None):
        self._last = []
        for worker, own in zip(self._workers, arguments, strict=True):
            try:
                self._last.append(getattr(worker, method)(*own))
            except (DatasetError, PatchCoreError) as error:  # for `result`
                self._last.append(error)

    def result(self, index):
        if isinstance(self._last[index], Exception):
            raise self._last[index]
        return self._last[index]

    change = call

    def replace_first_call(self, arguments):
        self.known = arguments

    def discard(self, key):
        self.call("close", [(key,)] * len(self))

    def put(self, value):
        return value

    def stop(self):
        self._workers.clear()


class Engine(RayEngine):
    def plan(self, needs, budget, device):
        return MemoryPlan(2, needs.two_passes() / 1e9, self.shards, 1)


@pytest.fixture(autouse=True)
def without_ray(monkeypatch):
    class Ray:
        put = staticmethod(lambda value: value)
        is_initialized = staticmethod(lambda: True)
        nodes = staticmethod(lambda: [{"Alive": True, "Resources": {"CPU": 2}}])

    for module in ("distributed", "ray_workers"):
        monkeypatch.setattr(f"patchcore.{module}.import_ray", lambda: Ray)

    def make_workers(own, resources):
        assert (resources["num_cpus"], resources["num_gpus"]) == (1, 0)
        assert resources["memory"] > WORKER_BYTES  # and what its patches take
        return Workers(own)

    monkeypatch.setattr("patchcore.distributed.Workers", make_workers)


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
        (3, {"context": 0.5}, {}),
        (50, {"ignore_mask": some_pixels(), "retrieve_images": 3}, {"patches": False}),
    ],
)
def test_everything_equals_one_process_to_the_last_bit(shards, settings, request_):
    model = make_model(**{"percentage_coreset": (0.05, 0.3), **settings})
    expected = fit_images(model, None, **request_)
    found = fit_images(model, Engine(shards=shards), **request_)
    assert_equal(found, expected)
    assert f" in {shards} shard{'s' * (shards > 1)} of 1 CPU, about" in found.plan.describe()


@pytest.fixture
def worker():
    model, images = make_model(), make_images(4)
    part = CroppedImages(images, (), 3)
    return ShardWorker(model.embedder, model.scorer, part, None, (0,), 1)


def test_a_worker_with_other_versions_is_refused(worker):
    with pytest.raises(PatchCoreError, match=r"versions \(.*torch 1\.0.*found one with torch "):
        worker.embed(versions() | {"torch": "1.0"}, None)


def test_images_that_changed_when_they_are_embedded_again_are_refused(worker):
    digests, *_ = worker.embed(versions(), None)
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


def test_errors_that_name_images_reach_the_driver_whole():
    """Ray pickles them."""
    changed = pickle.loads(pickle.dumps(ChangedImagesError(["a.png", "b.png"])))
    assert changed.names == ("a.png", "b.png")
    assert str(changed).endswith("found a change of a.png, b.png")
    unusable = pickle.loads(pickle.dumps(UnusableFilesError({"a.png": "empty"})))
    assert unusable.reasons == {"a.png": "empty"}
    assert str(unusable) == "empty"


@pytest.mark.parametrize(
    ("count", "others", "expected"),
    [
        (1, {}, 64),
        (2, {}, 32),
        (3, {}, 21),
        (2, {"GPU": 1}, 4),  # on the node with GPUs alone
        (1, {"memory": 9e9}, 8),  # where the memory is
        (1, {"GPU": 0, "memory": 1e9}, 64),
        (100, {}, 1),
    ],
)
def test_cpus_are_divided_among_the_nodes_that_have_the_rest(count, others, expected):
    nodes = [{"CPU": 64, "memory": 8e9}, {"CPU": 8, "GPU": 2, "memory": 32e9}]
    assert _even_cpus(nodes, count, others) == expected


def test_images_that_workers_cannot_use_are_reported_together(monkeypatch):
    """So that a new start leaves out all of them."""
    numbers = iter(range(3))

    def fail(*_):
        name = f"{next(numbers)}.png"
        raise UnusableFilesError({name: "empty"})

    monkeypatch.setattr(ShardWorker, "embed", fail)
    with pytest.raises(UnusableFilesError) as found:
        fit_images(make_model(percentage_coreset=0.1), Engine(shards=3))
    assert list(found.value.reasons) == ["0.png", "1.png", "2.png"]


def test_an_error_that_names_no_image_is_raised_as_it_is(monkeypatch):
    def fail(*_):
        raise PatchCoreError("features that are not finite")

    monkeypatch.setattr(ShardWorker, "embed", fail)
    with pytest.raises(PatchCoreError, match="features that are not finite"):
        fit_images(make_model(percentage_coreset=0.1), Engine(shards=3))


def test_workers_keep_the_patches_of_one_selection_at_a_time(monkeypatch):
    counts = []

    def open_(self, *arguments):
        open_shards(self, *arguments)
        counts.append(len(self._shards))

    open_shards = ShardWorker.open
    monkeypatch.setattr(ShardWorker, "open", open_)
    fit_images(make_model(percentage_coreset=0.1), Engine(shards=2), seeds=(0, 1))
    assert len(counts) > 2
    assert set(counts) == {1}


def test_a_cluster_without_room_for_the_workers_is_an_error_before_anything_is_read():
    cpu = torch.device("cpu")
    RayEngine(shards=2).check(cpu)
    for engine in (RayEngine(shards=3), RayEngine(shards=2, cpus=2)):
        message = rf"for {engine.shards} workers of {engine.cpus or 1:g} CPU each, found a node"
        with pytest.raises(PatchCoreError, match=message):
            engine.check(cpu)
    with pytest.raises(PatchCoreError, match="for 1 workers of 1 CPU, 1 GPU each"):
        RayEngine().check(torch.device("cuda"))


@pytest.mark.parametrize(
    ("device", "budget", "shards", "expected"),
    [
        ("cpu", 0, 0, 1),  # the memory of the driver does not matter
        ("cpu", 16, 0, 4),
        ("cpu", 16, 5, 5),
        ("cuda", 0, 0, 3),  # of 24 GB, 70 % each
        ("cuda", 16, 0, 4),
        ("cuda", 8, 0, None),  # needs seven GPUs
        ("cuda", 0, 2, None),
    ],
)
def test_the_number_of_workers_is_the_smallest_with_enough_memory(
    monkeypatch, device, budget, shards, expected
):
    nodes = [{"CPU": 64, "GPU": 4, "memory": 400e9}, {"CPU": 8, "memory": 40e9}]
    monkeypatch.setattr("patchcore.distributed._resources", lambda: nodes)
    monkeypatch.setattr(
        "patchcore.distributed.free_memory", lambda _: 24 if device == "cuda" else 1
    )
    needs = Needs(1000, 96_000, 1024, (10,))  # 130 floats a patch: 50 GB
    engine = RayEngine(shards=shards)
    if expected is None:
        with pytest.raises(
            PatchCoreError, match=f"for {shards or 4} workers of .* GB and 1 CPU, 1 GPU"
        ):
            engine.plan(needs, budget, torch.device(device))
        return
    plan = engine.plan(needs, budget, torch.device(device))
    assert plan.shards == expected
    assert plan.needed == pytest.approx(130 * 4 * 96e6 / 1e9)


def test_a_worker_that_finds_no_room_is_an_error(monkeypatch):
    from patchcore import ray_workers

    class Actor:
        class __ray_ready__:  # noqa: N801
            remote = staticmethod(lambda: "started")

    killed = []
    ray = SimpleNamespace(
        remote=lambda **_: lambda kind: SimpleNamespace(remote=lambda *_: Actor()),
        wait=lambda started, timeout: ([], started),
        kill=killed.append,
    )
    monkeypatch.undo()
    monkeypatch.setattr(ray_workers, "import_ray", lambda: ray)
    with pytest.raises(PatchCoreError, match=r"room for 2 workers .* for worker 0 within 300 s"):
        ray_workers.Workers([(), ()], {})
    assert len(killed) == 2


@pytest.mark.parametrize("fails", ["embed", "rows"])
def test_workers_end_after_an_error(monkeypatch, fails):
    def fail(*_):
        raise ChangedImagesError(["a.png"])

    def stop(workers):
        stopped.append(workers)

    stopped = []
    monkeypatch.setattr(ShardWorker, fails, fail)
    monkeypatch.setattr(Workers, "stop", stop)
    with pytest.raises(ChangedImagesError):
        fit_images(make_model(percentage_coreset=0.1), Engine(shards=2))
    assert len(stopped) == 1
