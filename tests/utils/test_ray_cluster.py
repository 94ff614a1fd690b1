"""Ray that is missing, or does not answer, is one error, and at once."""

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest

import main
from tests.support import ROOT, call, make_data, quick
from utils import ray_cluster
from utils.errors import UsageError
from utils.ray_cluster import connected

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="no Ray (requirements-ray.txt)"
)


def connect(address: str) -> None:
    with connected(address, ()):
        pytest.fail("connected")


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "cluster:", ":6379", "cluster:port", "cluster:65536", f"cluster:{'1' * 5000}"],
)
def test_no_address(address):
    with pytest.raises(UsageError, match=r"expected auto or HOST:PORT, found .* \(--address\)$"):
        connect(address)


def test_nothing_listens():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        message = r"a Ray cluster at 127.*found none \([^[]*refused\): start one with"
        with pytest.raises(UsageError, match=message):
            connect(address)


def test_a_host_that_does_not_answer(monkeypatch):
    def create_connection(*arguments):
        raise TimeoutError("timed out")

    monkeypatch.setattr(socket, "create_connection", create_connection)
    with pytest.raises(UsageError, match=r"found none \(timed out\): start one with"):
        connect("10.0.0.1:6379")


def test_a_host_that_cannot_be_a_name():
    with pytest.raises(UsageError, match=r"at cluster\.\.local:6379 \(--address\), found none \("):
        connect("cluster..local:6379")


@pytest.mark.parametrize(
    ("text", "shown"), [("no memory\nmore", "no memory"), ("", "RuntimeError")]
)
def test_ray_that_does_not_start_is_one_line(monkeypatch, text, shown):
    fail = mock.Mock(side_effect=RuntimeError(text))
    ray = SimpleNamespace(init=fail, is_initialized=lambda: False)
    monkeypatch.setitem(sys.modules, "ray", ray)
    with pytest.raises(UsageError, match=f"^cannot start Ray on this machine: {shown}$"):
        connect("")


@pytest.mark.parametrize("error", [None, RuntimeError("no memory")])
def test_a_run_keeps_its_folder_and_its_signals(ray, monkeypatch, tmp_path, error):
    """Ray starts in the folder of the program, and has reactions to signals of its own."""
    seen, before = [], signal.getsignal(signal.SIGTERM)

    def init(**arguments):
        seen.extend([Path.cwd(), Path(arguments["_temp_dir"])])
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if error:
            raise error
        ray.is_running = True

    def shutdown():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        ray.is_running = False

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", shutdown)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) if error else nullcontext(), connected("", ()):
        assert ray.is_running
        assert Path.cwd() == tmp_path
        assert signal.getsignal(signal.SIGTERM) == before
        assert seen[1].is_dir()
        with connected("", ()):  # a part of the run uses the same cluster
            pass
        assert ray.is_running
    assert not ray.is_running
    assert seen[0] == ROOT
    assert not seen[1].exists()
    assert Path.cwd() == tmp_path
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.fixture
def answers(monkeypatch):
    """Let every port accept connections; return what was asked, and how Ray answers a trial."""
    found = SimpleNamespace(ports=[], trials=[], status=0, error="")

    def create_connection(place, _):
        found.ports.append(place)
        return SimpleNamespace(close=lambda: None)

    def run(command, **_):
        found.trials.append(command[-1])
        return SimpleNamespace(returncode=found.status, stderr=found.error)

    monkeypatch.setattr(socket, "create_connection", create_connection)
    monkeypatch.setattr(subprocess, "run", run)
    return found


@pytest.mark.parametrize(
    ("address", "ports"),
    [("auto", []), ("cluster:65535", [("cluster", 65535)]), ("[::1]:6379", [("::1", 6379)])],
)
def test_a_running_cluster_gets_the_packages_and_is_left(ray, monkeypatch, answers, address, ports):
    started = []

    def init(**arguments):
        started.append(arguments)
        ray.is_running = True

    monkeypatch.setattr(ray, "init", init)
    with mock.patch.dict(os.environ, {"OPENCV_LOG_LEVEL": "SILENT"}):
        for name in ("THP_MEM_ALLOC_ENABLE", *ray_cluster.LOOPBACK):
            os.environ.pop(name, None)
        with connected(address, (Path("a"), Path("b"))):
            assert ray.is_running
            # Only nodes that are started here have the loopback address.
            assert not ray_cluster.LOOPBACK.keys() & os.environ.keys()
    assert not ray.is_running
    (given,) = started
    assert given["address"] == address
    assert given["runtime_env"] == {
        "py_modules": ["a", "b"],
        "env_vars": {"OPENCV_LOG_LEVEL": "SILENT"},
    }
    assert (answers.ports, answers.trials) == (ports, [address])


