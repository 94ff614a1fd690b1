"""The README says what is so: its example runs, its list of flags is the program's."""

import os
import re
import subprocess
import sys
from pathlib import Path

from utils.options.evaluate import EvaluateOptions
from utils.options.flags import flags_as_markdown

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def section(name):
    return README.partition(f"<!-- {name}:begin -->")[2].partition(f"<!-- {name}:end -->")[0]


def test_lists_every_flag_with_its_meaning_and_default():
    assert section("flags").strip() == flags_as_markdown(EvaluateOptions()).strip()


def test_example_runs_as_it_stands(tmp_path):
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    shown = subprocess.run(
        [sys.executable, "-c", example],
        check=True,
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    ).stdout.splitlines()
    assert shown[-3:] == ["(2, 224, 224)", "[False  True]", "[ True  True]"]


def test_every_picture_and_file_it_shows_is_there():
    for target in re.findall(r"\]\((?!https?://)([^)#]+)\)", README):
        assert (ROOT / target).is_file(), target
