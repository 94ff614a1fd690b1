"""Fuzz the readers: `python -m tests.fuzz`, or `make fuzz`.

With --engine atheris, which needs `pip install atheris`, the first of --kinds is fuzzed with the
coverage of the program's modules as a guide.
"""

import argparse
import multiprocessing
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed

from tests.fuzz.engines import run_kind
from tests.fuzz.names import NAMES


def main() -> int:
    """Run the cases; return 1 if there is a fault."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=22_000, help="number of cases of all kinds")
    parser.add_argument("--kinds", nargs="+", metavar="KIND", help="kinds (default: all)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="number of processes")
    parser.add_argument("--engine", choices=("hypothesis", "atheris"), default="hypothesis")
    given = parser.parse_args()
    names = given.kinds or NAMES
    count = -(-given.cases // len(names))
    if given.engine == "atheris":  # it ends the program after its first kind
        run_kind(names[0], count, given.engine)
    start, total, num_faults = time.monotonic(), 0, 0
    # A process for each kind: atheris ends it, and a crash of a decoder would.
    with ProcessPoolExecutor(
        given.jobs, multiprocessing.get_context("spawn"), max_tasks_per_child=1
    ) as pool:
        running = {pool.submit(run_kind, n, count, given.engine): n for n in names}
        for future in as_completed(running):
            outcomes = future.result()
            print(f"{running[future]}: {outcomes.line()}", flush=True)
            for where, text in outcomes.faults.items():
                print(f"\n{where}\n{text}", flush=True)
            total += outcomes.counts.total()
            num_faults += len(outcomes.faults)
    print(f"{total} cases in {time.monotonic() - start:.0f} s, {num_faults} different faults")
    return 1 if num_faults else 0


if __name__ == "__main__":
    sys.exit(main())
