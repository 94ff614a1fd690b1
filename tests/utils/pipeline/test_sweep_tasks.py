"""What a sweep asks of Ray, and what it makes of the answers: tested without Ray."""

import logging
import sys
import threading
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import cv2
import numpy as np
import pytest
import threadpoolctl
import torch

import main
from datasets.base import Category
from tests.support import (
    call,
    make_category,
    make_data,
    quick,
    read_run,
    read_table,
    truncate,
    without_plots,
)
from tests.test_resume import contents
from tests.utils.ray_tasks import RayError, RayTaskError
from utils.errors import LEFT_OUT, UsageError
from utils.logs import PACKAGES
from utils.options.evaluate import EvaluateOptions
from utils.pipeline import cluster, evaluation, nodes, sweep
from utils.pipeline.demand import Demand
from utils.pipeline.evaluate_one import evaluate_one
from utils.pipeline.nodes import Expected, Node, Report, list_nodes
from utils.pipeline.sweep import Failure

RAY = "--engine ray --task_cpus 1"


@pytest.fixture
def worker(ray) -> SimpleNamespace:
    return sys.modules["utils.pipeline.sweep_worker"]


def test_results_messages_and_record_are_those_of_a_run_without_ray(
    ray,
    tmp_path,
    caplog,
):
    caplog.set_level(logging.INFO)
    data = make_data(tmp_path / "data")
    truncate(data / "widget/train/good/003.png")
    flags = "--on_error skip --categories widget"
    warnings = []
    for name, more in (("alone", ""), ("ray", RAY)):
        caplog.clear()
        words = quick("--path_data", data, "--path_result", tmp_path / name, *flags.split())
        with without_plots():
            assert call(*words, *more.split()) == LEFT_OUT
        assert not any("(one of" in text for text in caplog.messages)  # there is one row
        warnings.append({r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING})
        assert read_run(tmp_path / name)["state"] == "complete"
    assert contents(tmp_path / "ray") == contents(tmp_path / "alone")
    assert warnings[0] == warnings[1]
    assert any("widget: an image is skipped" in text for text in warnings[1])
    alone, record = (read_run(tmp_path / name) for name in ("alone", "ray"))
    assert (record["threads"], record["device"]) == (1, "CPU")
    assert [node["cpu"] for node in record["nodes"]] == [alone["cpu"]]
    assert record["skipped_images"] == alone["skipped_images"]


def test_a_category_that_fails_costs_none_of_the_others(ray, tmp_path, caplog, capsys):
    data = make_data(tmp_path / "data")
    image = truncate(data / "gadget/train/good/003.png")
    words = quick("--path_data", data, "--path_result", tmp_path / "result", *RAY.split())
    with without_plots():
        assert call(*words) == main.WRONG_USAGE
    assert [row["category"] for row in read_table(tmp_path / "result")] == ["widget"]
    expected = f"expected an image, found a damaged or unknown file: {image}"
    (logged,) = (r.getMessage() for r in caplog.records if r.levelno == logging.ERROR)
    assert logged.startswith(f"gadget: {expected}")
    assert f"first gadget: {expected}" in capsys.readouterr().err


def test_a_node_with_other_weights_computes_nothing(worker):
    models = {"net": SimpleNamespace(backbone=SimpleNamespace(weights_digest="1"))}
    worker._check_weights(models, {"net": "1"})
    with pytest.raises(UsageError, match=r"expected the same weights of net on all nodes"):
        worker._check_weights(models, {"net": "2"})


def test_a_task_computes_nothing_with_other_weights(worker, monkeypatch):
    models = {"net": SimpleNamespace(backbone=SimpleNamespace(weights_digest="1"))}
    monkeypatch.setattr(worker, "_load_models", lambda _: models)
    monkeypatch.setattr(worker, "evaluate_one", lambda *_: "computed")
    for digest, evaluated in (("1", "computed"), ("2", None)):
        context = worker.TaskContext(None, {"net": digest}, str(Path.cwd()), logging.INFO)
        outcome = worker.run_task(context, None, None, 1)
        assert outcome.evaluated == evaluated
        assert ("expected the same weights of net" in outcome.error) is (evaluated is None)


def test_all_libraries_compute_with_the_threads_of_the_task(worker):
    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        with worker._threads(2):
            assert (torch.get_num_threads(), cv2.getNumThreads()) == (2, 2)
            pools = {pool["num_threads"] for pool in threadpoolctl.threadpool_info()}
            assert max(pools) == 2
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


