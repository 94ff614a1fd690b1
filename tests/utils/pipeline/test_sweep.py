"""Sweeps on a Ray cluster of two workers: results as without it, whatever happens to a worker."""

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import cv2
import pytest

import main
from tests.support import (
    ROOT,
    call,
    evaluate,
    make_category,
    make_data,
    quick,
    read_run,
    read_table,
    truncate,
)
from tests.test_resume import contents
from utils.errors import LEFT_OUT
from utils.ray_cluster import connected

pytestmark = [
    pytest.mark.ray,
    pytest.mark.skipif(
        importlib.util.find_spec("ray") is None, reason="no Ray (requirements-ray.txt)"
    ),
]
FLAGS = "--percentage_coreset 0.1 0.2 --seed 0 1"
OUTPUTS = "--pictures worst --pictures_limit 1 --explain_top 1 --save_maps"
# One thread, as the tests of this process.
RAY = "--engine ray --task_cpus 1"


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Start Ray once; all runs of this process use it."""
    with connected("", ()):
        yield


@pytest.fixture(scope="module")
def alone(data, tmp_path_factory) -> Path:
    """Return the result folder of a run without Ray."""
    folder = tmp_path_factory.mktemp("alone")
    return evaluate(data, folder / "result", f"{FLAGS} {OUTPUTS} --path_trained {folder}/trained")


def processes(name: str, root: int = 0) -> list[int]:
    """Return the processes with this name that descend from another one, by default this one."""
    parents, found = {}, []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(path.name)] = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            if (path / "cmdline").read_bytes().startswith(name.encode()):
                found.append(int(path.name))
        except OSError:  # it has ended
            continue

    def is_ours(number: int) -> bool:
        parent = parents.get(number, 0)
        return parent == (root or os.getpid()) or (parent > 1 and is_ours(parent))

    return [number for number in found if is_ours(number)]


def kill_first_task(killed: list[int]) -> None:
    """Kill the first worker that computes a category."""
    while not killed:
        for number in processes("ray::run_task")[:1]:
            os.kill(number, signal.SIGKILL)
            killed.append(number)
        time.sleep(0.02)


def listening_elsewhere(numbers: list[int]) -> list[str]:
    """Return the local addresses, but the loopback one, where processes listen."""
    inodes = set()
    for number in numbers:
        for link in Path(f"/proc/{number}/fd").glob("*"):
            try:
                inodes.add(str(link.readlink()))
            except OSError:
                continue
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == "0A" and f"socket:[{inode}]" in inodes:
                address = local.partition(":")[0]
                if not address.endswith("0100007F"):  # 127.0.0.1
                    found.append(address)
    return found


def test_results_are_those_of_one_process_to_the_bit(data, alone, cluster, tmp_path, caplog):
    trained = tmp_path / "trained"
    folder = evaluate(
        data, tmp_path / "result", f"{FLAGS} {OUTPUTS} {RAY} --path_trained {trained}"
    )
    assert contents(folder) == contents(alone)
    models = sorted(trained.rglob("model.safetensors"))
    assert len(models) == 4
    for path in models:
        other = alone.parent / "trained" / path.relative_to(trained)
        assert path.read_bytes() == other.read_bytes()
    record = read_run(folder)
    assert record["threads"] == 1
    assert [node["gpu"] for node in record["nodes"]] == [None]
    lines = [record.getMessage() for record in caplog.records]
    assert sum("one of 4 rows in results.csv" in line for line in lines) == 2


def test_nothing_listens_beyond_this_machine(cluster):
    numbers = [n for name in ("", "ray::") for n in processes(name)]
    assert len(numbers) > 3
    assert listening_elsewhere([os.getpid(), *numbers]) == []


def test_a_killed_worker_changes_nothing(data, alone, cluster, tmp_path):
    killed: list[int] = []
    killer = threading.Thread(target=kill_first_task, args=(killed,))
    killer.start()
    folder = evaluate(data, tmp_path / "result", f"{FLAGS} {OUTPUTS} {RAY}")
    killer.join()
    assert contents(folder) == contents(alone)


def test_workers_divide_a_category(cluster, tmp_path, monkeypatch):
    """They see the same images, by relative paths, and what they notice about files is reported."""
    folder = make_category(tmp_path / "data", "widget")
    page = cv2.imread(str(folder / "train/good/001.png"))
    cv2.imwritemulti(str(folder / "train/good/more.tiff"), [255 - page, page])
    monkeypatch.chdir(tmp_path)
    flags = f"{FLAGS} {OUTPUTS} --batch_size 2 --categories widget"
    alone = evaluate("data", tmp_path / "alone", flags)
    divided = evaluate("data", tmp_path / "divided", f"{flags} {RAY} --shards 2")
    assert contents(divided) == contents(alone)
    records = [read_run(one) for one in (alone, divided)]
    assert records[0]["file_notes"]["widget"]
    assert records[0]["file_notes"] == records[1]["file_notes"]
    assert "in 2 shards" in str(records[1]["memory"])


@pytest.mark.slow
def test_training_divides_too(cluster, tmp_path, monkeypatch, caplog):
    """Without an image that cannot be read: the workers report it, and others start again."""
    folder = make_category(tmp_path, "widget") / "train/good"
    truncate(folder / "002.png")
    monkeypatch.chdir(tmp_path)
    words = [word for word in quick() if word not in ("--pictures", "none")]
    found = []
    for flags in ("", RAY, f"{RAY} --shards 2"):
        trained = tmp_path / f"trained {len(found)}"
        where = ("widget/train/good", "--category", "w", "--path_trained", trained)
        more = f"{flags} --on_error skip --batch_size 2 --seed 1 --keep_copies".split()
        assert call("train", *words, *where, *more) == LEFT_OUT
        found.append([path.read_bytes() for path in trained.rglob("model.safetensors")])
    assert found[0] == found[1] == found[2] != []
    assert caplog.text.count("002.png") >= 3


@pytest.mark.slow  # starts Ray once more: 13 s
def test_damaged_data_fail_once_and_the_others_go_on(cluster, tmp_path, capsys, caplog):
    data, folder = make_data(tmp_path / "data"), tmp_path / "result"
    image = truncate(data / "gadget/train/good/000.png")
    flags = quick("--path_data", data, "--path_result", folder, *RAY.split())
    assert call(*map(str, flags)) == main.WRONG_USAGE
    lines = capsys.readouterr().err.splitlines()
    (error,) = [line for line in lines if line.startswith("error: ")]
    assert error.startswith("error: 1 of 2 categories could not be evaluated")
    assert str(image) in error
    assert caplog.text.count("RANDOM WEIGHTS") == 1  # not again from each worker
    assert [row["category"] for row in read_table(folder)] == ["widget"]
    assert read_run(folder)["state"].startswith("stopped: 1 of 2")
    image.unlink()
    make_category(data, "gadget", seed=1)
    caplog.clear()
    evaluate(data, folder, RAY)
    assert "widget: finished by an earlier run" in caplog.text
    assert [row["category"] for row in read_table(folder)] == ["gadget", "widget"]


def start_node(*flags: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", *flags, "--num-cpus=1"]
    return subprocess.Popen(
        [*command, "--block"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


@pytest.fixture
def two_nodes(monkeypatch):
    """Start a cluster of two nodes on this machine; return its address and the second node."""
    with socket.socket() as free:
        free.bind(("127.0.0.3", 0))
        port = free.getsockname()[1]
    address, folder = f"127.0.0.3:{port}", Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    monkeypatch.setenv("RAY_TMPDIR", str(folder))
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 32)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.delenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", raising=False)
    head = start_node(
        "--head", "--node-ip-address=127.0.0.3", f"--port={port}", "--include-dashboard=false"
    )
    while head.poll() is None:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.3", port), 1).close()
            break
        time.sleep(0.2)
    second = start_node(f"--address={address}", "--node-ip-address=127.0.0.2")
    # Its name as a process appears once its parts have started.
    while second.poll() is None and not processes("ray::", second.pid):
        time.sleep(0.2)
    yield address, second
    for node in (second, head):
        kill(node)
    shutil.rmtree(folder, ignore_errors=True)


def kill(node: subprocess.Popen) -> None:
    for number in (*processes("", node.pid), node.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)
    node.wait()


@pytest.mark.slow
def test_a_lost_node_changes_nothing(two_nodes, tmp_path):
    """Its task runs again on the other node, which gets the code of this checkout."""
    address, second = two_nodes
    data, folder = make_data(tmp_path / "data"), tmp_path / "result"
    for number, name in enumerate(("bolt", "nut")):
        make_category(data, name, seed=10 + number)
    alone = evaluate(data, tmp_path / "alone", FLAGS, plots=True)
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "utils").mkdir(parents=True)
    (elsewhere / "utils/__init__.py").touch()  # a package of the same name as one of ours
    arguments = quick("--path_data", "../data", "--path_result", str(folder), *FLAGS.split())
    command = [sys.executable, str(ROOT / "main.py"), *arguments, *RAY.split()]
    run = subprocess.Popen([*command, "--address", address], cwd=elsewhere)
    while not (found := processes("ray::run_task", second.pid)) and run.poll() is None:
        time.sleep(0.02)
    kill(second)
    assert run.wait(timeout=400) == 0
    assert found
    assert len(read_run(folder)["nodes"]) == 2
    assert contents(folder) == contents(alone)
