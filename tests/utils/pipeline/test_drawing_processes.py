"""Processes that draw in the background: what they draw, how they start, and how they end."""

import contextlib
import errno
import functools
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest

from tests.support import ROOT
from utils.errors import UsageError
from utils.pipeline import drawing as drawing_module
from utils.pipeline.drawing import Drawing
from utils.result_folder import ResultFolder


@dataclass(frozen=True)
class Figure:
    """Writes which process drew it.

    Attributes:
        name: The name of the file.
        kill_others_than: Any other process than this one dies; 0 for none.
        seconds: The time that drawing takes.
    """

    name: str
    kill_others_than: int = 0
    seconds: float = 0.0

    def draw(self, folder: ResultFolder) -> None:
        if self.kill_others_than not in (0, os.getpid()):
            os._exit(1)
        time.sleep(self.seconds)
        folder.write_text(self.name, str(os.getpid()))


def drawn_by(folder: Path) -> dict[str, int]:
    """Return the process that drew each figure."""
    drawn = folder.glob("[!.]*")
    return {path.name: int(path.read_text()) for path in drawn}


@pytest.fixture(autouse=True)
def _few_images(monkeypatch, caplog):
    """Draw in the background from the first image on; note warnings alone."""
    caplog.set_level(logging.WARNING, "utils")
    monkeypatch.setattr(drawing_module, "FEW_IMAGES", 1)


@pytest.fixture
def threads(monkeypatch):
    """Replace the processes of the pool by threads, which start at once; return their pools."""
    pools = []

    def make_pool(count: int, **_) -> ThreadPoolExecutor:
        pools.append(ThreadPoolExecutor(count))
        return pools[-1]

    monkeypatch.setattr(drawing_module, "ProcessPoolExecutor", make_pool)
    return pools


def test_without_workers_the_callers_thread_draws_everything(tmp_path):
    drawn_by_threads = []

    def make(index: int) -> Figure:
        drawn_by_threads.append(threading.get_ident())
        return Figure(str(index))

    with Drawing(ResultFolder(tmp_path), 0) as drawing:
        drawing.draw(make, 3, "a")
        assert len(drawn_by(tmp_path)) == 3
    assert set(drawn_by_threads) == {threading.get_ident()}


def test_processes_have_started_before_the_caller_goes_on_and_end_with_the_drawing(
    tmp_path, monkeypatch, threads
):
    """Their imports would take time of what is measured next."""
    started = []

    def start():
        time.sleep(0.05)
        started.append(0)

    monkeypatch.setattr(drawing_module, "os", SimpleNamespace(getpid=start))
    with Drawing(ResultFolder(tmp_path), 2) as drawing:
        drawing.draw(lambda n: SimpleNamespace(draw=lambda _: None), 1, "a")
        assert len(started) == 2
    (pool,) = threads
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(start)


def test_a_process_that_dies_is_reported_once_and_the_run_goes_on(tmp_path, caplog):
    here = os.getpid()
    with Drawing(ResultFolder(tmp_path), 1) as drawing:
        drawing.draw(lambda n: Figure(f"a{n}", kill_others_than=here if n == 3 else 0), 6, "a")
        drawing.wait()
        (warning,) = caplog.records
        assert warning.levelname == "WARNING"
        assert "ended unexpectedly" in warning.message
        assert "\n" not in warning.message
        assert drawn_by(tmp_path).keys() == {f"a{n}" for n in range(6)}
        assert drawn_by(tmp_path)["a0"] != here
        assert drawn_by(tmp_path)["a3"] == here
        drawing.draw(lambda n: Figure("b"), 1, "b")  # by a new process
    assert drawn_by(tmp_path)["b"] != here
    assert len(caplog.records) == 1


@pytest.mark.usefixtures("threads")
@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="no masks of signals")
def test_an_interruption_is_heeded_again_once_the_processes_have_started(tmp_path, monkeypatch):
    def blocked():
        return signal.pthread_sigmask(signal.SIG_BLOCK, set())

    make, seen, before = drawing_module.ProcessPoolExecutor, [], blocked()

    def make_pool(*arguments, **options):
        seen.append(blocked() - before)
        return make(*arguments, **options)

    monkeypatch.setattr(drawing_module, "ProcessPoolExecutor", make_pool)
    try:
        with Drawing(ResultFolder(tmp_path), 1) as drawing:
            drawing.draw(lambda n: Figure(f"a{n}"), 1, "a")
        assert seen == [{signal.SIGINT, signal.SIGHUP}]
        assert blocked() == before
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_what_several_threads_notice_of_a_broken_pool_is_reported_once(tmp_path, caplog):
    with Drawing(ResultFolder(tmp_path), 1) as drawing:
        broken, new = SimpleNamespace(), SimpleNamespace(shutdown=lambda: None)
        drawing._pool = broken
        drawing._report_dead_workers(broken)
        assert drawing._pool is None
        drawing._pool = new
        drawing._report_dead_workers(broken)  # by a thread that waited for the same pool
        assert drawing._pool is new
    assert len(caplog.records) == 1


