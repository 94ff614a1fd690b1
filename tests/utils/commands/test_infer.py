"""`main.py infer`: what is said of pictures from anywhere, and that every flag does its part.

`TestFlags` is complete by a test: who adds a flag adds its test.
"""

import csv
import io
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import cv2
import numpy as np
import pytest

from datasets import reading_ahead
from datasets.items import Item
from patchcore import PatchCore
from patchcore.embedder import Embedder
from patchcore.preprocess import Preprocess
from patchcore.regions import resize_map_to_image
from tests.support import (
    ROOT,
    call,
    evaluate,
    make_category,
    names,
    read_maps,
    read_table,
    truncate,
    write_image,
)
from tests.utils.report.test_page import data_of
from utils.locks import lock_folder
from utils.options.infer import InferOptions
from utils.pipeline import inference as infer_module
from utils.pipeline import judge as judge_module
from utils.pipeline import prediction_page
from utils.pipeline.annotated_video import AnnotatedVideo
from utils.plots import draw_localization

DEFECTS = ("hole/000", "hole/001", "stain/000", "stain/001")
GOOD = ("good/000", "good/001")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("data")
    make_category(root)
    return root


@pytest.fixture(scope="module")
def kept(data, tmp_path_factory) -> Path:
    """Evaluate; return the folder with ``trained`` models and the ``result``."""
    root = tmp_path_factory.mktemp("kept")
    flags = f"--path_trained {root / 'trained'} --percentage_coreset 0.05 0.1 --save_maps"
    evaluate(data, root / "result", flags)
    return root


def read_frames(path: Path) -> tuple[float, list[np.ndarray]]:
    """Return the frames per second of a video, and its frames."""
    capture, frames = cv2.VideoCapture(str(path)), []
    while (read := capture.read())[0]:
        frames.append(read[1])
    return capture.get(cv2.CAP_PROP_FPS), frames


@pytest.fixture(scope="module")
def video(data, tmp_path_factory) -> Path:
    """Return a film of the test images: good ones, holes, stains, 2 frames each."""
    path = tmp_path_factory.mktemp("video") / "line.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"FFV1"), 4, (64, 64))
    assert writer.isOpened()
    for name in (*GOOD, *DEFECTS):
        frame = cv2.imread(str(data / f"widget/test/{name}.png"))
        for _ in range(2):
            writer.write(frame)
    writer.release()
    return path


class Inference:
    """Runs the command on one model, and reads what it wrote."""

    def __init__(self, kept: Path, folder: Path, capsys: pytest.CaptureFixture):
        self.trained = kept / "trained"
        self.folder = folder
        self._capsys = capsys
        self.out = ""
        self.err = ""

    def __call__(self, *arguments: object, status: int, percentage: str = "0.1") -> list[dict]:
        """Infer; return the JSON records."""
        words = ["--path_trained", self.trained, "--path_result", self.folder]
        if percentage:
            words += ["--percentage_coreset", percentage]
        found = call("infer", *arguments, *words)
        self.out, self.err = self._capsys.readouterr()
        assert found == status, self.err
        path = self.folder / "predictions.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def infer(kept, tmp_path, capsys) -> Inference:
    return Inference(kept, tmp_path / "result", capsys)