def test_tensors_of_a_result_travel_in_the_memory_of_the_host(ray, worker, monkeypatch):
    """The driver may have no GPU; the arrays that Ray returns cannot be written to."""
    found = {}

    def register(kind, *, serializer, deserializer):
        found[kind] = serializer, deserializer

    monkeypatch.setattr(ray.util, "register_serializer", register)
    monkeypatch.setattr(worker, "_load_models", lambda _: {})
    monkeypatch.setattr(worker, "evaluate_one", lambda *_: "computed")
    context = worker.TaskContext(None, {}, str(Path.cwd()), logging.INFO)
    assert worker.run_task(context, None, None, 1).evaluated == "computed"
    serialize, deserialize = found[torch.Tensor]
    array = serialize(torch.ones(2, 3, dtype=torch.float64, requires_grad=True))
    np.testing.assert_array_equal(array, np.ones((2, 3)), strict=True)
    array.flags.writeable = False
    tensor = deserialize(array)
    tensor += 1
    assert (tensor.dtype, tensor.tolist()) == (torch.float64, [[2.0] * 3] * 2)
    assert (array == 1).all()


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (MemoryError(), "out of memory"),
        (RuntimeError("[enforce fail at alloc.cpp] cannot allocate memory"), "memory"),
        (UsageError("expected b"), "expected b"),
    ],
)
def test_errors_that_a_user_can_fix_are_returned_by_a_task(
    worker, monkeypatch, tmp_path, error, text
):
    def fail(*_):
        raise error

    monkeypatch.setattr(worker, "_load_models", fail)
    context = worker.TaskContext(None, {}, str(Path.cwd()), logging.INFO)
    outcome = worker.run_task(context, None, None, 1)
    assert outcome.evaluated is None
    assert text in outcome.error


def test_an_error_of_the_program_ends_a_task(worker, monkeypatch):
    def fail(*_):
        raise RuntimeError("a mistake")

    monkeypatch.setattr(worker, "_load_models", fail)
    context = worker.TaskContext(None, {}, str(Path.cwd()), logging.INFO)
    with pytest.raises(RuntimeError, match="a mistake"):
        worker.run_task(context, None, None, 1)


def stream(demand: Demand, options: EvaluateOptions, *, uses_gpu: bool) -> list:
    tasks = [(Category("cap", (), (), has_masks=False), options)]
    expected = Expected({}, "", [], {}, uses_gpu)
    return list(sweep._stream(options, {}, tasks, [demand], expected))


def test_what_a_task_logs_is_shown_by_the_driver(ray, worker, caplog):
    log, lines = logging.getLogger("datasets.test"), []
    for package in PACKAGES:
        caplog.set_level(logging.DEBUG, package)  # as before, after this test
    with worker._log_lines(lines, logging.INFO):
        log.debug("a detail")
        log.info("%s is", "this")
    log.info("later")
    assert lines == [("datasets.test", logging.INFO, "this is")]
    caplog.clear()
    ray.run = lambda *_: worker.TaskOutcome("computed", "", (*lines, ("utils", 30, "100 % of it")))
    stream(Demand(1, 0.0, 1.0, 1.0), EvaluateOptions(), uses_gpu=False)
    assert caplog.record_tuples == [*lines, ("utils", 30, "100 % of it")]


@pytest.mark.parametrize(("given", "num_workers"), [(-1, 3), (0, 0), (1, 1)])
@pytest.mark.parametrize(("uses_gpu", "device"), [(True, "cuda"), (False, "cpu")])
def test_a_task_gets_what_it_demands(ray, worker, given, num_workers, uses_gpu, device):
    def run(function, shared, category, options, cpus):
        assert (category.name, cpus) == ("cap", 3)
        assert shared.options.device == options.device == device
        assert (options.num_workers, options.memory_budget) == (num_workers, 1.5)
        return worker.TaskOutcome("computed", "", ())

    ray.run = run
    options = EvaluateOptions(num_workers=given)
    assert stream(Demand(3, 0.25, 2.0, 1.5), options, uses_gpu=uses_gpu) == ["computed"]
    demanded = {"num_cpus": 3, "num_gpus": 0.25, "memory": 2 * 10**9}
    assert ray.tasks == [{"max_retries": sweep.MAX_RETRIES, **demanded}]


def test_a_lost_task_is_a_failure_and_a_mistake_of_the_program_is_not(ray):
    def run(*_):
        raise error

    ray.run = run
    error = RayError()
    (found,) = stream(Demand(1, 0.0, 1.0, 1.0), EvaluateOptions(), uses_gpu=False)
    assert isinstance(found, Failure)
    assert "its process ended 4 times (RayError)" in found.error
    error = RayTaskError()
    with pytest.raises(RayTaskError):
        stream(Demand(1, 0.0, 1.0, 1.0), EvaluateOptions(), uses_gpu=False)


