"""What a sweep asks of Ray, and what it makes of the answers: tested without Ray."""

import logging
import sys
import threading
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace

import pytest

import main
from datasets.base import Category
from tests.support import call, make_data, quick, read_run, read_table, truncate, without_plots
from tests.test_resume import contents
from tests.utils.ray_tasks import RayError, RayTaskError
from utils.errors import LEFT_OUT, UsageError
from utils.logs import PACKAGES
from utils.options.evaluate import EvaluateOptions
from utils.pipeline import nodes, sweep
from utils.pipeline.demand import Demand
from utils.pipeline.nodes import Expected, Node, list_nodes
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
    data = make_data(tmp_path / "data")
    truncate(data / "widget/train/good/003.png")
    flags = "--on_error skip --categories widget"
    warnings = []
    for name, more in (("alone", ""), ("ray", RAY)):
        caplog.clear()
        words = quick("--path_data", data, "--path_result", tmp_path / name, *flags.split())
        with without_plots():
            assert call(*words, *more.split()) == LEFT_OUT
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


def test_a_node_with_other_weights_computes_nothing(worker, monkeypatch):
    models = {"net": SimpleNamespace(backbone=SimpleNamespace(weights_digest="1"))}
    monkeypatch.setattr(worker, "_load_models", lambda _: models)
    monkeypatch.setattr(worker, "evaluate_one", lambda *_: "computed")
    for digest, evaluated, error in (
        ("1", "computed", ""),
        ("2", None, "expected the same weights of net on all nodes, found others"),
    ):
        context = worker.TaskContext(None, {"net": digest}, str(Path.cwd()), logging.INFO)
        outcome = worker.run_task(context, None, None, 1)
        assert outcome.evaluated == evaluated
        assert outcome.error.startswith(error)
        assert bool(outcome.error) == bool(error)


def test_without_tasks_no_cluster_is_needed():
    assert list(sweep.sweep(None, {}, [])) == []


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
    assert ray.tasks == [{"num_cpus": 3, "num_gpus": 0.25, "memory": 2 * 10**9}]


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


def test_a_record_names_the_share_of_a_gpu(caplog):
    caplog.set_level(logging.INFO)
    written = []
    run = SimpleNamespace(record={}, folder=SimpleNamespace(write_run=written.append))
    for uses_gpu, share in ((True, ", GPU: 0.5"), (False, "")):
        expected = SimpleNamespace(uses_gpu=uses_gpu)
        cluster = SimpleNamespace(describe=dict, expected=expected, nodes=[0])
        sweep._record(run, cluster, [Demand(2, 0.25, 1.0, 1.0), Demand(2, 0.5, 3.0, 1.0)])
        assert f"CPUs: 2 (--task_cpus){share}, memory: up to 3 GB" in caplog.messages[-1]
    assert run.record == {"threads": 2}
    assert written == [run.record] * 2


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
        checked = []
        monkeypatch.setattr(nodes, "check_report", lambda *report: checked.append(report))
        ray.run = lambda function, expected: expected.folder
        found = [Node("a", "one", 4.0, 0.0, 1.0), Node("b", "two", 4.0, 1.0, 1.0)]
        expected = Expected({}, "folder", [], {}, uses_gpu)
        reports = nodes.inspect_nodes(found, expected)
        assert reports == ["folder", "folder"]
        assert checked == [(node, "folder", expected) for node in found]
        # No other node may answer in the place of the one that is asked.
        assert [task["scheduling_strategy"] for task in ray.tasks] == [("a", False), ("b", False)]
        assert [task["num_gpus"] for task in ray.tasks] == shares

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