@pytest.mark.parametrize(
    ("error", "shown"),
    [("Traceback\nof another version\n", "of another version"), ("", "exit status 3")],
)
def test_a_cluster_that_refuses_is_one_line(answers, error, shown):
    answers.status, answers.error = 3, error
    message = rf"at cluster:6379 \(--address\), cannot connect \({shown}\): start one with"
    with pytest.raises(UsageError, match=message):
        connect("cluster:6379")


def test_a_cluster_that_does_not_answer_in_time(answers, monkeypatch):
    late = mock.Mock(side_effect=subprocess.TimeoutExpired("ray", 60))
    monkeypatch.setattr(subprocess, "run", late)
    message = r"at auto \(--address\), found no answer of Ray within 60 s"
    with pytest.raises(UsageError, match=message):
        connect("auto")


@pytest.mark.ray
@needs_ray
def test_something_else_listens(monkeypatch):
    monkeypatch.setattr(ray_cluster, "ANSWER_SECONDS", 1.0)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(UsageError, match="found no answer of Ray within 1 s"):
            connect(f"127.0.0.1:{other.getsockname()[1]}")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--engine ray", "pip install -r requirements-ray.txt"),
        ("--engine ray --device cuda:1", "expected --device auto, cpu, cuda with --engine ray"),
        ("--engine ray --address ray://a:1", "expected auto or HOST:PORT, found 'ray://a:1'"),
        ("--address auto", "expected --address only with --engine ray"),
        ("--task_cpus 2", "expected --task_cpus only with --engine ray"),
    ],
)
def test_flags_are_checked_before_anything_else(monkeypatch, tmp_path, capsys, flags, message):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert call(*quick("--path_data", str(tmp_path), *flags.split())) == main.WRONG_USAGE
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.ray
@pytest.mark.slow
@needs_ray
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_all_processes(tmp_path, number):
    """Within 5 seconds on a quiet machine; also the folder of Ray is removed."""
    data, temporary = make_data(tmp_path / "data"), Path("/tmp") / f"patchcore-{os.getpid()}"
    temporary.mkdir()
    arguments = quick("--path_data", str(data), "--engine", "ray", "--seed", *map(str, range(300)))
    heed = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code = f"import runpy, sys; sys.argv[0] = {str(ROOT / 'main.py')!r}\n"
    code += f"runpy.run_path({str(ROOT / 'main.py')!r}, run_name='__main__')"
    process = subprocess.Popen(
        [sys.executable, "-c", heed + code, *arguments, "--path_result", str(tmp_path / "result")],
        env=os.environ | {"TMPDIR": str(temporary), "PYTHONPATH": _path(), "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        while not _named(str(temporary), "ray::run_task") and process.poll() is None:
            time.sleep(0.1)
        time.sleep(3)
        start = time.monotonic()
        process.send_signal(number)
        error = process.communicate(timeout=60)[1]
        assert time.monotonic() - start < 5 * max(1.0, os.getloadavg()[0] / os.cpu_count())
        assert process.returncode == 128 + number, error
        time.sleep(2)
        assert _named(str(temporary), "") == []
        assert list(temporary.glob("ray-*")) == []
    finally:
        process.kill()
        shutil.rmtree(temporary)


def _path() -> str:
    return os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))


def _named(folder: str, title: str) -> list[int]:
    """Return the processes with this title that have a folder in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            environment = (path / "environ").read_bytes()
            is_named = (path / "cmdline").read_bytes().startswith(title.encode())
        except OSError:
            continue
        if is_named and f"TMPDIR={folder}".encode() in environment:
            found.append(int(path.name))
    return found
