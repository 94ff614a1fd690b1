"""Test images are drawn here or by other processes, with the same result."""

import json
import os
import shutil
import tempfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from tests.utils.commands.test_scene import make_scene

from tests.support import NUM_TEST_PER_TYPE, TEST_TYPES, evaluate, make_category, names
from utils.errors import UsageError
from utils.pipeline import drawing as drawing_module
from utils.pipeline.drawing import Drawing
from utils.pipeline.scene import SceneArrays
from utils.pipeline.training_images import read_training_image
from utils.results import ResultFolder

FLAGS = "--pictures all --percentage_coreset 0.1 --flip vertical --k 2"


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


@pytest.fixture(scope="module")
def here(data, tmp_path_factory) -> Path:
    """Return the results of a run that drew everything in its own process."""
    return evaluate(data, tmp_path_factory.mktemp("here") / "result", f"{FLAGS} --num_workers 0")


def test_other_processes_draw_the_same_and_leave_no_files_behind(data, here, tmp_path, monkeypatch):
    monkeypatch.setattr(drawing_module, "FEW_IMAGES", 1)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    there = evaluate(data, tmp_path / "result", f"{FLAGS} --num_workers 2")
    files = drawn_files(here)
    assert len(files) == 4 * len(TEST_TYPES) * NUM_TEST_PER_TYPE
    assert drawn_files(there) == files
    assert [path.name for path in tmp_path.iterdir()] == ["result"]


def test_records_tell_files_places_and_distances(data, here):
    for name in names(here, "explanation_*.json"):
        record = json.loads((here / name).read_text(encoding="utf-8"))
        assert (data / record["file"]).is_file()
        assert record["size_crop"] == [64, 64]
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
                assert near["flip"] in ("", "vertical")
                assert 0 <= near["row"] < height
                assert 0 <= near["column"] < width
                left, top, right, bottom = near["box"]
                assert 0 <= left < right <= 64
                assert 0 <= top < bottom <= 64


def test_the_neighbours_place_is_where_its_crop_was_cut(data, tmp_path, monkeypatch):
    """In files, flips and places nothing is mixed up on the way."""
    seen = []

    def spy(image, grid, records, *, crops, whole_image):
        for record in records:
            for near in record["nearest"]:
                whole = whole_image(near["file"], near["flip"])
                seen.append((crops(near), whole, near))
        return original(image, grid, records, crops=crops, whole_image=whole_image)

    original = drawing_module.explained_patches
    monkeypatch.setattr(drawing_module, "explained_patches", spy)
    evaluate(data, tmp_path / "result", f"{FLAGS} --num_workers 0 --batch_size 4")
    assert {near["flip"] for *_, near in seen} == {"", "vertical"}
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
    measure = drawing_module.draw_image

    def draw(*arguments):
        shutil.rmtree(copy / "widget/train", ignore_errors=True)
        return measure(*arguments)

    monkeypatch.setattr(drawing_module, "draw_image", draw)
    result = evaluate(copy, tmp_path / "result", f"{FLAGS} --num_workers 0")
    read_training_image.cache_clear()
    pictures = list(result.glob("explanation_*.png"))
    assert len(pictures) == len(TEST_TYPES) * NUM_TEST_PER_TYPE
    # Two crops a row instead of two crops and two whole images.
    assert {cv2.imread(str(path)).shape[1] for path in pictures} == {1240}


def test_an_earlier_runs_page_moves_with_its_pictures(here, data, tmp_path):
    folder = shutil.copytree(here, tmp_path / "result")
    before = drawn_files(folder) | {"index.html": (folder / "index.html").read_bytes()}
    evaluate(data, folder, "--pictures none")
    assert not drawn_files(folder)
    (earlier,) = (folder / "earlier").iterdir()
    assert drawn_files(earlier) | {"index.html": (earlier / "index.html").read_bytes()} == before


def test_without_pictures_nothing_is_drawn_of_test_images(data, tmp_path):
    result = evaluate(data, tmp_path / "result", "--pictures none")
    assert not drawn_files(result)
    assert (result / "index.html").is_file()


def test_a_process_that_dies_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(drawing_module, "_draw_saved", _die)
    monkeypatch.setattr(drawing_module, "FEW_IMAGES", 1)
    arrays = _small_arrays()
    with (
        pytest.raises(UsageError, match="--num_workers 0"),
        Drawing(ResultFolder(tmp_path), 1) as drawing,
    ):
        drawing.draw(make_scene(), arrays)


def test_a_full_disk_is_told(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(SceneArrays, "save", full)
    monkeypatch.setattr(drawing_module, "FEW_IMAGES", 1)
    with (
        pytest.raises(UsageError, match=r"No space left on device.*TMPDIR"),
        Drawing(ResultFolder(tmp_path), 1) as drawing,
    ):
        drawing.draw(make_scene(), _small_arrays())


def test_processes_of_the_pool_stay_in_the_background():
    pool = drawing_module._start_pool(1)
    try:
        assert pool.submit(os.nice, 0).result() == drawing_module.NICENESS
        assert pool.submit(cv2.getNumThreads).result() == 1
    finally:
        pool.shutdown()


def test_the_error_that_ends_a_run_is_not_replaced(tmp_path, monkeypatch):
    monkeypatch.setattr(drawing_module, "_draw_saved", _die)
    monkeypatch.setattr(drawing_module, "FEW_IMAGES", 1)

    def stop_while_drawing():
        with Drawing(ResultFolder(tmp_path), 1) as drawing:
            drawing.draw(make_scene(), _small_arrays())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        stop_while_drawing()


def _die(*_) -> None:
    os._exit(1)


def _small_arrays():
    zeros = np.zeros
    return SceneArrays(
        images=zeros((6, 8, 8, 3), np.uint8),
        anomaly_maps=zeros((6, 8, 8), np.float32),
        distance=zeros((6, 4, 4, 1), np.float32),
        nearest=zeros((6, 4, 4, 1), np.int64),
        coreset_patches=zeros((5, 4, 4, 3), np.uint8),
        places=zeros((5, 3), np.int64),
        masks=None,
    )
