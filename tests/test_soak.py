"""Sixty categories in one process: memory stays flat, and nothing is left behind."""

import getpass
import json
import os
import subprocess
import sys

import pytest

from tests.support import ROOT, make_category, names, quick

NUM_CATEGORIES = 60
# Runs the program on the arguments; prints the state after each category, and before and after all.
RUN = """
import gc, json, os, sys, threading
from multiprocessing import active_children
from pathlib import Path

import cv2, matplotlib.pyplot, torch  # whatever starts threads or opens files once

import main
from utils.pipeline import evaluation

def state():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "rss": pages * os.sysconf("SC_PAGE_SIZE"),
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "files": len(list(Path("/proc/self/fd").iterdir())),
        "children": len(active_children()),
    }

def keep(self, finished, keep=evaluation.Run.keep):
    keep(self, finished)
    states.append(state())

states = []
evaluation.Run.keep = keep
torch.set_num_threads(1)
before = state()
status = main.main(sys.argv[1:])
gc.collect()
print(json.dumps({"status": status, "before": before, "each": states, "after": state()}))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_sixty_categories_leave_nothing_behind(tmp_path):
    for number in range(NUM_CATEGORIES):
        make_category(tmp_path / "data", f"part{number:02d}", seed=number)
    (tmp_path / "tmp").mkdir()
    flags = "--pictures worst --pictures_limit 1 --explain_top 1 --num_workers 1"
    paths = f"--path_data {tmp_path / 'data'} --path_result {tmp_path / 'result'}"
    process = subprocess.run(
        [sys.executable, "-c", RUN, *quick(*paths.split(), *flags.split())],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=os.environ
        | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        | {"TMPDIR": str(tmp_path / "tmp")},
    )
    assert process.returncode == 0, process.stderr
    found = json.loads(process.stdout.splitlines()[-1])
    assert found["status"] == 0, process.stderr
    assert len(found["each"]) == NUM_CATEGORIES
    sizes = [state["rss"] / 1e6 for state in found["each"]]
    curve = ", ".join(f"{n}: {sizes[n - 1]:.1f} MB" for n in (1, 2, 3, 10, 20, 30, 40, 50, 60))
    print(f"memory after categories {curve}")
    assert max(sizes[3:]) < 1.05 * sizes[2], curve
    for name in ("threads", "children"):
        assert found["after"][name] == found["before"][name], name
    # Matplotlib keeps the files of the fonts open that it has used, after the first figure.
    assert found["after"]["files"] <= min(state["files"] for state in found["each"])
    # torch's own cache, which later programs use.
    assert names(tmp_path / "tmp", "*") <= {f"torchinductor_{getpass.getuser()}"}
    assert not list((tmp_path / "result").rglob("*.partial"))
