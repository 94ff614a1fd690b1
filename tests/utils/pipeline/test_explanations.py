"""Explanations name the patches that an image was compared with."""

from pathlib import Path

import numpy as np
import pytest

from datasets.base import Sample
from patchcore import PatchCore, explain
from patchcore.origins import Origins
from utils.pipeline.explanations import (
    CONTEXT_FIELDS,
    CoresetOrigins,
    ImagePatches,
    describe_patches,
    explained_patches,
    name_sources,
    relative_name,
)

SIZE = (64, 64)


def textures(count: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8) for _ in range(count)]


@pytest.fixture(scope="module")
def model() -> PatchCore:
    """Return a model whose coreset is the whole bank of four images."""
    model = PatchCore(
        "squeezenet1_1",
        ["features.3", "features.6"],
        weights="random",
        size_resize=SIZE,
        size_crop=SIZE,
        embed_dim=64,
        percentage_coreset=1.0,
    )
    return model.fit(textures(4))


def origins_of(model: PatchCore) -> CoresetOrigins:
    sources = tuple((f"widget/train/good/{number:03d}.png", "") for number in range(4))
    return CoresetOrigins(sources, explain.locate(model.coreset.indices, model.grid))


def test_with_the_whole_bank_a_training_image_explains_itself(model):
    prediction = model.predict(textures(4))
    for number in range(4):
        patches = ImagePatches.of(prediction, number)
        for record in describe_patches(patches, origins_of(model), SIZE, 3):
            (nearest,) = record["nearest"]
            assert nearest["file"] == f"widget/train/good/{number:03d}.png"
            assert (nearest["row"], nearest["column"]) == (record["row"], record["column"])
            assert nearest["box"] == record["box"]
            # In float32 the distance of a patch to itself is a rounding error of its norm.
            assert record["score"] == nearest["distance"] < 1e-2


def test_the_first_patch_is_the_one_that_scored_the_image(model):
    odd = textures(1, seed=5)[0]
    odd[24:40, 8:24] = 255
    prediction = model.predict([odd])
    first, *others = describe_patches(ImagePatches.of(prediction, 0), origins_of(model), SIZE, 3)
    assert first["score"] == pytest.approx(float(prediction.score[0]))
    assert all(other["score"] <= first["score"] for other in others)
    assert [record["rank"] for record in (first, *others)] == [1, 2, 3]
    left, top, right, bottom = first["box"]
    assert left < 24
    assert right > 8
    assert top < 40
    assert bottom > 24


RECORD = {
    **{"rank": 1, "row": 4, "column": 3, "box": [24, 32, 32, 40], "score": 2.0},
    "nearest": [
        {
            **{"distance": 2.0, "coreset_index": 0, "file": "w/train/good/007.png", "flip": ""},
            **{"row": 5, "column": 6, "box": [48, 40, 56, 48]},
        }
    ],
}


def test_the_picture_shows_equally_much_around_both_patches():
    test, train = textures(2)
    (patch,) = explained_patches(
        test, (8, 8), [RECORD], crops=lambda _: None, whole_image=lambda file, flip: train
    )
    (nearest,) = patch.nearest
    assert patch.crop.shape == nearest.crop.shape == (8 * CONTEXT_FIELDS, 8 * CONTEXT_FIELDS, 3)
    left, top, right, bottom = patch.field
    np.testing.assert_array_equal(patch.crop[top:bottom, left:right], test[32:40, 24:32])
    np.testing.assert_array_equal(nearest.crop[top:bottom, left:right], train[40:48, 48:56])
    assert (patch.box, nearest.name) == ((4, 12, 52, 60), "007.png")
    assert nearest.box == (28, 20, 64, 64)


def test_without_the_training_images_their_crops_are_shown():
    (test,) = textures(1)
    kept = np.full((16, 16, 3), 77, np.uint8)
    (patch,) = explained_patches(
        test, (8, 8), [RECORD], crops=lambda _: kept, whole_image=lambda file, flip: None
    )
    (nearest,) = patch.nearest
    assert nearest.whole is None
    assert nearest.crop is kept
    np.testing.assert_array_equal(patch.crop, test[28:44, 20:36])


def test_sources_follow_the_order_of_embedding():
    train = [Sample(Path(f"data/nut/train/good/{n}.png"), "nut", "good") for n in range(2)]
    origins = Origins(np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1]))
    assert name_sources(train, origins, ("vertical",), Path("data")) == (
        ("nut/train/good/0.png", ""),
        ("nut/train/good/1.png", ""),
        ("nut/train/good/0.png", "vertical"),
        ("nut/train/good/1.png", "vertical"),
    )


def test_files_outside_the_datas_folder_keep_their_whole_name():
    assert relative_name(Path("elsewhere/a.png"), Path("data")) == "elsewhere/a.png"
