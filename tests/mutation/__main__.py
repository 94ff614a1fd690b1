"""Measure what the tests notice: `python -m tests.mutation`.

Changes one operator, constant, guard or statement at a time in a copy of the checkout, runs the
tests that run its line, and lists the changes that no test notices: gaps of the tests, code that is
not needed, or changes without an effect. Needs `pip install pytest-cov`.

A change is tried with the quick tests alone, and of these with at most 200: before you write a test
for one that passes, run the tests of its room.
"""

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from tests.mutation.changes import Change, changes_of
from tests.mutation.covering import MAX_SECONDS, Covering, measure_covering

ROOT = Path(__file__).parents[2]
ROOMS = ("patchcore", "datasets", "utils")
MARKS = "not slow and not real_data and not ray"


def main() -> int:
    """Try the changes; return 1 if one passes."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "paths", nargs="*", default=["main.py", *ROOMS], help="files and folders to change"
    )
    parser.add_argument("--number", type=int, default=300, help="number of changes")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random choice")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="number of processes")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        trees = [Path(scratch) / f"tree{job}" for job in range(given.jobs)]
        for tree in trees:
            _copy_checkout(tree)
        chosen = _choose(trees[0], given.paths, given.number, given.seed)
        covering = measure_covering(trees[0], ROOMS, MARKS)
        passed = _try_all(chosen, covering, trees)
    print(f"{len(chosen) - len(passed)} of {len(chosen)} changes are noticed")
    return 1 if passed else 0


def _copy_checkout(target: Path) -> None:
    """Copy the files that git knows or would add."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, target / name)


def _choose(tree: Path, paths: Iterable[str], number: int, seed: int) -> list[tuple[str, Change]]:
    """Return random changes of these files, with the name of each file."""
    files: set[Path] = set()
    for path in paths:
        files.update((tree / path).rglob("*.py") if (tree / path).is_dir() else [tree / path])
    every = [
        (file.relative_to(tree).as_posix(), change)
        for file in sorted(files)
        for change in changes_of(file.read_bytes())
    ]
    return random.Random(seed).sample(every, min(number, len(every)))


def _try_all(
    chosen: list[tuple[str, Change]], covering: Covering, trees: list[Path]
) -> list[tuple[str, Change]]:
    """Return the changes that pass, and print each."""
    free, passed, lock = list(trees), [], threading.Lock()

    def try_one(one: tuple[str, Change]) -> None:
        name, change = one
        tests = covering.tests_of(name, change.line)
        tree = free.pop()
        try:
            is_noticed = _is_noticed(tree, name, change, tests)
        finally:
            free.append(tree)
        if is_noticed:
            return
        with lock:
            passed.append(one)
            before = (ROOT / name).read_bytes()[change.start : change.end].decode()
            old, new = (" ".join(text.split()) for text in (before, change.new))
            tqdm.write(f"{name}:{change.line}: {old} -> {new} ({len(tests)} tests)")

    with ThreadPoolExecutor(len(trees)) as pool:
        for _ in tqdm(pool.map(try_one, chosen), "changes", len(chosen)):
            pass
    return passed


def _is_noticed(tree: Path, name: str, change: Change, tests: list[str]) -> bool:
    """Return whether one of the tests fails, or does not end, on a changed copy."""
    if not tests:
        return False
    file = tree / name
    source = file.read_bytes()
    file.write_bytes(change.apply(source))
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-m", MARKS]
    try:
        ended = subprocess.run(
            [*command, *tests],
            cwd=tree,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=60 + 5 * MAX_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return True
    finally:
        file.write_bytes(source)
    return ended.returncode != 0


if __name__ == "__main__":
    sys.exit(main())
