"""The command line of the benchmarks; see the package's docstring."""

import argparse
import json
import time
from pathlib import Path

import torch

from tests.benchmarks import (
    backbone,
    category,
    embedding,
    growth,
    latency,
    pictures,
    search,
    selection,
)
from tests.benchmarks.measure import Row, as_markdown
from utils.machine import describe_cpu, package_versions, source_commit

BENCHMARKS = {
    "embedding": embedding.measure,
    "selection": selection.measure,
    "search": search.measure,
    "backbone": backbone.measure,
    "latency": latency.measure,
    "pictures": pictures.measure,
    "growth": growth.measure,
    "category": category.measure,
}


def main() -> None:
    """Run the benchmarks that were asked for; print and write their rows."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks")
    parser.add_argument("--quick", action="store_true", help="smaller sizes, under a minute")
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, default=list(BENCHMARKS))
    parser.add_argument("--json", type=Path, help="write the rows to this file too")
    arguments = parser.parse_args()

    rows: list[Row] = []
    start = time.perf_counter()
    for name in arguments.only:
        print(f"{name} ...", flush=True)
        started = time.perf_counter()
        with torch.inference_mode():
            rows += BENCHMARKS[name](arguments.quick)
        print(f"  {time.perf_counter() - started:.0f} s", flush=True)
    seconds = time.perf_counter() - start
    print(f"\n{describe_cpu()}; {seconds:.0f} s{'; quick' if arguments.quick else ''}\n")
    print(as_markdown(rows))
    if arguments.json:
        record = {
            "machine": describe_cpu(),
            "versions": package_versions(),
            "commit": source_commit(),
            "quick": arguments.quick,
            "seconds": seconds,
            "rows": [row.as_record() for row in rows],
        }
        arguments.json.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
