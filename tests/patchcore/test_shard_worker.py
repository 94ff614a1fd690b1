"""A fit spread over workers, without Ray: the workers are objects of this process."""

import pickle
import sys
import weakref
from contextlib import nullcontext
from dataclasses import dataclass, field
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from datasets.base import UnusableFilesError
from datasets.notes import Notes
from patchcore import PatchCoreError
from patchcore.distributed import WORKER_BYTES, RayEngine, RayShards, _even_cpus
from patchcore.errors import ChangedImagesError
from patchcore.fit import FitRequest, fit
from patchcore.memory_plan import MemoryPlan, Needs
from patchcore.observer import Observer
from patchcore.passes import CroppedImages
from patchcore.ray_workers import Workers
from patchcore.shard_worker import ShardWorker, versions
from tests.patchcore.distributed_fit import SIDE, assert_equal, fit_images, make_images, make_model
from tests.patchcore.ray_actors import LocalRay, use
from tests.support import one_thread


@pytest.fixture(autouse=True)
def quick():
    with one_thread():
        yield


class Engine(RayEngine):
    def plan(self, needs, budget, device):
        return MemoryPlan(2, needs.two_passes() / 1e9, self.shards, 1)


@pytest.fixture(autouse=True)
def ray(monkeypatch):
    """Workers in this process."""
    ray = LocalRay()
    use(monkeypatch, ray)
    return ray


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
def test_everything_equals_one_process_to_the_last_bit(shards, settings, request_, ray):
    model = make_model(**{"percentage_coreset": (0.05, 0.3), **settings})
    expected = fit_images(model, None, **request_)
    found = fit_images(model, Engine(shards=shards), **request_)
    assert_equal(found, expected)
    assert all(actor.is_lost for actor in ray.actors)  # they are ended
    assert (ray.resources["num_cpus"], ray.resources["num_gpus"]) == (1, 0)
    assert ray.resources["memory"] > WORKER_BYTES  # and what its patches take
    assert f" in {shards} shard{'s' * (shards > 1)} of 1 CPU, about" in found.plan.describe()


SEEDS = (3, 0)


@pytest.fixture(scope="module")
def calls():
    """The calls of workers in a fit in which none is lost."""
    ray = LocalRay()
    with one_thread(), pytest.MonkeyPatch.context() as patch:
        use(patch, ray)
        fit_images(make_model(percentage_coreset=0.02), Engine(shards=2), seeds=SEEDS)
    return ray.calls


@pytest.fixture(scope="module")
def expected():
    with one_thread():
        return fit_images(make_model(percentage_coreset=0.02), None, seeds=SEEDS)


class TestLosses:
    """Workers that are lost are replaced, and brought to the state of the lost ones."""

    def lose(self, number, ray, expected, caplog):
        ray.losses, ray.calls = [number], []
        caplog.clear()
        result = fit_images(make_model(percentage_coreset=0.02), Engine(shards=2), seeds=SEEDS)
        assert_equal(result, expected)
        messages = [text for text in caplog.messages if "is lost" in text]
        assert messages == [f"worker {number % 2} is lost and replaced: killed"]

    @pytest.mark.parametrize(
        "method", ["embed", "open", "subtract", "close", "free_projections", "rows"]
    )
    @pytest.mark.parametrize("place", [0, -1])
    def test_at_a_call_of(self, ray, calls, expected, caplog, method, place):
        numbers = [number for number, called in enumerate(calls) if called == method]
        self.lose(numbers[place], ray, expected, caplog)

    @pytest.mark.parametrize("part", [0.2, 0.5, 0.8])
    def test_during_selections(self, ray, calls, expected, caplog, part):
        numbers = [number for number, called in enumerate(calls) if called == "call_shard"]
        self.lose(numbers[int(part * len(numbers))], ray, expected, caplog)

    def test_its_images_must_be_those_that_the_lost_one_embedded(self, ray, calls, monkeypatch):
        known, digests, embed = [], [], ShardWorker.embed

        def note(worker, expected, of_lost):
            result = embed(worker, expected, of_lost)
            known.append(of_lost)
            digests.append(result[0])
            return result

        monkeypatch.setattr(ShardWorker, "embed", note)
        ray.losses = [calls.index("rows") + 1]
        fit_images(make_model(percentage_coreset=0.02), Engine(shards=2), seeds=SEEDS)
        assert known[:2] == [None, None]
        np.testing.assert_array_equal(known[2], digests[1])
        # A selection that is over is not repeated.
        assert ray.calls.count("call_shard") == calls.count("call_shard")

    @pytest.mark.slow
    def test_at_every_call(self, ray, calls, expected, caplog):
        for number in range(len(calls)):
            self.lose(number, ray, expected, caplog)

    def test_a_worker_that_is_lost_again_and_again_is_given_up(self, ray, caplog):
        ray.losses = range(100)
        message = "expected worker 0 to keep running, lost it 4 times: killed"
        with pytest.raises(PatchCoreError, match=message):
            fit_images(make_model(percentage_coreset=0.02), Engine(shards=2))
        assert caplog.text.count("worker 0 is lost and replaced") == 3
        assert all(actor.is_lost for actor in ray.actors)  # they are ended


