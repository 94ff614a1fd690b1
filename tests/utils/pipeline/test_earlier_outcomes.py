"""`infer` goes on from what an earlier run into the same folder has judged."""

import csv
import io
import json
import logging
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import main
from patchcore.embedder import Embedder
from tests.support import call, evaluate, make_category, truncate, write_image
from utils.pipeline import earlier_outcomes
from utils.pipeline import judge as judge_module
from utils.predictions import EARLIER_FILE, PredictionFiles

FLAGS = ("--pictures", "anomalies", "--layout", "overlay", "--save_masks", "--batch_size", "2")
TIMES = re.compile(r"\d{4}-\d\d-\d\dT[\d:+]+|_\d{15,}|python [^<]*")


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> Path:
    """Return a folder with trained models and the images of `widget`."""
    root = tmp_path_factory.mktemp("kept")
    make_category(root / "data")
    flags = f"--path_trained {root / 'trained'} --percentage_coreset 0.05 0.1"
    evaluate(root / "data", root / "result", flags)
    return root


@pytest.fixture
def images(kept, tmp_path) -> Path:
    """Return six images, four of them anomalous."""
    return Path(shutil.copytree(kept / "data/widget/test", tmp_path / "images"))


@pytest.fixture
def judged(monkeypatch) -> list[int]:
    """Return the list of the sizes of the batches that are embedded from now on."""
    embed, sizes = Embedder.embed, []

    def noted(self, batch):
        sizes.append(len(batch))
        return embed(self, batch)

    monkeypatch.setattr(Embedder, "embed", noted)
    return sizes


@pytest.fixture
def infer(kept, images, tmp_path, caplog) -> Callable[..., int]:
    """Judge the images; return the status."""
    caplog.set_level(logging.INFO)

    def infer(*flags: object, folder: str = "result", percentage: float = 0.1) -> int:
        words = ["--path_trained", kept / "trained", "--percentage_coreset", percentage]
        return call("infer", images, "--path_result", tmp_path / folder, *words, *FLAGS, *flags)

    return infer


def contents(folder: Path) -> dict[str, object]:
    """Return all results without the times."""
    found = {}
    for path in folder.rglob("*"):
        name = TIMES.sub("", path.relative_to(folder).as_posix())
        if path.is_dir() or name in ("run.json", "run.log", ".lock") or name.startswith("earlier"):
            continue
        found[name] = path.read_bytes()
    lines = map(json.loads, found["predictions.jsonl"].splitlines())
    found["predictions.jsonl"] = [line | {"seconds": 0} for line in lines]
    rows = csv.DictReader(io.StringIO(found["predictions.csv"].decode()))
    found["predictions.csv"] = [row | {"seconds": 0} for row in rows]
    found["index.html"] = TIMES.sub("", found["index.html"].decode())
    return found


class Killed(BaseException):
    """Ends a run at once, as SIGKILL does."""


@pytest.mark.parametrize("moments", [(1,), (4,), (3, 2)])
def test_a_run_that_was_killed_ends_as_if_it_had_not_been(
    infer, tmp_path, monkeypatch, judged, moments
):
    assert infer(folder="whole") == 1
    judged.clear()
    for moment in moments:
        write, left = PredictionFiles.add, [moment]

        def killed(self, outcome, write=write, left=left):
            left[0] -= 1
            if left[0] <= 0:
                self._json.write(outcome.to_json()[:40])
                self._json.flush()
                raise Killed
            write(self, outcome)

        with monkeypatch.context() as patched:
            patched.setattr(PredictionFiles, "add", killed)
            patched.setattr(judge_module.Judge, "close", lambda *_, **__: None)
            with pytest.raises(Killed):
                infer()
    assert infer() == 1
    assert contents(tmp_path / "result") == contents(tmp_path / "whole")
    assert not (tmp_path / "result" / EARLIER_FILE).exists()


def test_the_same_command_judges_nothing_again(infer, tmp_path, judged, caplog, capsys):
    infer()
    before, out = contents(tmp_path / "result"), capsys.readouterr().out
    assert sum(judged) == 6
    assert infer() == 1
    assert sum(judged) == 6
    assert contents(tmp_path / "result") == before
    assert capsys.readouterr().out == out
    assert "6 of these by an earlier run (--fresh judges all)" in caplog.text
    record = json.loads((tmp_path / "result/run.json").read_text())
    assert record["judged_earlier"] == 6
    assert record["verdicts"] == {"anomaly": 4, "normal": 2, "error": 0}


def test_only_what_is_new_or_has_changed_is_judged(infer, images, tmp_path, judged):
    infer()
    judged.clear()
    shutil.copy(images / "hole/000.png", images / "good/000.png")
    shutil.copy(images / "hole/001.png", images / "a.png")
    (images / "stain/001.png").unlink()
    next((tmp_path / "result/pictures").glob("stain_000*")).unlink()
    infer()
    assert sum(judged) == 3
    found = contents(tmp_path / "result")
    infer(folder="whole")
    stale = {name for name in found if "stain_001" in name}
    assert {k: v for k, v in found.items() if k not in stale} == contents(tmp_path / "whole")


def test_what_could_not_be_read_is_tried_again(infer, images, tmp_path, judged):
    path = write_image(images / "z.png", np.full((64, 64, 3), 120, np.uint8))
    content = path.read_bytes()
    truncate(path)
    assert infer() == 2
    judged.clear()
    path.write_bytes(content)
    assert infer() == 1
    assert sum(judged) == 1