def test_processes_that_cannot_start_leave_the_drawing_to_the_main_process(
    tmp_path, caplog, monkeypatch
):
    monkeypatch.setattr(drawing_module, "_set_up_worker", functools.partial(os._exit, 1))
    with Drawing(ResultFolder(tmp_path), 1) as drawing:
        drawing.draw(lambda n: Figure(str(n)), 2, "a")
    assert drawn_by(tmp_path) == {"0": os.getpid(), "1": os.getpid()}
    warnings = [r for r in caplog.records if r.name == drawing_module.__name__]
    assert [warning.levelname for warning in warnings] == ["WARNING"]


@pytest.mark.parametrize(
    ("number", "method"),
    [(errno.ENOSPC, "__init__"), (errno.EMFILE, "__init__"), (errno.EAGAIN, "submit")],
)
def test_without_room_for_processes_the_main_process_draws(
    tmp_path, caplog, monkeypatch, number, method
):
    """As with a full /dev/shm, too few file descriptors, and a limit of processes."""

    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(drawing_module.ProcessPoolExecutor, method, fail)
    with Drawing(ResultFolder(tmp_path), 2) as drawing:
        for name in "ab":
            drawing.draw(lambda n, name=name: Figure(f"{name}{n}"), 2, name)
    assert drawn_by(tmp_path) == dict.fromkeys(("a0", "a1", "b0", "b1"), os.getpid())
    messages = [r.getMessage() for r in caplog.records if r.name == drawing_module.__name__]
    assert len(messages) == 1
    assert f"cannot start ({os.strerror(number)}): the main process draws them" in messages[0]


@pytest.mark.usefixtures("threads")
def test_arrays_of_only_a_few_images_are_gathered_at_a_time(tmp_path):
    num_processes, made, held = 2, [], []

    def make(index: int) -> Figure:
        made.append(index)
        held.append(len(made) - len(drawn_by(tmp_path)))
        return Figure(f"{index:02d}", seconds=0.01)

    with Drawing(ResultFolder(tmp_path), num_processes) as drawing:
        drawing.draw(make, 30, "a")
    assert len(drawn_by(tmp_path)) == len(made) == 30
    assert max(held) <= 2 * num_processes


@pytest.mark.usefixtures("threads")
def test_the_caller_goes_on_while_images_are_drawn_until_it_waits(tmp_path):
    with Drawing(ResultFolder(tmp_path), 1) as drawing:
        drawing.draw(lambda n: Figure(f"a{n}", seconds=0.1), 4, "a")
        drawing.draw(lambda n: Figure(f"b{n}"), 4, "b")
        assert len(drawn_by(tmp_path)) < 4
        drawing.wait()
        assert len(drawn_by(tmp_path)) == 8


@pytest.mark.usefixtures("threads")
def test_the_bar_counts_what_is_left_to_draw(tmp_path, monkeypatch):
    bars = []

    @contextlib.contextmanager
    def show(total, text, unit):
        bars.append(SimpleNamespace(total=total, text=text, n=0))
        bars[-1].update = lambda count: setattr(bars[-1], "n", bars[-1].n + count)
        yield bars[-1]

    monkeypatch.setattr(drawing_module, "show_progress", show)
    with Drawing(ResultFolder(tmp_path), 1) as drawing:
        for name in "ab":
            drawing.draw(lambda n, name=name: Figure(f"{name}{n}", seconds=0.15), 3, name)
            drawing.wait()
    assert [(bar.total, bar.text) for bar in bars] == [(3, "draw"), (3, "draw"), (0, "draw")]
    assert all(0 <= bar.n <= bar.total for bar in bars)
    assert bars[0].n > 0


