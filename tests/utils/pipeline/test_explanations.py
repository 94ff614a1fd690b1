"""Explanations name the training patches that an image's patches are nearest to."""

import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from datasets.depth import Decoding
from datasets.entries import relative_name
from datasets.items import Item
from patchcore import PatchCore, Prediction
from patchcore.origins import Origins
from patchcore.preprocess import Preprocess
from patchcore.thresholds import Threshold, Thresholds
from tests.support import write_image
from utils import plots
from utils.options.infer import InferOptions
from utils.pipeline.explanations import (
    CONTEXT_FIELDS,
    crops_of_nearest,
    describe_patches,
    explained_patches,
    read_training_image,
    with_relative_names,
)
from utils.pipeline.prediction_pictures import PredictionPictures
from utils.result_folder import ResultFolder

SIZE = (64, 64)
FILES = tuple(f"widget/train/good/{number:03d}.png" for number in range(4))


def textures(count: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8) for _ in range(count)]


@pytest.fixture(scope="module")
def model() -> PatchCore:
    """Return a model that keeps all patches of four images in its coreset."""
    model = PatchCore(
        "squeezenet1_1",
        ["features.3", "features.6"],
        weights="random",
        size_resize=SIZE,
        size_crop=SIZE,
        embed_dim=64,
        percentage_coreset=1.0,
    )
    return model.fit(textures(4), names=FILES)


def test_with_all_patches_in_the_coreset_a_training_image_explains_itself(model):
    prediction = model.predict(textures(4))
    for number in range(4):
        for record in describe_patches(prediction.of(number), model.coreset.origins, SIZE, 3):
            (nearest,) = record["nearest"]
            assert (nearest["file"], nearest["version"]) == (FILES[number], "")
            assert (nearest["row"], nearest["column"]) == (record["row"], record["column"])
            assert nearest["box"] == record["box"]
            # In float32 the distance of a patch to itself is a rounding error of its norm.
            assert record["score"] == nearest["distance"] < 1e-2


def test_the_first_patch_is_the_one_that_scored_the_image(model):
    odd = textures(1, seed=5)[0]
    odd[24:40, 8:24] = 255
    prediction = model.predict([odd])
    first, *others = describe_patches(prediction, model.coreset.origins, SIZE, 3)
    assert first["score"] == pytest.approx(float(prediction.score[0]))
    assert all(other["score"] <= first["score"] for other in others)
    assert [record["rank"] for record in (first, *others)] == [1, 2, 3]
    left, top, right, bottom = first["box"]
    assert left < 24
    assert right > 8
    assert top < 40
    assert bottom > 24


NEAREST = {
    **{"distance": 2.0, "coreset_index": 1, "file": "w/train/good/007.png", "version": ""},
    **{"row": 5, "column": 6, "box": [48, 40, 56, 48]},
}
RECORD = {
    **{"rank": 1, "row": 4, "column": 3, "box": [24, 32, 32, 40], "score": 2.0},
    "nearest": [NEAREST],
}
CORESET_PATCHES = np.arange(3, dtype=np.uint8)[:, None, None, None] * np.ones((16, 16, 3), np.uint8)


def test_the_figure_shows_equally_much_around_both_patches():
    test, train = textures(2)
    crops = crops_of_nearest([RECORD], CORESET_PATCHES)
    (patch,) = explained_patches(test, [RECORD], crops, (8, 8), lambda file, version: train)
    (nearest,) = patch.nearest
    assert patch.crop.shape == nearest.crop.shape == (8 * CONTEXT_FIELDS, 8 * CONTEXT_FIELDS, 3)
    left, top, right, bottom = patch.field
    np.testing.assert_array_equal(patch.crop[top:bottom, left:right], test[32:40, 24:32])
    np.testing.assert_array_equal(nearest.crop[top:bottom, left:right], train[40:48, 48:56])
    assert (patch.box, nearest.name) == ((4, 12, 52, 60), "007.png")
    assert nearest.box == (28, 20, 64, 64)