class TestVerdicts:
    def test_scores_and_verdicts_are_the_evaluations_in_a_new_process(self, kept, data, tmp_path):
        result = tmp_path / "inferred"
        words = ["--path_trained", str(kept / "trained"), "--percentage_coreset", "0.1"]
        words += ["--path_result", str(result), "--threshold", "f1_max", "--save_maps"]
        process = subprocess.run(
            [sys.executable, str(ROOT / "main.py"), "infer", str(data / "widget/test"), *words],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        assert process.returncode == 1, process.stderr
        (row,) = (r for r in read_table(kept / "result") if r["percentage_coreset"] == "0.1")
        saved = read_maps(kept / "result", row)
        expected = dict(zip(saved["files"], saved["scores"], strict=True))
        lines = (result / "predictions.jsonl").read_text().splitlines()
        records = {"/".join(Path(r["path"]).parts[-2:]): r for r in map(json.loads, lines)}
        assert set(records) == set(expected)
        threshold = float(row["image_threshold"])
        for name, record in records.items():
            assert np.float32(record["score"]) == expected[name]
            assert record["score_ratio"] == record["score"] / record["threshold"]
            assert 1 / 7 <= record["p_value"] <= 1  # by six held-out scores
            assert record["threshold"] == pytest.approx(threshold, rel=1e-6)
            verdict = "anomaly" if expected[name] >= np.float32(threshold) else "normal"
            assert record["verdict"] == verdict
            place = list(saved["files"]).index(name)
            found = np.load(result / record["map"])
            np.testing.assert_array_equal(found, saved["anomaly_maps"][place])

    def test_a_path_that_is_too_long_is_an_error_among_others(self, infer, data):
        good = data / "widget/test/good/000.png"
        records = infer("x" * 300, good, status=2)
        assert [r["verdict"] for r in records] == ["error", "normal"]
        assert records[0]["error"] == f"cannot read {'x' * 300}: File name too long"

    def test_status_tells_what_there_was(self, infer, data, tmp_path):
        test = data / "widget/test"
        records = infer(test / "good", status=0)
        assert [r["verdict"] for r in records] == ["normal", "normal"]
        records = infer(test / "hole", test / "good", status=1)
        assert [r["verdict"] for r in records] == ["anomaly", "anomaly", "normal", "normal"]
        infer(test / "hole", tmp_path / "none.png", status=2)

    def test_what_cannot_be_read_is_told_and_the_rest_goes_on(self, infer, data, tmp_path, caplog):
        caplog.set_level(logging.INFO)
        folder = shutil.copytree(data / "widget/test/good", tmp_path / "pictures")
        broken = truncate(write_image(folder / "000_first.png", np.zeros((64, 64, 3), np.uint8)))
        (folder / "notes.txt").write_text("no picture: not looked at")
        records = infer(folder, tmp_path / "gone", status=2)
        assert [(Path(r["path"]).name, r["verdict"]) for r in records] == [
            ("000.png", "normal"),
            ("000_first.png", "error"),
            ("001.png", "normal"),
            ("gone", "error"),
        ]
        assert str(broken) in records[1]["error"]
        assert records[1]["score"] is None
        assert "2 judged: 0 anomalous, 2 normal; 2 could not be read" in caplog.text
        page = (infer.folder / "index.html").read_text()
        assert "2 could not be judged." in page
        assert str(broken) in page
        rows = read_table(self_csv(infer))
        assert [row["verdict"] for row in rows] == [r["verdict"] for r in records]

    def test_a_batch_of_which_nothing_can_be_read(self, infer, data, tmp_path):
        broken = truncate(write_image(tmp_path / "a.png", np.zeros((64, 64, 3), np.uint8)))
        records = infer(broken, data / "widget/test/good", "--batch_size", 1, status=2)
        assert [r["verdict"] for r in records] == ["error", "normal", "normal"]

    def test_regions_are_where_the_defect_is_in_the_picture_as_it_was_given(
        self, infer, data, tmp_path
    ):
        image = cv2.imread(str(data / "widget/test/hole/000.png"))
        large = cv2.resize(image, (192, 128), interpolation=cv2.INTER_NEAREST)
        cv2.imwrite(str(tmp_path / "large.png"), large)
        (record,) = infer(tmp_path / "large.png", "--threshold_pixel", "2", status=1)
        left, top, right, bottom = record["regions"][0]["box"]
        # The square of the defect, rows 20 to 36 and columns 16 to 40 of 64, three and two times
        # as large; a map's edges are soft.
        assert left == pytest.approx(16 * 3, abs=24)
        assert right == pytest.approx(40 * 3, abs=24)
        assert top == pytest.approx(20 * 2, abs=16)
        assert bottom == pytest.approx(36 * 2, abs=16)
        assert 0 < record["regions"][0]["area"] <= (right - left) * (bottom - top)

    def test_the_table_has_what_the_lines_have(self, infer, data):
        records = infer(data / "widget/test", status=1)
        rows = read_table(self_csv(infer))
        assert len(rows) == 6
        for row, record in zip(rows, records, strict=True):
            assert row["path"] == record["path"]
            assert float(row["score"]) == pytest.approx(record["score"], rel=1e-8)
            boxes = [[*map(int, region.split())] for region in row["regions"].split("; ") if region]
            assert boxes == [[*r["box"], r["area"]] for r in record["regions"]]
            assert float(row["seconds"]) > 0

    def test_the_run_is_recorded(self, infer, data):
        infer(data / "widget/test", status=1)
        record = json.loads((infer.folder / "run.json").read_text())
        assert record["state"] == "complete"
        assert record["verdicts"] == {"anomaly": 4, "normal": 2, "error": 0}
        assert record["category"] == "widget"
        assert record["options"]["percentage_coreset"] == 0.1
        assert record["thresholds"]["image"]["method"] == "train_quantile"

    def test_an_earlier_inference_is_moved(self, infer, data):
        infer(data / "widget/test/good", "--save_masks", status=0)
        infer(data / "widget/test/hole", status=1)
        (earlier,) = (infer.folder / "earlier").iterdir()
        files = {"predictions.csv", "predictions.jsonl", "run.json", "index.html", "thumbnails"}
        assert names(earlier, "*") == {*files, "masks", "run.log"}
        assert not (infer.folder / "masks").exists()

    def test_memory_does_not_grow_with_the_number_of_pictures(self, kept, monkeypatch, tmp_path):
        """At most a few batches are held: items are asked for as results are written."""
        held, most = [0], [0]

        def counted():
            image = np.full((64, 64, 3), 120, np.uint8)
            for number in range(100):
                held[0] += 1
                most[0] = max(most[0], held[0])
                yield Item(f"image {number}", frame=image)

        def written(self, outcome):
            held[0] -= 1

        monkeypatch.setattr(infer_module, "find_groups", lambda *_, **__: [counted()])
        monkeypatch.setattr(judge_module.PredictionFiles, "add", written)
        words = ["--path_trained", kept / "trained/widget/squeezenet1_1_p0100_k01"]
        arguments = ["--batch_size", 2, "--num_workers", 1, "--path_result", tmp_path]
        assert call("infer", ROOT / "README.md", *words, *arguments) in (0, 1)
        assert held[0] == 0
        assert most[0] <= 2 * 2 + 1 + 2 + 1


def self_csv(infer: Inference) -> Path:
    return infer.folder / "predictions.csv"


@pytest.fixture
def heeds_ctrl_c():
    """Heed Ctrl-C, here and in processes that are started: a shell's background jobs ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class TestFlags:
    """`test_<flag>` shows that the flag changes what is done."""

    def test_paths(self, infer, data, video, monkeypatch):
        test = data / "widget/test"
        monkeypatch.setattr(sys, "stdin", io.StringIO(f"{test}/stain/000.png\n"))
        records = infer(test / "good/001.png", f"{test}/*/000.png", "-", video, status=1)
        shown = ["/".join(Path(r["path"]).parts[-2:]) for r in records]
        assert shown[:5] == [
            *("good/001.png", "good/000.png", "hole/000.png"),
            *("stain/000.png", "stain/000.png"),
        ]
        assert [r["path"] for r in records[5:]] == [f"{video}#{n}" for n in range(12)]
        assert [r["verdict"] for r in records[5:]] == ["normal"] * 4 + ["anomaly"] * 8
        assert [r["time"] for r in records[5:8]] == [0.0, 0.25, 0.5]
        for record in records:  # a file may change, and a frame has none of its own
            assert ("file" in record) != ("frame" in record)

    @pytest.mark.usefixtures("heeds_ctrl_c")
    @pytest.mark.parametrize(
        "number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM]
    )
    def test_watch(self, kept, data, tmp_path, number):
        folder = shutil.copytree(data / "widget/test/good", tmp_path / "inbox")
        words = ["--path_trained", str(kept / "trained"), "--percentage_coreset", "0.1"]
        words += ["--path_result", str(tmp_path / "result"), "--json"]
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "main.py"), "infer", "--watch", str(folder), *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        try:
            first = [json.loads(process.stdout.readline())["verdict"] for _ in range(2)]
            shutil.copy(data / "widget/test/hole/000.png", folder / "late.png")
            late = json.loads(process.stdout.readline())
            process.send_signal(number)
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
        assert first == ["normal", "normal"]
        assert (Path(late["path"]).name, late["verdict"]) == ("late.png", "anomaly")
        assert process.returncode == 1
        assert "3 judged: 1 anomalous, 2 normal; 0 could not be read" in err
        lines = (tmp_path / "result/predictions.jsonl").read_text().splitlines()
        assert len(lines) == 3
        record = json.loads((tmp_path / "result/run.json").read_text())
        assert record["state"] == "complete"  # only a signal ends it
        assert record["verdicts"] == {"anomaly": 1, "normal": 2, "error": 0}

    @pytest.mark.parametrize(("stride", "numbers"), [("5", [0, 5, 10]), ("7", [0, 7])])
    def test_frame_stride(self, infer, video, stride, numbers):
        infer(video, "--frame_stride", "4", "--pictures", "all", status=1)
        records = infer(video, "--frame_stride", stride, "--pictures", "all", status=1)
        assert [r["frame"] for r in records] == numbers
        drawn = {f"pictures/{path.name}" for path in (infer.folder / "pictures").iterdir()}
        assert drawn == {record["picture"] for record in records}

    def test_path_trained(self, infer, data, kept):
        infer.trained = kept / "trained/widget/squeezenet1_1_p0050_k01"
        small = infer(data / "widget/test/good", status=0, percentage="")
        infer.trained = kept / "trained"
        large = infer(data / "widget/test/good", status=0)
        assert small[0]["score"] > large[0]["score"]

    def test_category(self, infer, data):
        infer(data / "widget/test/good", "--category", "widget", status=0)
        infer(data / "widget/test/good", "--category", "gadget", status=2)
        assert "for --category gadget" in infer.err

    def test_percentage_coreset(self, infer, data):
        infer(data / "widget/test/good", status=2, percentage="")
        assert "expected one trained model" in infer.err
        scores = [
            infer(data / "widget/test/good", status=0, percentage=p)[0]["score"]
            for p in ("0.05", "0.1")
        ]
        assert scores[0] > scores[1]

    def test_backbone(self, infer, data):
        infer(data / "widget/test/good", "--backbone", "squeezenet1_1", status=0)
        infer(data / "widget/test/good", "--backbone", "resnet18", status=2)
        assert "for --backbone resnet18" in infer.err

    def test_weights(self, infer, data, tmp_path):
        infer(data / "widget/test/good", "--weights", "random", status=0)
        infer(data / "widget/test/good", "--weights", str(tmp_path / "none.pth"), status=2)
        assert "no weights file" in infer.err

    def test_threshold(self, infer, data, kept):
        test = data / "widget/test"
        trained = PatchCore.load(kept / "trained/widget/squeezenet1_1_p0100_k01").trained
        expected = {
            "trained": trained.thresholds.image.value,
            "train_quantile": trained.thresholds.image.value,
            "f1_max": trained.best.image,
            "1e-9": 1e-9,
        }
        for given, value in expected.items():
            status = 1 if given == "1e-9" else 0
            records = infer(test / "good", "--threshold", given, status=status)
            assert records[0]["threshold"] == value
        infer(test / "good", "--threshold", "high", status=2)
        assert "expected --threshold trained, train_quantile, f1_max or a number" in infer.err

    def test_threshold_pixel(self, infer, data):
        hole = data / "widget/test/hole/000.png"
        areas = [
            infer(hole, "--threshold_pixel", value, status=1)[0]["regions"][0]["area"]
            for value in ("1", "3")
        ]
        assert areas[0] > areas[1] > 0
        # An image's score is not compared with it.
        assert infer(hole, "--threshold_pixel", "1e9", status=1)[0]["regions"] == []

    def test_nominal_fpr(self, infer, data):
        good = data / "widget/test/good"
        flags = ("--threshold", "train_quantile", "--nominal_fpr")
        strict = infer(good, *flags, "0.01", status=0)[0]["threshold"]
        loose = infer(good, *flags, "0.9", status=1)[0]["threshold"]
        assert loose < strict
        # Another rate than the default's says which threshold is meant.
        assert infer(good, "--nominal_fpr", "0.9", status=1)[0]["threshold"] == loose

    def test_nominal_fpr_pixel(self, infer, data):
        hole = data / "widget/test/hole/000.png"
        flags = ("--threshold_pixel", "train_quantile", "--nominal_fpr_pixel")
        areas = [infer(hole, *flags, r, status=1)[0]["regions"][0]["area"] for r in ("0.001", "1")]
        assert areas[0] < areas[1]

    def test_regions(self, infer, data):
        good = data / "widget/test/good/000.png"
        flags = ("--threshold_pixel", "0.3", "--threshold", "9")
        many = infer(good, *flags, "--regions", "100", status=0)[0]["regions"]
        assert len(many) > 1
        assert [r["area"] for r in many] == sorted((r["area"] for r in many), reverse=True)
        assert infer(good, *flags, "--regions", "1", status=0)[0]["regions"] == many[:1]
        assert infer(good, *flags, "--regions", "0", status=0)[0]["regions"] == []

    def test_path_result(self, infer, data, tmp_path):
        infer.folder = tmp_path / "elsewhere"
        assert len(infer(data / "widget/test/good", status=0)) == 2

    def test_ignore_mask(self, infer, data, tmp_path, caplog):
        """The hole 000 is at rows 20 to 36 and columns 16 to 40 of 64."""
        caplog.set_level("INFO")
        hole = data / "widget/test/hole/000.png"
        mask = np.zeros((64, 64), np.uint8)
        mask[8:48, 4:52] = 255
        path = write_image(tmp_path / "mask.png", mask)
        flags = ("--save_masks", "--threshold", "99", "--threshold_pixel", "0.05")
        plain = infer(hole, *flags, status=0)[0]
        assert "thresholds and p-values" not in caplog.text
        found = infer(hole, "--ignore_mask", path, *flags, "--explain_top", "3", status=0)[0]
        assert found["score"] < plain["score"]
        marked = cv2.imread(str(infer.folder / found["mask"]), cv2.IMREAD_GRAYSCALE)
        assert not marked[mask > 0].any()
        assert marked[mask == 0].any()
        assert "of each image is ignored (--ignore_mask)" in caplog.text
        assert "thresholds and p-values are those of training" in caplog.text
        for region in found["regions"]:
            assert region["score"] > 0
        for patch in found["patches"]:
            left, top, right, bottom = (np.array(patch["box"]) + 4) * 64 // 72
            assert mask[top:bottom, left:right].mean() < 128
        low = ("--threshold", "99", "--threshold_pixel", "0")  # any distance reaches it
        (record,) = infer(hole, "--ignore_mask", path, *low, status=0)
        assert 0 < sum(region["area"] for region in record["regions"]) < 64**2 - 36 * 44
        with mock.patch("utils.plots.draw_localization", wraps=draw_localization) as drawn:
            infer(hole, "--ignore_mask", path, *flags, "--pictures", "all", status=0)
        hatched = drawn.call_args.kwargs["ignored"]  # the crop of 64 of 72 pixels
        assert hatched[6:49, 2:54].all()
        assert not hatched[51:].any()
        infer(hole, "--ignore_mask", tmp_path / "none.png", status=2)
        assert "found none: " in infer.err
        assert "(--ignore_mask)" in infer.err

    def test_page_limit(self, infer, data):
        records = infer(data / "widget/test", status=1)
        page = data_of((infer.folder / "index.html").read_text())
        highest = sorted(records, key=lambda record: -record["score"])
        assert [image["path"] for image in page["images"]] == [r["path"] for r in highest]
        infer(data / "widget/test", "--page_limit", "2", status=1)
        text = (infer.folder / "index.html").read_text()
        assert [i["path"] for i in data_of(text)["images"]] == [r["path"] for r in highest[:2]]
        assert "Only the 2 most anomalous of 6 judged images" in text
        assert len(names(infer.folder / "thumbnails")) == 2
        infer(data / "widget/test", "--page_limit", "0", status=1)
        assert not (infer.folder / "index.html").exists()
        assert not (infer.folder / "thumbnails").exists()

    def test_json(self, infer, data):
        records = infer(data / "widget/test", "--json", status=1)
        assert [json.loads(line) for line in infer.out.splitlines()] == records
        infer(data / "widget/test", status=1)
        assert infer.out.splitlines()[0].startswith("normal ")

    @pytest.mark.parametrize(("choice", "count"), [("none", 0), ("anomalies", 4), ("all", 6)])
    def test_pictures(self, infer, data, choice, count):
        records = infer(data / "widget/test", "--pictures", choice, status=1)
        drawn = [r["picture"] for r in records if "picture" in r]
        assert len(drawn) == count
        assert names(infer.folder / "pictures", "*") == {Path(name).name for name in drawn}

    def test_layout(self, infer, data):
        hole = data / "widget/test/hole/000.png"
        sizes = {}
        for layout in ("panels", "overlay"):
            (record,) = infer(hole, "--pictures", "all", "--layout", layout, status=1)
            sizes[layout] = cv2.imread(str(infer.folder / record["picture"])).shape
        assert sizes["overlay"] == (64, 64, 3)
        assert sizes["panels"][0] > 600

    def test_explain_top(self, infer, data, kept):
        hole = data / "widget/test/hole/000.png"
        (record,) = infer(hole, "--explain_top", "2", "--pictures", "all", status=1)
        assert [patch["rank"] for patch in record["patches"]] == [1, 2]
        nearest = record["patches"][0]["nearest"][0]
        # An image's score is its most anomalous patch's distance to its nearest one.
        assert nearest["distance"] == pytest.approx(record["score"], rel=1e-6)
        coreset = PatchCore.load(kept / "trained/widget/squeezenet1_1_p0100_k01").coreset
        image, position = divmod(int(coreset.indices[nearest["coreset_index"]]), 15 * 15)
        assert nearest["file"] == str(data / f"widget/train/good/{image:03d}.png")
        assert (nearest["row"], nearest["column"]) == divmod(position, 15)
        picture = cv2.imread(str(infer.folder / record["explanation"]))
        assert min(picture.shape[:2]) > 300
        assert "patches" not in infer(hole, status=1)[0]
        (record,) = infer(hole, "--explain_top", "2", status=1)
        assert len(record["patches"]) == 2
        assert "explanation" not in record
        assert not (infer.folder / "explanations").exists()

    def test_save_masks(self, infer, data):
        (record,) = infer(data / "widget/test/hole/000.png", "--save_masks", status=1)
        mask = cv2.imread(str(infer.folder / record["mask"]), cv2.IMREAD_UNCHANGED)
        assert mask.shape == (64, 64)
        assert set(np.unique(mask)) == {0, 255}
        assert mask[28, 28] == 255

    def test_save_maps(self, infer, data):
        (record,) = infer(data / "widget/test/hole/000.png", "--save_maps", status=1)
        found = np.load(infer.folder / record["map"], allow_pickle=False)
        assert (found.shape, found.dtype) == ((64, 64), np.float32)

    def test_annotate(self, infer, video):
        records = infer(video, "--annotate", "--frame_stride", "2", status=1)
        (name,) = {r["annotated"] for r in records}
        rate, frames = read_frames(infer.folder / name)
        assert rate == 2
        assert len(frames) == len(records) == 6
        assert frames[0].shape == (64, 64, 3)
        # The bar on top: greenish (BGR) where normal, reddish where anomalous.
        assert frames[0][4, 60, 1] > frames[0][4, 60, 2]
        assert frames[-1][4, 60, 2] > frames[-1][4, 60, 1]

    def test_score_max(self, infer, data):
        hole = data / "widget/test/hole/000.png"
        flags = ("--pictures", "all", "--layout", "overlay", "--score_max")
        pictures = []
        for value in ("4", "400"):
            (record,) = infer(hole, *flags, value, status=1)
            pictures.append(cv2.imread(str(infer.folder / record["picture"])))
        # With a far higher end the same score has a far darker colour.
        assert pictures[0][28, 28].astype(int).sum() > pictures[1][28, 28].astype(int).sum()

    @pytest.mark.parametrize("size", [1, 4])
    def test_batch_size(self, infer, data, monkeypatch, size):
        seen = []
        predict = PatchCore.predict_crops
        monkeypatch.setattr(
            PatchCore,
            "predict_crops",
            lambda m, batches: seen.extend(map(len, batches)) or predict(m, batches),
        )
        infer(data / "widget/test", "--batch_size", size, status=1)
        assert seen == ([1] * 6 if size == 1 else [4, 2])

    def test_num_workers(self, infer, data, monkeypatch):
        seen = []
        ahead = reading_ahead.map_ahead

        def spy(*arguments, **options):
            seen.append(options["num_workers"])
            return ahead(*arguments, **options)

        monkeypatch.setattr(reading_ahead, "map_ahead", spy)
        infer(data / "widget/test/good", "--num_workers", "3", status=0)
        assert seen == [3]

    def test_max_megapixels(self, infer, data):
        infer(data / "widget/test/good", "--max_megapixels", "0.004", status=2)
        assert "expected an image of at most 0.004 megapixels, found 64x64" in infer.out
        infer(data / "widget/test/good", "--max_megapixels", "0.0041", status=0)

    def test_on_error(self, infer, data, tmp_path):
        folder = shutil.copytree(data / "widget/test/good", tmp_path / "images")
        truncate(folder / "000.png")
        assert len(infer(folder, status=2)) == 2
        (record,) = infer(folder, "--on_error", "stop", "--batch_size", 1, status=2)
        assert record["verdict"] == "error"
        run = json.loads((infer.folder / "run.json").read_text())
        assert run["state"] == f"stopped: {record['error']}"

    def test_fresh(self, infer, data, caplog):
        caplog.set_level(logging.INFO)
        infer(data / "widget/test/good", status=0)
        infer(data / "widget/test/good", status=0)
        assert "2 of these by an earlier run" in caplog.text
        caplog.clear()
        infer(data / "widget/test/good", "--fresh", status=0)
        assert "by an earlier run" not in caplog.text
        assert (infer.folder / "earlier").is_dir()

    def test_device(self, infer, data, monkeypatch):
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)
        infer(data / "widget/test/good", "--device", "cpu", status=0)
        infer(data / "widget/test/good", "--device", "cuda", status=2)
        assert "expected an available device, found cuda" in infer.err

    def test_quiet(self, infer, data, monkeypatch):
        """And ``verbose``: how much is on the terminal; ``run.log`` has everything."""
        shown = []
        for flags in ((), ("--quiet",), ("--verbose",)):
            monkeypatch.setattr(logging.root, "handlers", [])  # those of pytest
            infer(data / "widget/test/good", "--fresh", *flags, status=0)
            assert infer.out.count("normal ") == 2
            shown.append(["2 judged" in infer.err, "loaded in" in infer.err])
            log = (infer.folder / "run.log").read_text()
            assert "2 judged" in log
            assert "loaded in" in log
            assert "threads; commit " in log
            assert log.count("model: ") == 1  # that of the run before has moved
        assert shown == [[True, False], [False, False], [True, True]]

    test_verbose = test_quiet


def test_an_image_in_other_proportions_than_the_mask_is_not_judged(infer, data, tmp_path):
    mask = np.zeros((64, 96), np.uint8)
    mask[:20] = 255
    path = write_image(tmp_path / "mask.png", mask)
    (record,) = infer(data / "widget/test/good/000.png", "--ignore_mask", path, status=2)
    assert "aspect ratio of the mask of ignored pixels, 96x64, found 64x64" in record["error"]


class TestOutputs:
    """What the files of a run show."""

    def test_a_pixel_at_the_threshold_is_marked(self, infer, data):
        hole = data / "widget/test/hole/000.png"
        (record,) = infer(hole, "--save_maps", status=1)
        anomaly_map = np.load(infer.folder / record["map"])
        box = Preprocess((72, 72), (64, 64)).crop_box((64, 64))
        highest = resize_map_to_image(anomaly_map, (64, 64), crop_box=box).max()
        counts = []
        for value in (highest, np.nextafter(highest, np.float32(np.inf))):
            flags = ("--save_masks", "--threshold_pixel", repr(float(value)))
            (record,) = infer(hole, *flags, status=1)
            mask = cv2.imread(str(infer.folder / record["mask"]), cv2.IMREAD_GRAYSCALE)
            counts.append(np.count_nonzero(mask))
        assert counts == [1, 0]

    def test_paths_on_standard_input_are_judged_as_they_arrive(self, infer, data, monkeypatch):
        """With batches of four images: another program may wait for each outcome."""
        paths = [f"{data}/widget/test/{name}.png\n" for name in ("hole/000", "good/000")]
        judged = []

        class Arriving(io.RawIOBase):
            readable = staticmethod(lambda: True)

            def readinto(self, buffer):
                lines = infer.folder / "predictions.jsonl"
                judged.append(lines.read_text().count("\n") if lines.exists() else 0)
                part = paths.pop(0).encode() if paths else b""
                buffer[: len(part)] = part
                return len(part)

        stream = io.TextIOWrapper(io.BufferedReader(Arriving()))
        monkeypatch.setattr(sys, "stdin", stream)
        assert len(infer("-", "--batch_size", "4", status=1)) == 2
        assert judged == [0, 1, 2]

    def test_a_score_at_the_threshold_is_an_anomaly(self, infer, data):
        good = data / "widget/test/good/000.png"
        (record,) = infer(good, status=0)
        for value, status in ((record["score"], 1), (np.nextafter(record["score"], np.inf), 0)):
            (found,) = infer(good, "--threshold", repr(float(value)), status=status)
            assert found["verdict"] == ("anomaly" if status else "normal")

    def test_results_are_shown_while_others_are_judged(self, infer, data, monkeypatch):
        """By lines that a pipe does not keep back, the page, the files and the bar."""
        monkeypatch.setattr(prediction_page, "SECONDS_BETWEEN", 0.0)
        monkeypatch.setattr(prediction_page, "SHARE_OF_TIME", np.inf)
        shown, seen, updates = io.TextIOWrapper(io.BytesIO()), [], []
        judge = judge_module.Judge._judge

        def noted(self, batch):
            page = infer.folder / "index.html"
            images = data_of(page.read_text())["images"] if page.exists() else []
            lines = shown.buffer.getvalue().splitlines()
            seen.append((len(images), len(lines), sum(updates)))
            return judge(self, batch)

        monkeypatch.setattr(judge_module.Judge, "_judge", noted)
        bar = SimpleNamespace(update=updates.append)
        monkeypatch.setattr(judge_module, "show_progress", lambda *_: nullcontext(bar))
        with monkeypatch.context() as patched:
            patched.setattr(sys, "stdout", shown)
            infer(data / "widget/test", "--batch_size", 2, status=1)
        assert seen == [(0, 0, 0), (2, 2, 2), (4, 4, 4)]

    def test_a_watched_folder_without_new_images_has_them_all_on_the_page(
        self, infer, data, monkeypatch
    ):
        """The last ones may have come too soon after the page was written."""
        clock, seen, groups = [100.0], [], infer_module._groups
        monkeypatch.setattr(prediction_page.time, "monotonic", lambda: clock[0])

        def with_a_scan_that_finds_nothing(*arguments):
            page = infer.folder / "index.html"
            yield from groups(*arguments)
            seen.append(page.exists())
            clock[0] += prediction_page.SECONDS_BETWEEN
            yield ()
            seen.append(len(data_of(page.read_text())["images"]))

        monkeypatch.setattr(infer_module, "_groups", with_a_scan_that_finds_nothing)
        infer(data / "widget/test/good", status=0)
        assert seen == [False, 2]

    def test_a_picture_states_the_verdict(self, infer, data, monkeypatch):
        texts = []

        def note(image, *, text, **_):
            texts.append(text)
            return image

        monkeypatch.setattr("utils.plots.annotation.annotate", note)
        paths = [data / f"widget/test/{name}.png" for name in (GOOD[0], DEFECTS[0])]
        good, hole = infer(*paths, "--pictures", "all", "--layout", "overlay", status=1)
        assert texts == [
            f"{verdict}  {record['score']:.3g}  (threshold {record['threshold']:.3g})"
            for verdict, record in (("normal", good), ("ANOMALY", hole))
        ]

    def test_each_video_has_its_own_annotated_copy(self, infer, data, video, tmp_path):
        videos = [shutil.copy(video, tmp_path / name) for name in ("a.avi", "b.avi")]
        flags = ("--annotate", "--frame_stride", "4")
        records = infer(videos[0], data / "widget/test/good/000.png", videos[1], *flags, status=1)
        names = [record.get("annotated") for record in records]
        assert [name is None for name in names] == [False] * 3 + [True] + [False] * 3
        assert (len(set(names[:3])), len(set(names[4:]))) == (1, 1)
        for name in (names[0], names[-1]):
            assert len(read_frames(infer.folder / name)[1]) == 3


def test_every_flag_has_its_test():
    tests = {name.removeprefix("test_") for name in dir(TestFlags) if name.startswith("test_")}
    assert tests == {field.name for field in fields(InferOptions)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "expected images to judge: either PATHs or --watch FOLDER"),
        (("x", "--watch", "y"), "expected images to judge"),
        (("--watch", "/nowhere/at/all"), "expected a folder to watch"),
        (
            ("x", "--frame_stride", "0"),
            "expected frame_stride of at least 1, found 0 (--frame_stride)",
        ),
        (("x", "--regions", "-1"), "expected regions of at least 0, found -1 (--regions)"),
        (("x", "--batch_size", "0"), "expected batch_size of at least 1, found 0 (--batch_size)"),
        (("x", "--nominal_fpr", "0"), "expected nominal_fpr in (0, 1], found 0 (--nominal_fpr)"),
        (("x", "--score_max", "nan"), "expected score_max of at least 0, found nan (--score_max)"),
        (("x", "--colour", "red"), "unrecognized arguments: --colour red"),
    ],
)
def test_refuses_what_cannot_be(infer, arguments, message):
    infer(*arguments, status=2)
    assert message in infer.err
    assert not infer.folder.exists()


def test_a_model_without_thresholds_needs_a_number(data, tmp_path, capsys, caplog):
    model = PatchCore(
        "squeezenet1_1",
        ("features.3", "features.6"),
        weights="random",
        size_resize=(72, 72),
        size_crop=(64, 64),
        embed_dim=64,
    )
    one = cv2.imread(str(data / "widget/train/good/000.png"))
    model.fit([one]).save(tmp_path / "trained/w/one")
    good = data / "widget/test/good"
    words = ["infer", good, "--path_trained", tmp_path / "trained", "--path_result", tmp_path / "r"]
    assert call(*words) == 2
    assert "expected a threshold for images" in capsys.readouterr().err
    assert call(*words, "--threshold", "99") == 2
    assert "expected a threshold for pixels" in capsys.readouterr().err
    capsys.readouterr()
    with caplog.at_level("INFO"):
        assert call(*words, "--threshold", "99", "--threshold_pixel", "99", "--json") == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {record["p_value"] for record in records} == {None}
    assert "no held-out scores: the p-value of each score is left empty" in caplog.text
    rows = csv.DictReader(io.StringIO((tmp_path / "r/predictions.csv").read_text()))
    assert {row["p_value"] for row in rows} == {""}


def test_the_table_survives_any_name(infer, data, tmp_path):
    name = 'a, "quoted"\nname.png'
    shutil.copy(data / "widget/test/good/000.png", tmp_path / name)
    (record,) = infer(tmp_path / name, status=0)
    assert record["path"] == str(tmp_path / name)
    with self_csv(infer).open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["path"] == str(tmp_path / name)


def test_it_starts_soon(kept, data, tmp_path):
    """Nothing is imported that judging does not need: the start is torch's.

    The page needs Jinja at the end, and the thumbnails the colours of Matplotlib.
    """
    code = (
        "import sys\nsys.argv[0] = 'main.py'\nimport main\n"
        "status = main.main(sys.argv[1:])\n"
        "assert status == 0, status\n"
        "loaded = {'matplotlib', 'sklearn', 'torchinfo', 'jinja2'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    words = ["infer", data / "widget/test/good", "--path_trained", kept / "trained"]
    words += ["--percentage_coreset", "0.1", "--path_result", tmp_path, "--page_limit", "0"]
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code, *map(str, words)], check=True, cwd=ROOT)
    assert time.perf_counter() - start < 120  # it ended; benchmarks say how long it takes


class TestFaults:
    """One image that cannot be judged is an error; the others are judged."""

    @pytest.mark.parametrize("size", [1, 4])
    def test_a_score_that_is_not_finite(self, infer, data, monkeypatch, size):
        embed = Embedder.embed

        def spoil(embedder, batch):
            embeddings = embed(embedder, batch).clone()
            embeddings[(batch == 0).all(axis=(1, 2, 3))] = np.nan
            return embeddings

        monkeypatch.setattr(Embedder, "embed", spoil)
        black = write_image(infer.folder.parent / "black.png", np.zeros((64, 64, 3), np.uint8))
        good = data / "widget/test/good"
        records = infer(good, black, good / "000.png", "--batch_size", size, status=2)
        assert [r["verdict"] for r in records] == ["normal", "normal", "error", "normal"]
        assert "expected finite anomaly scores" in records[2]["error"]

    @pytest.mark.parametrize("error", [MemoryError("too large"), ValueError("odd"), OSError("x")])
    def test_a_decoder_that_fails_in_any_way(self, infer, data, monkeypatch, error):
        read = Item.read

        def fail(item, *how):
            if item.name.endswith("000.png"):
                raise error
            return read(item, *how)

        monkeypatch.setattr(Item, "read", fail)
        records = infer(data / "widget/test/good", status=2)
        assert [r["verdict"] for r in records] == ["error", "normal"]
        path = data / "widget/test/good/000.png"
        assert records[0]["error"] == f"cannot read {path}: {type(error).__name__}: {error}"

    def test_an_interruption_is_no_verdict(self, infer, data, monkeypatch, caplog):
        """The status 0 would mean that every image is normal."""
        caplog.set_level(logging.INFO)
        judge, done = judge_module.Judge._judge, []

        def interrupted(inference, batch):
            if done:
                raise KeyboardInterrupt(signal.SIGTERM)
            done.append(batch)
            return judge(inference, batch)

        monkeypatch.setattr(judge_module.Judge, "_judge", interrupted)
        folder = data / "widget/test/good"
        records = infer(folder, "--batch_size", 1, status=128 + signal.SIGTERM)
        assert [r["verdict"] for r in records] == ["normal"]
        record = json.loads((infer.folder / "run.json").read_text())
        assert record["state"] == "interrupted"
        assert record["verdicts"] == {"anomaly": 0, "normal": 1, "error": 0}
        assert "1 image found and not judged" in caplog.messages
        caplog.clear()
        monkeypatch.setattr(judge_module.Judge, "_judge", judge)
        infer(folder, status=0)
        assert "found and not judged" not in caplog.text

    def test_an_interrupted_video_gets_no_final_name(self, infer, video, monkeypatch, caplog):
        draw = judge_module.PredictionPictures.draw

        def interrupted(pictures, item, *arguments, **options):
            if item.number > 3:
                raise KeyboardInterrupt(signal.SIGINT)
            return draw(pictures, item, *arguments, **options)

        with monkeypatch.context() as patch:
            patch.setattr(judge_module.PredictionPictures, "draw", interrupted)
            infer(video, "--annotate", status=128 + signal.SIGINT)
        assert f"not complete, removed: the annotated copy of {video}" in caplog.text
        assert not any((infer.folder / "annotated").iterdir())
        # What a killed run leaves is removed by the next one.
        (infer.folder / "annotated/.line.partial.mp4").touch()
        (record, *_) = infer(video, "--annotate", status=1)
        written = [
            path.relative_to(infer.folder) for path in (infer.folder / "annotated").iterdir()
        ]
        assert [str(path) for path in written] == [record["annotated"]]

    def test_a_second_run_into_the_same_folder(self, infer, data):
        infer.folder.mkdir()
        with lock_folder(infer.folder, "--path_result"):
            assert infer(data / "widget/test/good", status=2) == []

    def test_a_video_that_is_cut_short(self, infer, video, tmp_path):
        content = video.read_bytes()
        (tmp_path / "cut.avi").write_bytes(content[: len(content) * 7 // 10])
        records = infer(tmp_path / "cut.avi", status=2)
        assert records[-1]["error"].startswith(f"expected 12 frames in {tmp_path / 'cut.avi'}")
        assert len(records) > 2
        assert all(record["verdict"] != "error" for record in records[:-1])

    def test_other_files_are_counted_and_change_no_status(self, infer, data, tmp_path, caplog):
        caplog.set_level(logging.INFO)
        folder = shutil.copytree(data / "widget/test/good", tmp_path / "images")
        for name in ("notes.txt", "code.ts", ".DS_Store"):
            (folder / name).write_text("no image")
        assert len(infer(folder, status=0)) == 2
        notes = json.loads((infer.folder / "run.json").read_text())["file_notes"]
        assert [(note["count"], Path(note["example"]).name) for note in notes.values()] == [
            (1, ".DS_Store"),
            (2, "code.ts"),
        ]
        assert "2 files: skipped: neither an image nor a video (for example" in caplog.text

    def test_results_in_the_folder_of_the_images(self, kept, data, tmp_path):
        """A second run would judge the figures of the first."""
        folder = shutil.copytree(data / "widget/test/good", tmp_path / "images")
        words = ["infer", folder, "--path_trained", kept / "trained/widget/squeezenet1_1_p0100_k01"]
        words += ["--path_result", folder / "result", "--pictures", "all"]
        for _ in range(2):
            assert call(*words) == 0
        assert len((folder / "result/predictions.csv").read_text().splitlines()) == 3

    @pytest.mark.parametrize("place", ["images", "images/", "link"])
    def test_results_are_not_written_among_the_images(self, infer, data, tmp_path, place, kept):
        shutil.copytree(data / "widget/test/good", tmp_path / "images")
        (tmp_path / "link").symlink_to("images")
        infer.folder = tmp_path / place
        message = f"expected a folder different from that of the images, found {tmp_path / place}"
        for inputs in ([tmp_path / "images"], ["--watch", tmp_path / "images"]):
            infer(*inputs, status=2)
            assert message in infer.err
        assert names(tmp_path / "images", "*") == {"000.png", "001.png"}


def test_an_undefined_score_does_not_pass_for_normal(infer, data, monkeypatch):
    predict = PatchCore.predict_crops

    def broken(model, batches):
        prediction = predict(model, batches)
        prediction.score[:] = np.nan
        return prediction

    monkeypatch.setattr(PatchCore, "predict_crops", broken)
    records = infer(data / "widget/test/good", status=1)
    assert [record["verdict"] for record in records] == ["anomaly", "anomaly"]


def test_a_video_that_vanishes_while_it_is_annotated_is_told(infer, video, monkeypatch):
    monkeypatch.setattr("utils.pipeline.annotated_video.video_format", lambda path: None)
    infer(video, "--annotate", status=2)
    assert f"expected the video {video}, cannot read it again" in infer.err


def test_a_video_without_an_encoder_is_told(infer, video, monkeypatch):
    closed = mock.Mock(**{"return_value.isOpened.return_value": False})
    monkeypatch.setattr("utils.pipeline.annotated_video.cv2.VideoWriter", closed)
    infer(video, "--annotate", status=2)
    assert f"cannot write the video {infer.folder}/annotated/" in infer.err
    assert "this OpenCV has no encoder for mp4 (--annotate)" in infer.err


def test_a_video_is_closed_before_it_is_removed_even_without_a_frame(monkeypatch, tmp_path):
    """Some systems keep open files, and an encoder may make the file with the first frame."""
    form = SimpleNamespace(size=(4, 4), frames_per_second=4.0)
    monkeypatch.setattr("utils.pipeline.annotated_video.video_format", lambda _: form)
    writer = mock.Mock()
    monkeypatch.setattr("utils.pipeline.annotated_video.cv2.VideoWriter", lambda *_: writer)
    AnnotatedVideo(tmp_path / "a.avi", tmp_path / "b/a.mp4", 1).remove()
    writer.release.assert_called_once()


@pytest.mark.parametrize("content", [b"", b"\0" * 8192])
def test_an_annotated_video_that_the_disk_cannot_hold_is_told(infer, video, monkeypatch, content):
    """The encoder reports nothing: it leaves a file without an index."""

    def full(path: str, *_: object) -> mock.Mock:
        Path(path).write_bytes(content)
        return mock.Mock(**{"isOpened.return_value": True})

    monkeypatch.setattr("utils.pipeline.annotated_video.cv2.VideoWriter", full)
    records = infer(video, "--annotate", status=2)
    (target,) = {infer.folder / record["annotated"] for record in records}
    assert f"expected {len(records)} frames in the annotated video {target}, found 0" in infer.err
    assert "the disk may be full (--path_result)" in infer.err
    assert not any((infer.folder / "annotated").iterdir())


def test_figures_need_crops_of_the_coreset(infer, data, kept, tmp_path):
    name = "widget/squeezenet1_1_p0100_k01"
    model = PatchCore.load(kept / "trained" / name)
    coreset = replace(model.trained.coreset, patches=None)
    model.trained = replace(model.trained, coreset=coreset)
    infer.trained = tmp_path / "trained"
    model.save(infer.trained / name)
    hole = data / "widget/test/hole/000.png"
    infer(hole, "--pictures", "all", status=2)
    assert "crops of its coreset patches, found none: use --layout overlay and" in infer.err
    infer(hole, "--pictures", "all", "--layout", "overlay", "--explain_top", "0", status=1)