@pytest.mark.parametrize(
    ("options", "expected"),
    [({"cpus": 2}, 2), ({"cpus": 0.5}, 1), ({"cpus": 2, "num_threads": 3}, 3)],
)
def test_threads_of_a_worker(monkeypatch, options, expected):
    counts = []
    monkeypatch.setattr("patchcore.shard_worker.torch.set_num_threads", counts.append)
    fit_images(make_model(percentage_coreset=0.02), RayEngine(shards=1, **options))
    assert counts[0] == expected


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


def test_a_worker_gives_back_the_memory_of_its_projections(worker):
    worker.embed(versions(), None)
    worker.open((0, 0), None)
    points = weakref.ref(worker._shards[0, 0]._shards[0]._points)
    worker.close((0, 0))
    assert points() is not None  # a later selection needs them
    worker.open((0, 0), None)
    worker.free_projections()
    assert points() is None


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


@dataclass(frozen=True)
class Noted(CroppedImages):
    """Images about which something is noticed as they are given to a worker."""

    notes: Notes = field(default_factory=Notes)

    def part(self, start, stop):
        part = Noted(self.crops[start:stop], (), self.batch_size)
        part.notes.add("cut off", f"{start}.png")
        return part


def test_the_driver_learns_what_workers_noticed_and_how_far_they_are():
    class Progress(Observer):
        def advance(self, num_images):
            counts.append(num_images)

    counts, training = [], Noted(make_images(), (), 3)
    model = make_model(percentage_coreset=0.1)
    request = FitRequest(model.percentages)
    fit(model.embedder, model.scorer, training, request, Progress(), Engine(shards=2), None)
    assert [str(note) for note in training.notes.all()] == ["2 files: cut off (for example 0.png)"]
    assert counts[:2] == [12, 11]


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
    ("node", "found"),
    [
        ({}, "0 GB, 0 CPU, 0 GPU"),
        ({"memory": 3.5e9, "CPU": 8, "GPU": 2}, "3.5 GB, 8 CPU, 2 GPU"),
    ],
)
def test_the_error_says_what_each_node_has_to_reserve(monkeypatch, node, found):
    monkeypatch.setattr("patchcore.distributed._resources", lambda: [node, node])
    message = f"found a node with {found}; a node with {found} "
    with pytest.raises(PatchCoreError, match=message):
        RayEngine(shards=17).check(torch.device("cpu"))


def test_results_of_workers_are_moved_to_the_device_of_the_driver():
    workers = SimpleNamespace(call=lambda method, calls: [torch.ones(2), 7])
    shards = RayShards(workers, (0, 0), (1, 1), torch.device("meta"))
    values, number = shards.call("rows", [(), ()])
    assert (values.device.type, number) == ("meta", 7)