@pytest.mark.parametrize("side", [1, 2, 3, 5])
def test_a_field_of_few_pixels(side):
    test, train = (image[: 8 * side, : 8 * side] for image in textures(2))
    crops = crops_of_nearest([RECORD], CORESET_PATCHES)
    (patch,) = explained_patches(test, [RECORD], crops, (8, 8), lambda file, version: train)
    left, top, right, bottom = patch.field
    expected = test[4 * side : 5 * side, 3 * side : 4 * side]
    np.testing.assert_array_equal(patch.crop[top:bottom, left:right], expected)


def test_without_one_training_image_all_crops_of_the_row_are_those_of_the_coreset():
    test, train = textures(2)
    gone = NEAREST | {"coreset_index": 2, "file": "gone.png", "version": "vertical flip"}
    records = [RECORD | {"nearest": [NEAREST, gone]}]
    crops = crops_of_nearest(records, CORESET_PATCHES)
    read = {("w/train/good/007.png", ""): train, ("gone.png", "vertical flip"): None}
    (patch,) = explained_patches(test, records, crops, (8, 8), lambda *name: read[name])
    first, second = patch.nearest
    assert first.whole is train
    assert second.whole is second.box is None
    assert second.name == "gone.png, vertical flip"
    np.testing.assert_array_equal(first.crop, CORESET_PATCHES[1])
    np.testing.assert_array_equal(second.crop, CORESET_PATCHES[2])
    np.testing.assert_array_equal(patch.crop, test[28:44, 20:36])


def test_a_training_image_is_read_as_the_model_saw_it(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    path = write_image(tmp_path / "a.png", image)
    preprocess = Preprocess((8, 12), (4, 6))
    crop = image[2:6, 3:9]
    np.testing.assert_array_equal(read_training_image(path, "", preprocess, Decoding()), crop)
    np.testing.assert_array_equal(
        read_training_image(path, "vertical flip", preprocess, Decoding()), crop[::-1]
    )
    np.testing.assert_array_equal(
        read_training_image(path, "horizontal flip", preprocess, Decoding()), crop[:, ::-1]
    )
    assert read_training_image(tmp_path / "none.png", "", preprocess, Decoding()) is None


def test_the_rebuilt_image_has_the_nearest_patches_alone(monkeypatch, tmp_path):
    drawn = []

    def draw_localization(image, *, rebuilt, **others):
        drawn.append(rebuilt)
        return image

    monkeypatch.setattr(plots, "draw_localization", draw_localization)
    model = SimpleNamespace(
        scorer=SimpleNamespace(ignored=None),
        trained=SimpleNamespace(held_out=None),
        coreset=SimpleNamespace(patches=CORESET_PATCHES),
    )
    nearest = np.full((1, 8, 8, 2), (1, 2))
    prediction = Prediction(np.ones(1), np.ones((1, *SIZE)), np.ones((1, 8, 8, 2)), nearest)
    threshold = Threshold(1.0, "given")
    options, folder = InferOptions(pictures="all"), ResultFolder(tmp_path)
    pictures = PredictionPictures(model, Thresholds(threshold, threshold), options, folder)
    image = textures(1)[0]
    pictures.draw(Item("a.png"), image, image, prediction, is_anomaly=True)
    np.testing.assert_array_equal(drawn, np.ones((1, *SIZE, 3)))


def test_names_are_relative_to_the_datasets_folder():
    assert relative_name(Path("data/nut/a.png"), Path("data")) == "nut/a.png"
    assert relative_name(Path("elsewhere/a.png"), Path("data")) == "elsewhere/a.png"
    names = (os.path.join("data", "nut", "a.png"), "elsewhere/a.png")  # noqa: PTH118
    origins = Origins(names, ("",), *np.zeros((4, 1), np.int64))
    assert with_relative_names(origins, Path("data")).names == ("nut/a.png", "elsewhere/a.png")
