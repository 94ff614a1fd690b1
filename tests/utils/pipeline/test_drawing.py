"""Test images are drawn here or by other processes, with the same result."""

import json
import shutil
from pathlib import Path
from typing import ClassVar
from unittest import mock

import cv2
import numpy as np
import pytest

from tests.support import (
    NUM_PATCHES,
    NUM_TEST_PER_TYPE,
    NUM_TRAIN,
    TEST_TYPES,
    evaluate,
    make_category,
    names,
)
from utils.pipeline import drawing as drawing_module
from utils.pipeline import explanations
from utils.pipeline.explanations import read_training_image
from utils.pipeline.image_figures import ImageFigures
from utils.plots.explanation import CROP_SIDE, GAP, IMAGE_SIDE, LINE_WIDTH
from utils.plots.panel_grid import MARGIN

FLAGS = "--pictures all --percentage_coreset 0.1 --augment vertical --k 2"


@pytest.fixture(autouse=True)
def _few_images(monkeypatch):
    """Draw in the background from the first image on."""
    monkeypatch.setattr(drawing_module, "FEW_IMAGES", 1)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("data")
    make_category(root, "widget")
    return root


def drawn_files(folder: Path) -> dict[str, bytes]:
    patterns = ("localization_*", "explanation_*", "thumbnails/*")
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for pattern in patterns
        for path in folder.glob(pattern)
    }


class Bar:
    """Counts instead of showing it."""

    shown: ClassVar[list["Bar"]] = []

    def __init__(self, *, total: int, desc: str, **_):
        self.total, self.text, self.n = total, desc, 0
        self.shown.append(self)

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *_) -> None: ...

    def update(self, count: int = 1) -> None:
        self.n += count


@pytest.fixture(scope="module")
def here(data, tmp_path_factory) -> Path:
    """Return the results of a run that drew everything in its own process."""
    folder = tmp_path_factory.mktemp("here") / "result"
    with mock.patch("utils.progress.tqdm", Bar):
        return evaluate(data, folder, f"{FLAGS} --num_workers 0")


@pytest.mark.usefixtures("here")
def test_all_bars_of_a_run_begin_empty_and_end_full():
    """The bar of the background has nothing to show."""
    num_test, num_patches = len(TEST_TYPES) * NUM_TEST_PER_TYPE, NUM_PATCHES * 2 * NUM_TRAIN
    expected = {
        "widget: embed": 2 * NUM_TRAIN,  # with the flipped ones
        "widget: select": num_patches // 10,
        "widget: score": num_test,
        "widget: draw": num_test,
        "draw": 0,
    }
    assert {bar.text: bar.total for bar in Bar.shown} == expected
    assert {bar.text: bar.n for bar in Bar.shown} == expected


def test_other_processes_draw_the_same(data, here, tmp_path):
    there = evaluate(data, tmp_path / "result", f"{FLAGS} --num_workers 1")
    files = drawn_files(here)
    assert len(files) == 4 * len(TEST_TYPES) * NUM_TEST_PER_TYPE
    assert drawn_files(there) == files


def test_records_tell_files_places_and_distances(data, here):
    for name in names(here, "explanation_*.json"):
        record = json.loads((here / name).read_text(encoding="utf-8"))
        assert (data / record["file"]).is_file()
        assert record["size_crop"] == [64, 64]
        assert "shots" not in record
        height, width = record["grid"]
        scores = [patch["score"] for patch in record["patches"]]
        assert scores == sorted(scores, reverse=True)
        assert record["score"] == pytest.approx(scores[0], rel=1e-6)
        for patch in record["patches"]:
            distances = [near["distance"] for near in patch["nearest"]]
            assert len(distances) == 2
            assert distances == sorted(distances)
            for near in patch["nearest"]:
                assert (data / near["file"]).is_file()
                assert near["version"] in ("", "vertical flip")
                assert 0 <= near["row"] < height
                assert 0 <= near["column"] < width
                left, top, right, bottom = near["box"]
                assert 0 <= left < right <= 64
                assert 0 <= top < bottom <= 64


def test_the_neighbours_place_is_where_its_crop_was_cut(data, tmp_path, monkeypatch):
    """In files, versions and places nothing is mixed up on the way."""
    seen = []

    def spy(image, records, crops, grid, read):
        for record, crops_of_record in zip(records, crops, strict=True):
            for near, crop in zip(record["nearest"], crops_of_record, strict=True):
                seen.append((crop, read(near["file"], near["version"]), near))
        return original(image, records, crops, grid, read)

    original = explanations.explained_patches
    monkeypatch.setattr(explanations, "explained_patches", spy)
    evaluate(data, tmp_path / "result", f"{FLAGS} --num_workers 0 --batch_size 4")
    assert {near["version"] for *_, near in seen} == {"", "vertical flip"}
    for crop, whole, near in seen:
        height, width = crop.shape[:2]
        top = int((near["row"] + 0.5) * 64 / 15) - height // 2
        left = int((near["column"] + 0.5) * 64 / 15) - width // 2
        padded = np.pad(whole, ((32, 32), (32, 32), (0, 0)), mode="symmetric")
        expected = padded[top + 32 : top + 32 + height, left + 32 : left + 32 + width]
        np.testing.assert_array_equal(crop, expected)


def test_a_training_image_that_is_gone_costs_only_its_whole_picture(data, tmp_path, monkeypatch):
    read_training_image.cache_clear()
    copy = tmp_path / "data"
    shutil.copytree(data, copy)
    draw = ImageFigures.draw

    def remove_and_draw(*arguments):
        shutil.rmtree(copy / "widget/train", ignore_errors=True)
        return draw(*arguments)

    monkeypatch.setattr(ImageFigures, "draw", remove_and_draw)
    result = evaluate(copy, tmp_path / "result", f"{FLAGS} --num_workers 0")
    read_training_image.cache_clear()
    pictures = list(result.glob("explanation_*.png"))
    assert len(pictures) == len(TEST_TYPES) * NUM_TEST_PER_TYPE
    # The crops of the patch and of its two neighbours, without whole training images.
    width = 2 * MARGIN + IMAGE_SIDE + LINE_WIDTH + 3 * CROP_SIDE + 2 * GAP
    assert {cv2.imread(str(path)).shape[1] for path in pictures} == {width}


def test_an_earlier_runs_page_moves_with_its_pictures(here, data, tmp_path):
    folder = shutil.copytree(here, tmp_path / "result")
    before = drawn_files(folder) | {"index.html": (folder / "index.html").read_bytes()}
    evaluate(data, folder, "--pictures none --fresh")
    assert not drawn_files(folder)
    (earlier,) = (folder / "earlier").iterdir()
    assert drawn_files(earlier) | {"index.html": (earlier / "index.html").read_bytes()} == before


def test_without_pictures_nothing_is_drawn_of_test_images(data, tmp_path):
    result = evaluate(data, tmp_path / "result", "--pictures none")
    assert not drawn_files(result)
    assert (result / "index.html").is_file()
