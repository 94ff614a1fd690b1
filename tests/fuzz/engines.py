"""Runs all cases of a kind in a process of its own: with hypothesis, or guided by atheris."""

import contextlib
import faulthandler
import importlib
import logging
import os
import sys
import tempfile
from pathlib import Path

from tests.fuzz.outcomes import Outcomes

PACKAGES = ["patchcore", "datasets", "utils"]
# Seconds of a case for atheris; the guard of each case ends it earlier.
TIMEOUT = 120
# Bytes that a case is made of, at most.
LONGEST = 1 << 16


def run_kind(name: str, count: int, engine: str) -> Outcomes:
    """Run cases of a kind; return how they have ended."""
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    logging.disable()
    faulthandler.enable()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # messages of decoders about damaged files
    atheris = importlib.import_module("atheris") if engine == "atheris" else None
    with atheris.instrument_imports(PACKAGES) if atheris else contextlib.nullcontext():
        cases = importlib.import_module("tests.fuzz.cases")
    import torch

    torch.set_num_threads(1)
    outcomes = Outcomes()
    with tempfile.TemporaryDirectory() as folder:
        test = cases.make_test(name, Path(folder).resolve(), count, outcomes, is_strict=False)
        with contextlib.chdir(folder):
            if atheris:
                _guide(atheris, test.hypothesis.fuzz_one_input, count, outcomes)
            else:
                test()
    return outcomes


def _guide(atheris: object, function: object, count: int, outcomes: Outcomes) -> None:
    """Call a function with inputs that are chosen by the coverage they reach; end the program."""

    def once(data: bytes) -> None:
        function(data)  # too few bytes for a case are none
        if outcomes.counts.total() >= count:  # atheris takes any exception for a fault
            print(outcomes.line(), *outcomes.faults.values(), sep="\n", flush=True)
            os._exit(1 if outcomes.faults else 0)

    # Its limit of 2 GB is less than torch and its libraries take, and short inputs are no cases.
    limits = "-rss_limit_mb=0", f"-timeout={TIMEOUT}", f"-max_len={LONGEST}", "-len_control=0"
    atheris.Setup([sys.argv[0], *limits], once)
    atheris.Fuzz()
