"""Which images get large pictures, and what the files are called."""

import math
from pathlib import Path

import numpy as np
import pytest

from datasets.base import Sample
from patchcore.preprocess import Preprocess
from utils.pipeline.scene import WORST_LIMIT, Scene, SceneArrays, choose_images

TYPES = ["crack", "crack", "crack", "good", "good", "hole"]


def samples(types: list[str]) -> tuple[Sample, ...]:
    return tuple(
        Sample(Path(f"data/nut/test/{kind}/{n:03d}.png"), "nut", kind)
        for n, kind in enumerate(types)
    )


def choose(which: str, limit: int = 0, scores=(5, 1, 4, 2, 3.5, 6), threshold=3.0) -> list[int]:
    return choose_images(samples(TYPES), np.array(scores), threshold, which, limit)


@pytest.mark.parametrize(
    ("which", "limit", "expected"),
    [
        ("none", 0, []),
        ("all", 0, [0, 1, 2, 3, 4, 5]),
        ("defective", 0, [0, 1, 2, 5]),
        ("all", 3, [0, 3, 5]),  # the first of each type
        ("all", 4, [0, 1, 3, 5]),
        ("defective", 3, [0, 1, 5]),
        ("all", 99, [0, 1, 2, 3, 4, 5]),
        ("worst", 2, [1, 4]),  # missed by 2, a false alarm by 0.5
    ],
)
def test_images_are_chosen(which, limit, expected):
    assert choose(which, limit) == expected


def test_without_a_threshold_the_worst_good_images_score_highest():
    chosen = choose_images(samples(["good"] * 3), np.array([1, 3, 2]), math.nan, "worst", 2)
    assert chosen == [1, 2]


def test_the_worst_have_a_limit_of_their_own():
    many = samples(["good"] * 30)
    assert len(choose_images(many, np.arange(30.0), 10.0, "worst", 0)) == WORST_LIMIT


def make_scene(**changed) -> Scene:
    values = {
        "category": "nut",
        "tag": "p0100_k01",
        "percentage": 0.1,
        "samples": samples(TYPES),
        "scores": np.array([5, 1, 4, 2, 3.5, 10], np.float32),
        "chosen": frozenset({0, 5}),
        "score_range": (0.0, 10.0),
        "image_threshold": 3.0,
        "pixel_threshold": 3.0,
        "sources": (("nut/train/good/000.png", ""),),
        "root": Path("data"),
        "preprocess": Preprocess(),
        "explain_top": 3,
    }
    return Scene(**values | changed)


def test_names_tell_category_type_file_setting_and_share_of_the_largest_score():
    names = make_scene().names(0)
    assert names.thumbnail == "thumbnails/nut_crack_000_p0100_k01.jpg"
    assert names.localization == "localization_nut_crack_000_p0100_k01_s050.png"
    assert names.explanation == "explanation_nut_crack_000_p0100_k01.png"
    assert names.record == "explanation_nut_crack_000_p0100_k01.json"


def test_what_is_not_drawn_has_no_name():
    assert make_scene().names(1).thumbnail
    assert make_scene().names(1).localization is None
    assert make_scene().names(1).explanation is None
    assert make_scene(explain_top=0).names(0).explanation is None
    assert make_scene(explain_top=0).names(0).localization


@pytest.mark.parametrize("has_masks", [True, False])
def test_saved_arrays_are_loaded_as_they_were(tmp_path, has_masks):
    rng = np.random.default_rng(0)
    arrays = SceneArrays(
        images=rng.integers(0, 256, (2, 8, 8, 3), dtype=np.uint8),
        anomaly_maps=rng.random((2, 8, 8), dtype=np.float32),
        distance=rng.random((2, 4, 4, 1), dtype=np.float32),
        nearest=rng.integers(0, 5, (2, 4, 4, 1)),
        coreset_patches=rng.integers(0, 256, (5, 4, 4, 3), dtype=np.uint8),
        places=rng.integers(0, 4, (5, 3)),
        masks=rng.random((2, 8, 8)) > 0.5 if has_masks else None,
    )
    arrays.save(tmp_path)
    loaded = SceneArrays.load(tmp_path)
    for name, array in vars(arrays).items():
        if array is None:
            assert getattr(loaded, name) is None
        else:
            np.testing.assert_array_equal(getattr(loaded, name), array)
            assert isinstance(getattr(loaded, name), np.memmap)