@pytest.mark.parametrize(
    ("flags", "percentage", "reason"),
    [
        (("--regions", "1"), 0.1, "regions is 1, was 5"),
        (("--threshold", "3"), 0.1, "the image threshold is 3, was "),
        ((), 0.05, "the digest of the model is "),
        (("--fresh",), 0.1, "--fresh"),
    ],
)
def test_other_settings_judge_all(infer, tmp_path, judged, caplog, flags, percentage, reason):
    infer()
    judged.clear()
    infer(*flags, percentage=percentage)
    assert sum(judged) == 6
    (line,) = (text for text in caplog.messages if "the earlier run in" in text)
    assert reason in line
    assert len(list((tmp_path / "result/earlier").glob("*/predictions.csv"))) == 1


def test_an_image_without_its_thumbnail_is_judged_again(infer, tmp_path, judged):
    infer()
    judged.clear()
    lost = sorted((tmp_path / "result/thumbnails").iterdir())[0]
    lost.unlink()
    infer()
    assert sum(judged) == 1
    assert lost.exists()


def test_an_interrupted_run_keeps_what_it_has_not_come_to(infer, tmp_path, monkeypatch, judged):
    infer()
    before = contents(tmp_path / "result")
    judged.clear()

    def interrupted(*_):
        raise KeyboardInterrupt(signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr(judge_module.Judge, "_judge", interrupted)
        assert infer() == 128 + signal.SIGTERM
    assert infer() == 1
    assert judged == []
    assert contents(tmp_path / "result") == before


def test_another_mask_judges_all(infer, tmp_path, judged, caplog):
    masks = []
    for row in (16, 40):
        pixels = np.zeros((64, 64), np.uint8)
        pixels[row] = 255
        masks.append(write_image(tmp_path / f"{row}.png", pixels))
    for flags, count in (((), 6), (masks[:1], 6), (masks[:1], 0), (masks[1:], 6), ((), 6)):
        judged.clear()
        infer(*(("--ignore_mask", *flags) if flags else ()))
        assert sum(judged) == count
    moved = [text for text in caplog.messages if "the earlier run in" in text]
    assert len(moved) == 3
    assert all("the digest of the ignored pixels is " in text for text in moved)


def test_flags_of_the_machine_and_the_page_do_not_matter(infer, tmp_path, judged, caplog):
    infer()
    judged.clear()
    infer("--num_workers", 0, "--json", "--page_limit", 2)
    assert judged == []
    assert len(list((tmp_path / "result/thumbnails").iterdir())) == 2
    assert f"{tmp_path / 'result'}, shown by index.html" in caplog.text
    caplog.clear()
    infer("--page_limit", 0)
    assert not (tmp_path / "result/index.html").exists()
    assert "index.html" not in caplog.text


def test_names_with_the_same_hash_are_told_apart(infer, tmp_path, judged, monkeypatch):
    for module in (earlier_outcomes, judge_module):  # all files have the same size and time, too
        monkeypatch.setattr(module, "file_state", lambda path: [0, 0])
    infer()
    before = contents(tmp_path / "result")
    judged.clear()
    monkeypatch.setattr(earlier_outcomes, "hash", lambda name: 0, raising=False)
    infer()
    assert sum(judged) == 5  # the last one alone is found
    assert contents(tmp_path / "result") == before


def test_a_file_that_is_gone_has_no_state(tmp_path):
    assert earlier_outcomes.file_state(tmp_path / "gone.png") is None


def test_outcomes_that_cannot_be_kept_are_an_error(infer, tmp_path, capsys):
    infer()
    (tmp_path / "result" / EARLIER_FILE).mkdir()
    capsys.readouterr()
    assert infer() == main.WRONG_USAGE
    expected = f"the results in {tmp_path / 'result'}: Is a directory (--fresh)"
    assert expected in capsys.readouterr().err


def test_damaged_lines_are_judged_again(infer, tmp_path, judged):
    infer()
    path = tmp_path / "result/predictions.jsonl"
    changes = [{"score": "x"}, {"score": None}, {"regions": [1]}, {"verdict": "fine"}]
    lines = path.read_text().splitlines()
    for number, changed in enumerate(changes):
        lines[number] = json.dumps(json.loads(lines[number]) | changed)
    path.write_text("\n".join(["[" * 100_000, "{}", '{"path": 1}', *lines]))
    judged.clear()
    infer()
    assert sum(judged) == len(changes)


@pytest.mark.parametrize(
    ("before", "now", "text"),
    [
        ("a" * 64, "0123456789abcdef" * 4, "one is 0123456789ab, was aaaaaaaaaaaa"),  # digests
        ("a" * 65, "b" * 63, f"one is {'b' * 63}, was {'a' * 65}"),
        (1 / 3, 2.0, "one is 2, was 0.333333"),
        ("g" * 64, None, f"one is None, was {'g' * 64}"),
        (2, 2.0, ""),
    ],
)
def test_a_difference_is_short(tmp_path, monkeypatch, before, now, text):
    record = {"identity": {"one": before, "other": 1}}
    monkeypatch.setattr(earlier_outcomes, "read_run", lambda folder: record)
    assert earlier_outcomes.difference(tmp_path, {"other": 1, "one": now}) == text
