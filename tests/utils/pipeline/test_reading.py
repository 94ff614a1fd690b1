"""Deep images and notes through the whole program: found in training, stored, and used by infer."""

import json
import logging
from pathlib import Path

import cv2
import numpy as np
import pytest

from datasets.base import GOOD, Category, DatasetError, Sample, UnusableFilesError
from datasets.depth import Decoding, ValueRange
from datasets.images import CLIPPED
from datasets.masks import JPEG_MASK
from datasets.notes import Notes
from patchcore.errors import PatchCoreError
from patchcore.record import read_record
from tests.support import (
    NUM_TEST_PER_TYPE,
    NUM_TRAIN,
    SIDE,
    call,
    evaluate,
    make_category,
    quick,
    read_run,
    write_image,
)
from utils.options.train import DEFAULTS
from utils.pipeline.reading import Reading, find_reading, log_notes


def deepen(folder, factor: float, dtype: type, ending: str = "png") -> None:
    """Multiply the values of all images, and leave the masks."""
    for path in folder.rglob("[0-9][0-9][0-9].png"):
        image = cv2.imread(str(path)).astype(np.float64) * factor
        path.unlink()
        cv2.imwrite(str(path.with_suffix(f".{ending}")), image.astype(dtype))


@pytest.fixture
def train(tmp_path):
    def train(folder, *flags: str) -> dict:
        words = [word for word in quick() if word not in ("--pictures", "none")]
        path = tmp_path / "trained"
        assert call("train", folder, "--category", "x", *words, *flags, "--path_trained", path) == 0
        return read_record(path / "x/squeezenet1_1_p0100_k01")

    return train


@pytest.fixture
def scores(tmp_path, capsys):
    def scores(folder) -> dict[str, float]:
        words = ["--path_trained", tmp_path / "trained", "--path_result", tmp_path / "inferred"]
        call("infer", folder, *words, "--json", "--threshold", "1000")
        lines = capsys.readouterr().out.splitlines()
        records = [json.loads(line) for line in lines if line.startswith("{")]
        return {record["path"].rpartition(".")[0]: record.get("score") for record in records}

    return scores


def test_12_bits_give_the_scores_of_8(tmp_path, train, scores, caplog):
    folder = make_category(tmp_path)
    assert train(folder / "train/good")["value_range"] is None
    ordinary = scores(folder / "test")
    deepen(folder, 16, np.uint16)
    with caplog.at_level(logging.INFO):
        record = train(folder / "train/good")
    assert record["value_range"] == {"low": 0, "high": 4095, "is_float": False}
    assert "x: values of 12 bits (found in the training images; --bit_depth sets" in caplog.text
    assert scores(folder / "test") == ordinary


def test_floats_are_stored_by_their_range(tmp_path, train, scores):
    folder = make_category(tmp_path)
    deepen(folder, 1 / 255, np.float32, "tiff")
    found = train(folder / "train/good")["value_range"]
    assert (found["low"], found["high"]) == pytest.approx((90 / 255, 159 / 255))
    assert found["is_float"]
    assert len(scores(folder / "test/good")) == 2


def test_the_flag_sets_the_depth_that_is_stored(tmp_path, train):
    folder = make_category(tmp_path)
    assert train(folder / "train/good", "--bit_depth", "14")["value_range"]["high"] == 2**14 - 1


def test_notes_of_an_evaluation_are_logged_and_recorded_once(tmp_path, caplog):
    folder = make_category(tmp_path / "data")
    for path in folder.rglob("*_mask.png"):
        path.with_suffix(".jpg").write_bytes(
            cv2.imencode(".jpg", cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))[1].tobytes()
        )
        path.unlink()
    with caplog.at_level(logging.WARNING):
        result = evaluate(tmp_path / "data", tmp_path / "result")
    found = read_run(result)["file_notes"]["widget"]
    assert {reason: note["count"] for reason, note in found.items()} == {JPEG_MASK: 4}
    assert caplog.text.count("JPEG mask") == 1


def test_notes_of_a_training_and_of_an_extension_are_logged_once(tmp_path, train, caplog):
    """Also if the figure of suspects reads the images again."""
    folder = make_category(tmp_path)
    deepen(folder, 8, np.uint16)
    with caplog.at_level(logging.WARNING):
        train(folder / "train/good", "--bit_depth", "10")
        extended = tmp_path / "trained/x/squeezenet1_1_p0100_k01"
        assert call("train", "--extend", extended, folder / "test/good") == 0
    found = [text.partition(" (")[0] for text in caplog.messages if "clipped" in text]
    clipped = CLIPPED.format("10 bits").partition(" (")[0]
    assert found == [f"x: {NUM_TRAIN} files: {clipped}", f"x: {NUM_TEST_PER_TYPE} files: {clipped}"]


@pytest.mark.parametrize(("name", "start"), [("cap", "cap: 1 file: odd"), ("", "1 file: odd")])
def test_notes_begin_with_the_category_if_there_is_one(caplog, name, start):
    notes = Notes()
    notes.add("odd", "a.png")
    assert log_notes(notes, name) == {"odd": {"count": 1, "example": "a.png"}}
    assert caplog.messages == [f"{start} (for example a.png)"]


@pytest.mark.parametrize(
    ("reads_on", "read", "named"), [(False, ["a"], ["a"]), (True, ["a", "b", "c"], ["a", "c"])]
)
def test_all_files_that_cannot_be_used_are_named_if_they_may_be_skipped(reads_on, read, named):
    seen = []

    def load(name: str) -> str:
        seen.append(name)
        if name == "a":
            raise DatasetError(f"no image: {name}")
        if name == "c":  # does not name the file
            raise PatchCoreError("too small")
        return name

    reading = Reading(Decoding(), batch_size=2, threads=0, reads_on=reads_on)
    with pytest.raises(UnusableFilesError) as caught:
        list(reading.batches(load, "abc", Path))
    assert seen == read
    reasons = {"a": "no image: a", "c": "too small: c"}
    assert caught.value.reasons == {name: reasons[name] for name in named}


class TestFindReading:
    def category(self, *paths) -> Category:
        return Category("x", tuple(Sample(path, "x", GOOD) for path in paths), (), has_masks=False)

    def find(self, *paths) -> Decoding:
        return find_reading(self.category(*paths), DEFAULTS).decoding

    def test_8_bits_are_not_decoded(self, tmp_path, monkeypatch):
        path = write_image(tmp_path / "a.png", np.zeros((SIDE, SIDE, 3), np.uint8))
        monkeypatch.setattr(cv2, "imdecode", lambda *a: pytest.fail("decoded"))
        assert self.find(path) == Decoding()

    @pytest.mark.parametrize(
        ("largest", "bits"),
        [(255, 8), (256, 10), (1023, 10), (1024, 12), (4095, 12), (16383, 14), (16384, 16)],
    )
    def test_the_smallest_depth_that_holds_all_images(self, tmp_path, largest, bits):
        paths = [
            write_image(tmp_path / f"{value}.png", np.full((4, 4), value, np.uint16))
            for value in (7, largest)
        ]
        assert self.find(*paths).value_range == ValueRange.of_bits(bits)

    def test_floats_among_integers_are_refused(self, tmp_path):
        one = write_image(tmp_path / "a.tiff", np.full((4, 4), 0.5, np.float32))
        other = write_image(tmp_path / "b.png", np.full((4, 4), 500, np.uint16))
        with pytest.raises(DatasetError, match=r"images of one kind.*b\.png and .*a\.tiff"):
            self.find(one, other)
