"""README, CONTRIBUTING and docs/: links, the table of flags, and the examples are up to date.

`python -m tests.test_readme`, or `make flags`, regenerates the table of flags.
"""

import contextlib
import http.client
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path

import cv2
import pytest

from patchcore import PatchCore
from patchcore.protocols import PROTOCOLS
from patchcore.settings import Settings
from tests.patchcore.test_model import make_images
from tests.support import one_thread
from utils.options.evaluate import EvaluateOptions
from utils.options.flags import as_text

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
FLAGS = ROOT / "docs/flags.md"
SERVER = ROOT / "docs/server.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").iterdir())]
MAX_LINES = 250
LINK = re.compile(r"\]\((?!https?://)([^)]+)\)")
CODE_FILE = re.compile(r"`((?:patchcore|datasets|utils|tests|assets)/[\w/]+\.\w+)`")
CODE_BLOCK = re.compile(r"```.*?```", re.DOTALL)


def table_of_flags():
    lines = ["| flag | default | meaning |", "|:---|:---|:---|"]
    for entry in fields(EvaluateOptions):
        details, default = entry.metadata, as_text(entry.default)
        choices = f" ({', '.join(details['choices'])})" if details["choices"] else ""
        shown = f"`{default}`" if default else ""
        lines.append(f"| `--{entry.name}` | {shown} | {details['text']}{choices} |")
    return "\n".join(lines)


def with_flags(text):
    """Return a page with the current table of flags between its marks."""
    begin, end = "<!-- flags:begin -->", "<!-- flags:end -->"
    before, after = text.partition(begin)[0], text.partition(end)[2]
    return f"{before}{begin}\n\n{table_of_flags()}\n\n{end}{after}"


def anchors(page):
    """Return the anchors of a page's headings, as GitHub makes them."""
    text = CODE_BLOCK.sub("", page.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]


def test_the_table_of_flags_is_current():
    text = FLAGS.read_text(encoding="utf-8")
    assert text == with_flags(text), "make flags"


def numbers_of(protocol: Mapping[str, object]) -> set[str]:
    """Return the numbers of a preset that differ from the defaults, as docs/method.md has them."""
    words = {("percentage_coreset", 1): "all patches", ("sigma", 0): "no smoothing"}
    words |= {("percentage_coreset", share / 100): f"{share} %" for share in range(1, 100)}
    return {
        words.get((name, number), f"{number:g}")
        for name, value in protocol.items()
        if value != getattr(Settings(), name)
        for number in (value if isinstance(value, tuple) else (value,))
        if isinstance(number, (int, float)) and not isinstance(number, bool)
    }


@pytest.mark.parametrize("name", PROTOCOLS)
def test_the_table_of_protocols_states_their_numbers(name):
    rows = (ROOT / "docs/method.md").read_text(encoding="utf-8").splitlines()
    (row,) = (row for row in rows if row.startswith(f"| `{name}` |"))
    for number in numbers_of(PROTOCOLS[name]):
        assert re.search(rf"(?<![\d.]){re.escape(number)}(?![\d.]*\d)", row), number


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


def post(port, body):
    """Return the status and the JSON of the server's answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", "/", body)
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def wait_for(port):
    while True:
        with contextlib.suppress(ConnectionError):
            return socket.create_connection(("127.0.0.1", port)).close()
        time.sleep(0.1)


def test_the_server_of_the_example_answers(tmp_path):
    with one_thread():
        model = PatchCore("formulanet", size_resize=(36, 36), size_crop=(32, 32))
        images = make_images(6)
        expected = model.fit(images[:4]).predict(images).score.tolist()
        model.save(tmp_path / "trained/example")
    bodies = [cv2.imencode(".png", image[:, :, ::-1])[1].tobytes() for image in images]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    text = SERVER.read_text(encoding="utf-8")
    example = re.findall(r"```python\n(.*?)```", text, re.DOTALL)[1].replace("8000", str(port))
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", example]
    server = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL)
    try:
        pool = ThreadPoolExecutor(8)
        pool.submit(wait_for, port).result(timeout=120)
        answers = list(pool.map(lambda body: post(port, body), [b"no image", *bodies]))
    finally:
        server.kill()
        server.wait()
    assert answers[0][0] == 400
    assert "cannot identify image" in answers[0][1]["error"]
    assert [status for status, _ in answers[1:]] == [200] * 6
    scores = [content["score"] for _, content in answers[1:]]
    assert scores == pytest.approx(expected, rel=1e-5)
    threshold = model.thresholds.image.value
    assert [content["is_anomaly"] for _, content in answers[1:]] == [
        score >= threshold for score in scores
    ]


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
