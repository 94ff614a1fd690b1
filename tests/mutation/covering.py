"""Which tests run a line, and how long they take."""

import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

# Seconds and number of the tests that a change is tried with.
MAX_SECONDS = 20.0
MAX_TESTS = 200


@dataclass(frozen=True)
class Covering:
    """The tests that run each line.

    Attributes:
        lines: Of each file, relative to the checkout, the tests of each line, from 1.
        seconds: How long each test takes.
    """

    lines: dict[str, dict[int, set[str]]]
    seconds: dict[str, float]

    def tests_of(self, file: str, line: int) -> list[str]:
        """Return the tests to try a change of a line with, the most promising first.

        For a line that only imports run, these are all tests of the file; for a file that only
        other processes run, the tests that are named after it.
        """
        lines = self.lines.get(file, {})
        own = f"test_{Path(file).stem}"
        tests = (
            lines.get(line)
            or set().union(*lines.values())
            or {test for test in self.seconds if own in test}
        )
        chosen, total = [], 0.0
        for test in sorted(tests, key=lambda t: (own not in t, self.seconds.get(t, 0), t)):
            total += self.seconds.get(test, 0)
            if chosen and (total > MAX_SECONDS or len(chosen) == MAX_TESTS):
                break
            chosen.append(test)
        return chosen


def measure_covering(tree: Path, rooms: Sequence[str], marks: str) -> Covering:
    """Run the tests once and note the lines that each runs in its own process.

    Args:
        tree: A checkout.
        rooms: The packages to measure.
        marks: Expression of pytest markers.

    Raises:
        SystemExit: tests fail, or pytest-cov is missing.
    """
    try:
        from coverage import CoverageData
    except ImportError:
        raise SystemExit("python -m tests.mutation needs: pip install pytest-cov") from None
    with tempfile.TemporaryDirectory() as scratch:
        data, report = Path(scratch) / "coverage", Path(scratch) / "report.xml"
        flags = ["-q", "-n", "auto", "--dist", "loadfile", "-m", marks, f"--junitxml={report}"]
        flags += ["--cov-report=", "--cov-context=test", *(f"--cov={room}" for room in rooms)]
        ended = subprocess.run(
            [sys.executable, "-m", "pytest", *flags],
            cwd=tree,
            env=os.environ | {"OMP_NUM_THREADS": "1", "COVERAGE_FILE": str(data)},
            check=False,
        )
        if ended.returncode:
            raise SystemExit("expected tests that pass without a change")
        measured = CoverageData(str(data))
        measured.read()
        lines: dict[str, dict[int, set[str]]] = {}
        for file in measured.measured_files():
            tests = defaultdict(set)
            for line, contexts in measured.contexts_by_lineno(file).items():
                tests[line] = {context.partition("|")[0] for context in contexts if context}
            lines[Path(file).relative_to(tree).as_posix()] = dict(tests)
        return Covering(lines, _read_seconds(report))


def _read_seconds(report: Path) -> dict[str, float]:
    """Return the seconds of each test, by its id, from a report in the format of JUnit."""
    seconds = {}
    for case in ElementTree.parse(report).iter("testcase"):
        parts = case.attrib["classname"].split(".")
        cut = next(i for i, part in enumerate(parts) if part.startswith("test_")) + 1
        name = "::".join(["/".join(parts[:cut]) + ".py", *parts[cut:], case.attrib["name"]])
        seconds[name] = float(case.attrib["time"])
    return seconds