@pytest.mark.usefixtures("threads")
def test_an_interruption_ends_the_drawing(tmp_path):
    def interrupt_while_drawing():
        with Drawing(ResultFolder(tmp_path), 1) as drawing:
            drawing.draw(lambda n: Figure(f"a{n}", seconds=0.05), 1000, "a")
            drawing.draw(lambda n: Figure(f"b{n}", seconds=0.05), 1000, "b")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupt_while_drawing()
    assert len(drawn_by(tmp_path)) < 20
    assert not list(tmp_path.glob("b*"))  # what has not begun does not begin


@pytest.mark.usefixtures("threads")
def test_an_interruption_ends_the_processes_of_the_pool_and_no_others(tmp_path, monkeypatch):
    """A process of the caller's may be anything, such as a worker of another library."""
    running = [other := mock.Mock()]
    monkeypatch.setattr(drawing_module.multiprocessing, "active_children", lambda: list(running))

    def interrupt_while_drawing():
        with Drawing(ResultFolder(tmp_path), 1) as drawing:
            drawing.draw(lambda n: Figure(f"a{n}"), 1, "a")
            running.append(mock.Mock())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupt_while_drawing()
    other.terminate.assert_not_called()
    running[1].terminate.assert_called_once()


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_figure_that_cannot_be_written_is_reported(tmp_path, num_workers):
    (tmp_path / "file").write_text("0")  # where a folder would have to be

    def draw():
        with Drawing(ResultFolder(tmp_path), num_workers) as drawing:
            drawing.draw(lambda n: Figure("file/a"), 3, "a")
            drawing.draw(lambda n: Figure(f"b{n}", seconds=0.05), 1000, "b")
            drawing.wait()

    with pytest.raises(UsageError, match=r"cannot write .*file/a: .*--path_result"):
        draw()
    assert len(drawn_by(tmp_path)) < 20


@pytest.mark.usefixtures("threads")
def test_nothing_follows_figures_of_which_one_cannot_be_written(tmp_path):
    """What `then` calls would record the category as finished."""
    (tmp_path / "file").write_text("0")  # where a folder would have to be
    done = []

    def draw():
        with Drawing(ResultFolder(tmp_path), 1) as drawing:
            drawing.draw(lambda n: Figure(f"a{n}"), 3, "a")
            drawing.then(lambda: done.append("a"))
            drawing.draw(lambda n: Figure("file/b"), 3, "b")
            drawing.then(lambda: done.append("b"))
            drawing.wait()

    with pytest.raises(UsageError, match="cannot write"):
        draw()
    assert done == ["a"]


@pytest.mark.usefixtures("threads")
def test_the_error_that_ends_a_run_is_not_replaced(tmp_path):
    (tmp_path / "file").write_text("0")  # where a folder would have to be

    def stop_while_drawing():
        with Drawing(ResultFolder(tmp_path), 1) as drawing:
            drawing.draw(lambda n: Figure("file/a"), 3, "a")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        stop_while_drawing()


PARENT = """
import multiprocessing, os, signal, sys, time
from pathlib import Path
import cv2
from utils.pipeline.drawing import Drawing
from utils.result_folder import ResultFolder

if __name__ == "__main__":
    drawing = Drawing(ResultFolder(Path(sys.argv[1])), 1)
    drawing._start_pool()
    calls = ((os.getpid,), (os.nice, 0), (cv2.getNumThreads,), (signal.getsignal, signal.SIGINT))
    for function, *arguments in calls:
        print(int(drawing._pool.submit(function, *arguments).result()), flush=True)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    os.killpg(0, signal.SIGHUP)  # as a terminal that is closed
    time.sleep(0.2)
    multiprocessing.Lock()  # warns if the tracker of resources has ended
    drawing._pool.submit(os.getpid).result()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_processes_stay_in_the_background_and_end_with_a_killed_parent(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    output = tmp_path / "output.txt"
    with output.open("w") as file:  # a pipe would stay open as long as the process of the pool
        parent = subprocess.run(
            [sys.executable, script, tmp_path],
            stdout=file,
            stderr=file,
            check=False,
            start_new_session=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
    assert parent.returncode == -signal.SIGKILL, output.read_text()
    pid, niceness, num_threads, on_interrupt = map(int, output.read_text().split())
    assert on_interrupt == signal.SIG_IGN  # Ctrl-C reaches all processes of a terminal
    assert niceness == drawing_module.NICENESS
    assert num_threads == 1
    deadline = time.monotonic() + 10
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    if is_running(pid):
        os.kill(pid, signal.SIGKILL)
        pytest.fail("the process of the pool outlived its parent")


def is_running(pid: int) -> bool:
    """Return whether a process exists and has not ended; a container may not reap it then."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"
