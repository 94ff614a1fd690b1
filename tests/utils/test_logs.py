"""What is said: on the terminal as much as is wanted, in run.log everything, each warning once."""

import logging
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils import logs
from utils.errors import UsageError
from utils.logs import FileFormatter, LogFile, RunLog, command_log, is_quiet
from utils.options.log import terminal_level
from utils.progress import show_progress

log = logging.getLogger("utils.test")
LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4} (DEBUG|INFO|WARNING|ERROR) +\S.*")


@pytest.fixture
def terminal(capsys):
    """Return what a command has written to the terminal."""
    return lambda: capsys.readouterr().err


@contextmanager
def command(level: int = logging.INFO) -> Iterator[None]:
    """Set up the messages of a command as without pytest, which has handlers of its own."""
    with mock.patch.object(logging.root, "handlers", []):
        with command_log(level):
            yield
        assert logging.root.handlers == []


def end_by(function, folder):
    with RunLog(folder) as run_log:
        run_log.begin()
        function()


def say_all():
    log.debug("a decision")
    log.info("a step")
    log.warning("a fault in %s", "x")
    log.warning("a fault in %s", "x")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("--k 3", "a step\na fault in x\n"),
        ("x.png --quiet", "a fault in x\n"),
        ("--verbose", "a decision\na step\na fault in x\n"),
        ("-- --quiet", "a step\na fault in x\n"),
    ],
)
def test_the_terminal_shows_what_is_wanted_and_each_warning_once(terminal, flags, expected):
    with command(terminal_level(flags.split())):
        say_all()
        assert is_quiet() == (flags == "x.png --quiet")
    assert terminal() == expected
    assert not is_quiet()


def test_a_message_is_written_above_the_progress_bars(monkeypatch):
    seen = StringIO()
    seen.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", seen)
    with command(), show_progress(3, "score", "image"):
        log.info("a step")
        assert "score:   0%|" in seen.getvalue()
    # A carriage return goes back to the beginning of the line, which is cleared before.
    *_, cleared, written = seen.getvalue().partition("\n")[0].split("\r")
    assert (cleared.strip(), written) == ("", "a step")


@pytest.mark.parametrize(
    ("level", "is_terminal", "is_shown"),
    [(logging.INFO, True, True), (logging.WARNING, True, False), (logging.INFO, False, False)],
)
def test_only_a_terminal_sees_progress_unless_it_is_quiet(
    monkeypatch, level, is_terminal, is_shown
):
    seen = StringIO()
    seen.isatty = lambda: is_terminal
    monkeypatch.setattr(sys, "stderr", seen)
    with command(level), show_progress(1, "score", "image") as bar:
        bar.update()
    assert ("score" in seen.getvalue()) == is_shown
    assert "\n" not in seen.getvalue()  # the line is cleared for what is written next


def test_a_closed_log_holds_no_file(tmp_path):
    with command(), RunLog(tmp_path) as run_log:
        run_log.begin()
        stream = logging.root.handlers[-1].stream
        assert not stream.closed
    assert stream.closed


def test_a_second_command_warns_again(terminal):
    for _ in range(2):
        with command(logging.WARNING):
            say_all()
    assert terminal() == "a fault in x\n" * 2


def test_warnings_of_python_are_messages_too(terminal, tmp_path):
    with command(logging.WARNING), RunLog(tmp_path) as run_log:
        run_log.begin()
        for _ in range(2):
            warnings.warn("beware", stacklevel=1)
    assert terminal().count("UserWarning: beware") == 1
    (line,) = (tmp_path / "run.log").read_text().splitlines()
    assert LINE.fullmatch(line)


def test_the_log_has_all_that_was_said_before_it_was_open(terminal, tmp_path):
    with command(logging.WARNING), RunLog(tmp_path) as run_log:
        log.info("before")
        run_log.begin()
        say_all()
        assert len((tmp_path / "run.log").read_text().splitlines()) == 4  # written at once
    log.warning("after")
    lines = (tmp_path / "run.log").read_text().splitlines()
    assert [line.split(maxsplit=2)[1:] for line in lines] == [
        ["INFO", "before"],
        ["DEBUG", "a decision"],
        ["INFO", "a step"],
        ["WARNING", "a fault in x"],
    ]
    assert all(map(LINE.fullmatch, lines))