def test_a_node_that_does_not_come_back_ends_the_run(ray, worker, monkeypatch):
    """After `WAITING_SECONDS` without a node for a task; the tasks that others compute go on."""
    looks, future = [], Future()
    monkeypatch.setattr(sweep, "POLL_SECONDS", 1 / 64)
    monkeypatch.setattr(sweep, "WAITING_SECONDS", 2 / 64)
    monkeypatch.setattr(sweep, "list_nodes", lambda: looks.append(0) or [])
    monkeypatch.setattr(ray, "_start", lambda *_: SimpleNamespace(future=lambda: future))
    end = threading.Timer(2, future.set_result, [worker.TaskOutcome("computed", "", ())])
    end.start()
    with pytest.raises(UsageError, match="of the Ray cluster with 1 CPUs and 1 GB for cap, found"):
        stream(Demand(1, 0.0, 1.0, 1.0), EvaluateOptions(), uses_gpu=False)
    end.cancel()
    assert len(looks) == 3  # after 0, 1 and 2 sixty-fourths


def test_the_time_without_a_node_begins_anew_with_each_task_that_ends(ray, worker, monkeypatch):
    first, second, waited, done = Future(), Future(), [], []
    futures = iter((first, second))
    monkeypatch.setattr(ray, "_start", lambda *_: SimpleNamespace(future=lambda: next(futures)))
    moments = iter(((), (), (first,), (), (), (second,)))

    def wait(*_):
        ready = next(moments)
        for future in ready:
            future.set_result(worker.TaskOutcome("computed", "", ()))
        return set(ready), ()

    monkeypatch.setattr(sweep, "wait", wait)
    monkeypatch.setattr(sweep, "_check_nodes", lambda _, so_far: waited.append(so_far) or 5.0)
    bar = SimpleNamespace(update=lambda: done.append(len(waited)))
    monkeypatch.setattr(sweep, "show_progress", lambda *_: nullcontext(bar))
    category, options = Category("cap", (), (), has_masks=False), EvaluateOptions()
    demands = [Demand(1, 0.0, 1.0, 1.0)] * 2
    expected = Expected({}, "", [], {}, False)
    found = sweep._stream(options, {}, [(category, options)] * 2, demands, expected)
    assert list(found) == ["computed"] * 2
    assert waited == [0.0, 5.0, 0.0, 5.0]
    assert done == [2, 4]  # a step for each category


@pytest.mark.parametrize(
    ("flags", "device"), [("", "cuda"), (RAY, "cpu"), (f"{RAY} --shards 2", "cuda")]
)
def test_the_driver_of_a_sweep_needs_no_device_of_its_nodes(
    ray, tmp_path, monkeypatch, flags, device
):
    chosen = mock.Mock(side_effect=UsageError("expected nothing more"))
    monkeypatch.setattr(evaluation, "choose_device", chosen)
    make_category(tmp_path / "data")
    words = quick("--path_data", tmp_path / "data", "--device", "cuda", *flags.split())
    assert call(*words, "--path_result", tmp_path / "result") == main.WRONG_USAGE
    chosen.assert_called_once_with(device)


