"""Ray that is missing, or does not answer, is one error, and at once."""

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
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


def test_the_largest_port_and_a_host_in_brackets(monkeypatch):
    create_connection = mock.Mock(side_effect=TimeoutError("timed out"))
    monkeypatch.setattr(socket, "create_connection", create_connection)
    with pytest.raises(UsageError, match=r"found none \(timed out\)"):
        connect("[::1]:65535")
    assert create_connection.call_args.args[0] == ("::1", 65_535)


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
        assert seen[1].is_dir()  # its processes write there until they end
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


class TestThisMachine:
    @pytest.fixture
    def given(self, ray, monkeypatch):
        """Return the arguments that Ray gets."""
        given = {}

        def init(**arguments):
            given.update(arguments)
            ray.is_running = True

        monkeypatch.setattr(ray, "init", init)
        with mock.patch.dict(os.environ):
            for name in ray_cluster.LOOPBACK:
                os.environ.pop(name, None)
            yield given

    def test_nobody_else_can_use_what_is_started(self, given):
        with connected("", ()):
            assert given["address"] == "local"
            assert given["include_dashboard"] is False
            assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
            assert os.environ["RAY_AUTH_MODE"] == "token"
            assert len(os.environ["RAY_AUTH_TOKEN"]) >= 32
            assert os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == "0"

    def test_its_folder_is_in_that_for_temporary_files_unless_paths_become_too_long(
        self, given, monkeypatch, tmp_path
    ):
        """The path of a socket has at most 107 characters, on each system."""
        long = tmp_path / ("long" * 10)
        long.mkdir()
        with tempfile.TemporaryDirectory(dir="/tmp") as short:
            for parent, expected in ((short, short), (str(long), "/tmp")):
                monkeypatch.setattr(tempfile, "tempdir", parent)
                with connected("", ()):
                    assert Path(given["_temp_dir"]).parent == Path(expected)

    def test_its_folder_is_removed_though_a_process_still_writes(self, given, monkeypatch):
        """A removal fails where a file appears meanwhile; a later one succeeds."""
        calls, rmtree = [], shutil.rmtree

        def interfere(folder, *, ignore_errors):
            calls.append(folder)
            if len(calls) > 2:
                rmtree(folder)
            elif not ignore_errors:
                raise OSError("Directory not empty")

        monkeypatch.setattr(shutil, "rmtree", interfere)
        with connected("", ()):
            folder = Path(given["_temp_dir"])
        assert calls == [folder] * 3
        assert not folder.exists()


class TestRunningCluster:
    @pytest.fixture
    def trial(self, tmp_path):
        """Return a module that stands for Ray in the process that tries to connect."""
        with mock.patch.dict(os.environ, PYTHONPATH=str(tmp_path)):
            for name in ray_cluster.LOOPBACK:
                os.environ.pop(name, None)
            yield tmp_path / "ray.py"

    @pytest.fixture
    def listening(self):
        with socket.socket() as server:
            server.bind(("127.0.0.1", 0))
            server.listen()
            yield f"127.0.0.1:{server.getsockname()[1]}"

    @pytest.mark.parametrize("is_auto", [True, False])
    def test_it_is_used_for_the_length_of_a_block(
        self, ray, trial, listening, tmp_path, monkeypatch, is_auto
    ):
        address, given = "auto" if is_auto else listening, {}

        def init(**arguments):
            given.update(arguments)
            ray.is_running = True

        monkeypatch.setattr(ray, "init", init)
        monkeypatch.setenv("OPENCV_LOG_LEVEL", "E")
        monkeypatch.delenv("THP_MEM_ALLOC_ENABLE", raising=False)
        trial.write_text(f"def init(*, address, **_): assert address == {address!r}")
        with connected(address, (ROOT / "utils",)):
            assert ray.is_running
            assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
            assert not ray_cluster.LOOPBACK.keys() & os.environ.keys()  # as the cluster has it
        assert not ray.is_running
        assert given["address"] == address
        environment = {"OPENCV_LOG_LEVEL": "E"}  # what main.py sets, where it is set
        packages = [str(ROOT / "utils")]
        assert given["runtime_env"] == {"py_modules": packages, "env_vars": environment}
        # The output has lines of this program alone.
        assert given["log_to_driver"] is given["configure_logging"] is False

    @pytest.mark.parametrize(
        ("code", "seconds", "reason"),
        [
            (
                "raise ConnectionError('other version')",
                60,
                "cannot connect (ConnectionError: other version)",
            ),
            ("raise SystemExit(3)", 60, "cannot connect (exit status 3)"),
            ("import time; time.sleep(60)", 0.01, "found no answer of Ray within 0 s"),
        ],
    )
    def test_what_does_not_accept_this_program_is_one_error(
        self, ray, trial, listening, monkeypatch, code, seconds, reason
    ):
        monkeypatch.setattr(ray_cluster, "ANSWER_SECONDS", seconds)
        trial.write_text(f"def init(**_): {code}")
        with pytest.raises(UsageError, match=r"^expected a Ray cluster at 127") as caught:
            connect(listening)
        assert f"(--address), {reason}: start one with ray start --head" in str(caught.value)
        assert not ray.is_running


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