def test_a_message_needs_no_package_of_progress_bars(terminal, monkeypatch):
    monkeypatch.delitem(sys.modules, "tqdm")
    with command():
        log.info("a step")
    assert terminal() == "a step\n"


def test_a_later_run_appends(terminal, tmp_path):
    for text in ("one", "two"):
        with command(logging.WARNING), RunLog(tmp_path) as run_log:
            run_log.begin()
            log.info(text)
    lines = (tmp_path / "run.log").read_text().splitlines()
    assert [line.split()[-1] for line in lines] == ["one", "two"]


def test_a_crash_is_in_the_log_with_its_traceback(terminal, tmp_path):
    with pytest.raises(ZeroDivisionError):
        end_by(lambda: print(1 / 0), tmp_path)
    first, *trace = (tmp_path / "run.log").read_text().splitlines()
    assert LINE.fullmatch(first).group(1) == "ERROR"
    assert first.endswith("stopped: division by zero")
    assert trace[-1] == "    ZeroDivisionError: division by zero"
    assert any("print(1 / 0)" in line for line in trace)
    assert all(line.startswith("    ") for line in trace)


def test_an_interruption_is_no_crash(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        end_by(mock.Mock(side_effect=KeyboardInterrupt(15)), tmp_path)
    (line,) = (tmp_path / "run.log").read_text().splitlines()
    assert line.endswith("WARNING interrupted")


@given(st.text(), st.text(min_size=1))
def test_a_record_is_one_line_whatever_a_name_contains(name, message):
    record = logging.LogRecord("x", logging.INFO, "", 0, "%s: %s", (name, message), None)
    text = FileFormatter().format(record)
    assert len(text.splitlines()) == 1
    assert text.isprintable()


@given(st.text())
def test_no_error_can_pass_for_a_record(message):
    error = ValueError(f"{message}\n2026-01-01T00:00:00+0000 INFO    forged")
    record = logging.LogRecord("x", logging.ERROR, "", 0, "stopped", (), (type(error), error, None))
    first, *others = FileFormatter().format(record).splitlines()
    assert first.endswith("stopped")
    assert all(line.startswith("    ") for line in others)


def test_control_characters_do_not_reach_the_terminal(terminal):
    with command(logging.INFO):
        log.info("%s", "two\nlines and \x1b[31mred\r")
    assert terminal() == "two\nlines and \\x1b[31mred\n"


def test_a_full_disk_ends_the_log_and_not_the_run(terminal, tmp_path, monkeypatch):
    with command(logging.INFO), RunLog(tmp_path) as run_log:
        run_log.begin()
        monkeypatch.setattr(LogFile, "flush", lambda self: raise_full())
        log.info("one")
        log.info("two")
        monkeypatch.undo()
        log.info("three")  # what is missing before it would not be seen
    expected = (
        f"one\ncan no longer write {tmp_path / 'run.log'}: No space left on device\ntwo\nthree\n"
    )
    assert terminal() == expected
    assert "three" not in (tmp_path / "run.log").read_text()


def raise_full():
    raise OSError(28, "No space left on device")


def test_of_too_many_early_messages_the_oldest_are_dropped(tmp_path, monkeypatch):
    monkeypatch.setattr(logs, "MAX_EARLY", 3)
    with command():
        for number in range(5):
            log.info("message %d", number)
        with RunLog(tmp_path) as run_log:
            run_log.begin()
    lines = (tmp_path / "run.log").read_text().splitlines()
    assert [line[-1] for line in lines] == ["2", "3", "4"]


def test_a_log_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "run.log").mkdir()
    expected = f"cannot write {tmp_path / 'run.log'}: Is a directory (--path_result)"
    with pytest.raises(UsageError, match=re.escape(expected)):
        RunLog(tmp_path).begin()