@pytest.mark.parametrize(
    ("device", "budget", "shards", "expected", "cpus"),
    [
        ("cpu", 0, 0, 1, 64),  # the memory of the driver does not matter
        ("cpu", 16, 0, 4, 16),
        ("cpu", 16, 5, 5, 12),
        ("cpu", 24.96, 0, 2, 32),  # exactly what each has
        ("cuda", 0, 0, 3, 21),  # of 24 GB, 70 % each
        ("cuda", 16, 0, 4, 16),
        ("cuda", 8, 0, None, 0),  # needs seven GPUs
        ("cuda", 0, 2, None, 0),
    ],
)
def test_the_number_of_workers_is_the_smallest_with_enough_memory(
    monkeypatch, device, budget, shards, expected, cpus
):
    """They have the CPUs of the nodes in equal parts."""
    nodes = [{"CPU": 64, "GPU": 4, "memory": 400e9}, {"CPU": 8, "memory": 40e9}]
    monkeypatch.setattr("patchcore.distributed._resources", lambda: nodes)
    monkeypatch.setattr(
        "patchcore.distributed.free_memory", lambda _: 24 if device == "cuda" else 1
    )
    needs = Needs(1000, 96_000, 1024, (10,))  # 130 floats a patch: 50 GB
    engine = RayEngine(shards=shards) if shards else RayEngine()
    if expected is None:
        with pytest.raises(
            PatchCoreError, match=f"for {shards or 4} workers of .* GB and 1 CPU, 1 GPU"
        ):
            engine.plan(needs, budget, torch.device(device))
        return
    plan = engine.plan(needs, budget, torch.device(device))
    assert (plan.shards, plan.cpus) == (expected, cpus)
    assert plan.needed == pytest.approx(130 * 4 * 96e6 / 1e9)


def test_a_worker_needs_memory_for_its_packages_too(monkeypatch):
    needs = Needs(1000, 96_000, 1024, (10,))
    patches = needs.while_selecting()
    for memory, fits in ((patches + WORKER_BYTES, True), (patches + WORKER_BYTES - 1, False)):
        nodes = [{"CPU": 1, "memory": memory}]
        monkeypatch.setattr("patchcore.distributed._resources", lambda nodes=nodes: nodes)
        with nullcontext() if fits else pytest.raises(PatchCoreError, match="for 1 workers of"):
            RayEngine().plan(needs, 0, torch.device("cpu"))


def test_a_worker_that_finds_no_room_is_an_error(monkeypatch, ray):
    monkeypatch.setattr(ray, "wait", lambda started, timeout: ([], started))
    with pytest.raises(PatchCoreError, match=r"room for 2 workers .* for worker 0 within 300 s"):
        Workers([(), ()], {}, kind=object)
    assert [actor.is_lost for actor in ray.actors] == [True, True]


def test_a_replaced_worker_that_finds_no_room_is_an_error(monkeypatch, ray):
    """Its node is lost, and no other has room: it would be waited for without an end."""
    workers = Workers([(1,), (2,)], {}, kind=Fraction)
    ray.losses = [1]
    monkeypatch.setattr(ray, "wait", lambda started, timeout: ([], started))
    with pytest.raises(PatchCoreError, match=r"room for 2 workers .* for worker 1 within 300 s"):
        workers.call("as_integer_ratio", [(), ()])
    assert [actor.is_lost for actor in ray.actors] == [True, True, True]


@pytest.mark.parametrize("fails", ["embed", "rows"])
def test_workers_end_after_an_error(monkeypatch, ray, fails):
    def fail(*_):
        raise ChangedImagesError(["a.png"])

    monkeypatch.setattr(ShardWorker, fails, fail)
    with pytest.raises(ChangedImagesError):
        fit_images(make_model(percentage_coreset=0.1), Engine(shards=2))
    assert [actor.is_lost for actor in ray.actors] == [True, True]
