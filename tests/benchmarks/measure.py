"""Times in turns, peak memory, and the table of the results."""

import ctypes
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from tests.support import ROOT

STATUS = Path("/proc/self/status")
# Slow forms on a slow machine: so many rounds are enough once so many seconds have gone by.
ENOUGH_ROUNDS, ENOUGH_SECONDS = 2, 20.0


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        what: What is measured, with its sizes.
        slow: The slow form's figure, with its unit.
        fast: The fast form's.
        value: The ratio, or whatever the target is about.
        target: What the value is to be, e.g. ``>= 40``; empty where there is no target.
    """

    what: str
    slow: str
    fast: str
    value: float
    target: str = ""

    @property
    def verdict(self) -> str:
        """Return ``yes`` or ``no``: whether the target is reached; empty without one."""
        if not self.target:
            return ""
        sign, _, limit = self.target.partition(" ")
        reached = self.value >= float(limit) if sign == ">=" else self.value <= float(limit)
        return "yes" if reached else "no"

    def as_record(self) -> dict[str, object]:
        """Return what goes into the JSON file."""
        return asdict(self) | {"reached": self.verdict}


def time_in_turns(
    forms: Sequence[Callable[[], object]],
    repeats: int,
    warm_ups: Sequence[Callable[[], object]] = (),
) -> list[float]:
    """Return the median seconds of each form, after one warm-up of each.

    In turns, so that what else the machine does at the moment meets all of them; in fewer rounds
    than ``repeats`` where they take long.

    Args:
        forms: To be measured.
        repeats: Rounds.
        warm_ups: What to run first, where a part of the form is enough; the forms themselves if
            empty.
    """
    for form in warm_ups or forms:
        form()
    seconds: list[list[float]] = [[] for _ in forms]
    started = time.perf_counter()
    for done in range(repeats):
        if done >= ENOUGH_ROUNDS and time.perf_counter() - started > ENOUGH_SECONDS:
            break
        for form, own in zip(forms, seconds, strict=True):
            own.append(time_once(form))
    return [statistics.median(own) for own in seconds]


def time_once(form: Callable[[], object]) -> float:
    """Return the seconds of one call."""
    start = time.perf_counter()
    form()
    return time.perf_counter() - start


def compare(
    what: str,
    slow: tuple[str, Callable[[], object]],
    fast: tuple[str, Callable[[], object]],
    *,
    repeats: int = 5,
    target: str = "",
) -> Row:
    """Measure a slow form and a fast one, each with its name, and return their row."""
    before, after = time_in_turns([slow[1], fast[1]], repeats)
    return Row(
        what,
        f"{slow[0]}: {seconds(before)}",
        f"{fast[0]}: {seconds(after)}",
        before / after,
        target,
    )


def peak_bytes(function: Callable[[], object]) -> int | None:
    """Return by how much a call raises this process's resident memory; None outside Linux."""
    if not STATUS.is_file():
        return None
    # Memory that was freed but not given back would hide what the call takes.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forget the peak so far
    before = _status_bytes("VmRSS")
    function()
    return _status_bytes("VmHWM") - before


def run_and_watch(command: list[str]) -> int:
    """Run a command in the checkout; return its peak resident bytes, 0 where not to be had."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output)
        if not hasattr(os, "wait4"):
            status, peak = process.wait(), 0
        else:
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        if process.returncode:
            output.seek(0)
            raise RuntimeError(output.read().decode(errors="replace"))
    return peak


def fitted_exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Return p of the least-squares fit values ~ sizes^p."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def as_markdown(rows: Sequence[Row]) -> str:
    """Return the rows as a Markdown table."""
    lines = ["| what | slow | fast | ratio | target | reached |", "|---|---|---|---:|---|---|"]
    lines += [
        f"| {r.what} | {r.slow} | {r.fast} | {r.value:.3g} | {r.target} | {r.verdict} |"
        for r in rows
    ]
    return "\n".join(lines)


def seconds(value: float) -> str:
    """Write a time readably."""
    return f"{value:.2f} s" if value >= 1 else f"{1000 * value:.3g} ms"


def _status_bytes(name: str) -> int:
    lines = STATUS.read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))
