"""README, CONTRIBUTING and docs/: links, the table of flags, and the example are up to date.

`python -m tests.test_readme`, or `make flags`, writes the table of flags anew.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from utils.options.evaluate import EvaluateOptions
from utils.options.flags import flags_as_markdown

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
FLAGS = ROOT / "docs/flags.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").iterdir())]
MAX_LINES = 250
LINK = re.compile(r"\]\((?!https?://)([^)]+)\)")
CODE_FILE = re.compile(r"`((?:patchcore|datasets|utils|tests|assets)/[\w/]+\.\w+)`")
CODE_BLOCK = re.compile(r"```.*?```", re.DOTALL)


def with_flags(text):
    """Return a page with the current table of flags between its marks."""
    begin, end = "<!-- flags:begin -->", "<!-- flags:end -->"
    before, after = text.partition(begin)[0], text.partition(end)[2]
    return f"{before}{begin}\n\n{flags_as_markdown(EvaluateOptions())}\n{end}{after}"


def anchors(page):
    """Return the anchors of a page's headings, as GitHub makes them."""
    text = CODE_BLOCK.sub("", page.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]


def test_the_table_of_flags_is_current():
    text = FLAGS.read_text(encoding="utf-8")
    assert text == with_flags(text), "make flags"


def test_the_readme_is_short():
    assert len(README.read_text(encoding="utf-8").splitlines()) <= MAX_LINES


def test_the_example_runs(tmp_path):
    (example,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_has_a_target(page):
    for link in LINK.findall(CODE_BLOCK.sub("", page.read_text(encoding="utf-8"))):
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.is_file(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_of_the_docs_is_linked_from_the_readme():
    links = LINK.findall(README.read_text(encoding="utf-8"))
    targets = {(ROOT / link.partition("#")[0]).resolve() for link in links}
    assert {page.resolve() for page in PAGES if page != README} <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_of_the_code_that_a_page_names_exists(page):
    for name in CODE_FILE.findall(page.read_text(encoding="utf-8")):
        assert "NAME" in name or (ROOT / name).is_file(), name


if __name__ == "__main__":
    FLAGS.write_text(with_flags(FLAGS.read_text(encoding="utf-8")), encoding="utf-8")