def test_a_finished_run_needs_no_cluster(ray, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    data = make_data(tmp_path / "data")
    flags = f"{RAY} --percentage_coreset 0.05 0.1"
    words = quick("--path_data", data, "--path_result", tmp_path / "result", *flags.split())
    with without_plots():
        assert call(*words) == 0
        ray.init = None
        assert call(*words) == 0
    assert len(ray.tasks) == 1 + 2  # an inspection, and a task for each category
    lines = [text for text in caplog.messages if "AUROC" in text]
    assert len(lines) == 2  # a line for each category
    assert all("10 %" in line for line in lines)
    assert all(line.endswith("(one of 2 rows in results.csv)") for line in lines)


@pytest.mark.parametrize("record", [None, {"state": "running"}])
def test_workers_that_divide_each_category_are_recorded_if_there_is_a_record(
    ray, monkeypatch, caplog, record
):
    caplog.set_level(logging.INFO)
    made = mock.Mock()
    connected = SimpleNamespace(nodes=["a", "b"], describe_nodes=lambda: {"nodes": ["a", "b"]})
    monkeypatch.setattr(cluster, "checked_cluster", lambda *_: nullcontext(connected))
    monkeypatch.setattr("patchcore.distributed.RayEngine", made)
    options = EvaluateOptions(engine="ray", shards=3, task_cpus=2)
    with cluster.fit_engine(options, ["cap"], "cpu", record) as engine:
        assert engine is made.return_value
    made.assert_called_once_with(3, cpus=2)
    engine.check.assert_called_once_with(torch.device("cpu"))
    assert record in (None, {"state": "running", "nodes": ["a", "b"]})
    assert "Ray: nodes: 2;" in caplog.text


def test_nodes_are_recorded_before_a_category_is_computed(ray, tmp_path, monkeypatch):
    @contextmanager
    def fit_engine(options, categories, device, record):
        record["nodes"] = ["a"]
        yield None

    def noted(*arguments):
        seen.append(read_run(tmp_path / "result")["nodes"])
        return evaluate_one(*arguments)

    seen = []
    monkeypatch.setattr(evaluation, "fit_engine", fit_engine)
    monkeypatch.setattr(evaluation, "evaluate_one", noted)
    data, flags = make_data(tmp_path / "data"), f"{RAY} --shards 2 --categories gadget"
    words = quick("--path_data", data, "--path_result", tmp_path / "result", *flags.split())
    with without_plots():
        assert call(*words) == 0
    assert seen == [["a"]]


def test_a_category_that_fails_may_be_left_out(ray, tmp_path, monkeypatch, worker):
    def fail(models, category, options):
        if category.name == "gadget":
            raise UsageError("expected anything else")
        return evaluate_one(models, category, options)

    monkeypatch.setattr(worker, "evaluate_one", fail)
    data, flags = make_data(tmp_path / "data"), f"{RAY} --on_error skip"
    words = quick("--path_data", data, "--path_result", tmp_path / "result", *flags.split())
    with without_plots():
        assert call(*words) == LEFT_OUT
    record = read_run(tmp_path / "result")
    assert (record["state"], list(record["skipped_categories"])) == ("complete", ["gadget"])


def test_a_record_names_the_share_of_a_gpu(caplog):
    caplog.set_level(logging.INFO)
    written = []
    folder = SimpleNamespace(write_run=lambda record: written.append(dict(record)))
    run = SimpleNamespace(record={}, folder=folder)
    for uses_gpu, share in ((True, ", GPU: 0.5"), (False, "")):
        expected = SimpleNamespace(uses_gpu=uses_gpu)
        cluster = SimpleNamespace(describe=dict, expected=expected, nodes=[0])
        sweep._record(run, cluster, [Demand(2, 0.25, 1.0, 1.0), Demand(2, 0.5, 3.0, 1.0)])
        assert f"CPUs: 2 (--task_cpus){share}, memory: up to 3 GB" in caplog.messages[-1]
    assert run.record == {"threads": 2}
    assert written == [{"threads": 2}] * 2


class TestNodes:
    def test_nodes_that_are_alive_are_listed(self, ray):
        (one,) = ray.records
        ray.records += [one | {"Alive": False}, one | {"NodeID": "b", "Resources": {"GPU": 2.0}}]
        assert list_nodes() == [
            Node("a", "10.0.0.7", 4.0, 0.0, 16.0),
            Node("b", "10.0.0.7", 0.0, 2.0, 0.0),
        ]

    @pytest.mark.parametrize(("uses_gpu", "shares"), [(True, [0, 0.001]), (False, [0, 0])])
    def test_each_node_is_inspected_with_its_gpu(self, ray, monkeypatch, uses_gpu, shares):
        monkeypatch.setattr(nodes, "check_report", lambda *_: None)
        ray.run = lambda function, expected: expected.folder
        found = [Node("a", "one", 4.0, 0.0, 1.0), Node("b", "two", 4.0, 1.0, 1.0)]
        reports = nodes.inspect_nodes(found, Expected({}, "folder", [], {}, uses_gpu))
        assert reports == ["folder", "folder"]
        # No other node may answer in the place of the one that is asked.
        assert [task["scheduling_strategy"] for task in ray.tasks] == [("a", False), ("b", False)]
        assert [task["num_gpus"] for task in ray.tasks] == shares
        # Also while other runs use all CPUs; a node that is lost is not asked again.
        assert {(task["num_cpus"], task["max_retries"]) for task in ray.tasks} == {(0, 0)}

    def test_a_node_that_lacks_a_file_ends_the_inspection(self, ray):
        ray.run = lambda *_: Report("host", {}, "does not see a.png", "a CPU")
        with pytest.raises(UsageError, match=r"but node one \(host\) does not see a\.png"):
            nodes.inspect_nodes([Node("a", "one", 4.0, 0.0, 1.0)], Expected({}, "", [], {}, False))

    @pytest.mark.parametrize(
        ("error", "shown"),
        [
            (RayError("Traceback\nno module utils\n"), "RayError: no module utils"),
            (RayError(), "RayError: RayError"),
            (TimeoutError(), "TimeoutError: TimeoutError"),
        ],
    )
    def test_a_node_that_cannot_be_inspected_is_named(self, ray, error, shown):
        def run(*_):
            raise error

        ray.run = run
        found = [Node("a", "10.0.0.7", 4.0, 0.0, 1.0)]
        with pytest.raises(
            UsageError, match=rf"node 10\.0\.0\.7 .*, it cannot \({shown}\): end Ray"
        ):
            nodes.inspect_nodes(found, Expected({}, "", [], {}, False))
