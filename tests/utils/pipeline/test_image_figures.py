"""What figures show of a category: file names, patches, arrays of each image."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from datasets.base import MaskFiles, Sample
from patchcore import Prediction
from patchcore.ignored import Ignored
from patchcore.origins import Origins
from utils.options.evaluate import EvaluateOptions
from utils.pipeline.category_view import CategoryView
from utils.pipeline.image_figures import describe_images, make_figures
from utils.report import ReportImage
from utils.results import ResultRow

TYPES = ["crack", "crack", "crack", "good", "good", "hole"]


def samples(types: list[str]) -> tuple[Sample, ...]:
    return tuple(
        Sample(Path(f"data/nut/test/{kind}/{n:03d}.png"), "nut", kind)
        for n, kind in enumerate(types)
    )


def make_options(**changed) -> EvaluateOptions:
    values = {"path_data": Path("data"), "pictures": "all", "size_resize": (8,), "size_crop": (8,)}
    return EvaluateOptions(**values | changed)


def make_view(**changed) -> CategoryView:
    """Return a view of six test images of 8x8 pixels with a coreset of 40 patches."""
    rng = np.random.default_rng(0)
    metrics = {"image_threshold": 3.0, "pixel_threshold": math.nan}
    origins = Origins(
        names=("data/nut/train/good/000.png", "data/nut/train/good/001.png"),
        versions=("", "vertical flip"),
        image=np.arange(40) // 20,
        version=np.arange(40) % 2,
        row=np.arange(40) % 4,
        column=np.arange(40) // 4 % 4,
    )
    values = {
        "row": ResultRow("nut", 0.1, 1, 0, 2, 6, metrics, {}, "net"),
        "samples": samples(TYPES),
        "prediction": Prediction(
            score=np.array([5, 1, 4, 2, 3.5, 10], np.float32),
            anomaly_map=rng.random((6, 8, 8), dtype=np.float32),
            distance=rng.random((6, 4, 4, 2), dtype=np.float32),
            nearest=rng.integers(0, 40, (6, 4, 4, 2)),
        ),
        "images": rng.integers(0, 256, (6, 8, 8, 3), dtype=np.uint8),
        "origins": origins,
        "patches": rng.integers(0, 256, (40, 4, 4, 3), dtype=np.uint8),
    }
    return CategoryView(**values | changed)


def test_names_tell_category_type_file_setting_and_share_of_the_largest_score():
    described, *others = describe_images(make_view(), make_options())
    assert described.thumbnail == "thumbnails/nut_crack_000_p0100_k01.jpg"
    assert described.localization == "localization_nut_crack_000_p0100_k01_s050.png"
    assert described.explanation == "explanation_nut_crack_000_p0100_k01.png"
    assert [one.localization[-8:-4] for one in others] == ["s010", "s040", "s020", "s035", "s100"]
    assert (described.file, described.score, described.defective) == ("000.png", 5.0, True)
    assert [patch["rank"] for patch in described.patches] == [1]  # the others are too near


def test_figures_that_are_not_drawn_have_no_name():
    described = describe_images(make_view(), make_options(pictures="defective"))
    assert described[3].thumbnail
    assert (described[3].localization, described[3].explanation) == (None, None)
    assert not described[3].patches
    without = describe_images(make_view(), make_options(explain_top=0))[0]
    assert without.localization
    assert without.explanation is None
    assert not without.patches


def test_without_images_only_the_scores_are_described():
    view = make_view(images=None, origins=None, patches=None)
    described = describe_images(view, make_options(pictures="none"))
    expected = [
        ReportImage(sample.defect_type, sample.path.name, score, sample.is_defective)
        for sample, score in zip(samples(TYPES), view.prediction.score.tolist(), strict=True)
    ]
    assert described == expected


def test_neighbours_are_named_relative_to_the_datasets_folder():
    view = make_view()
    versions = set()
    for number, described in enumerate(describe_images(view, make_options())):
        (patch,) = described.patches
        expected = view.prediction.nearest[number, patch["row"], patch["column"]].tolist()
        assert [near["coreset_index"] for near in patch["nearest"]] == expected
        for near, index in zip(patch["nearest"], expected, strict=True):
            assert near["file"] == f"nut/train/good/{index // 20:03d}.png"
            assert near["version"] == ("vertical flip" if index % 2 else "")
            assert (near["row"], near["column"]) == (index % 4, index // 4 % 4)
            versions.add(near["version"])
    assert versions == {"", "vertical flip"}


@pytest.mark.parametrize("masked", [(), (0, 1, 2, 5), (0, 5)])
def test_figures_hold_the_arrays_of_their_own_image_alone(masked):
    view = make_view(masks=np.arange(6 * 8 * 8).reshape(6, 8, 8) % 3 == 0 if masked else None)
    mask = MaskFiles((Path("mask.png"),))
    tested = [replace(s, mask=mask if n in masked else None) for n, s in enumerate(view.samples)]
    view = replace(view, samples=tuple(tested))
    described = describe_images(view, make_options())
    make = make_figures(view, described, make_options(score_max=7.0))
    for index in range(6):
        figures = make(index)
        nearest = view.prediction.nearest[index, :, :, 0]
        np.testing.assert_array_equal(figures.patches[figures.nearest], view.patches[nearest])
        assert len(figures.patches) == len(np.unique(nearest))
        np.testing.assert_array_equal(figures.image, view.images[index])
        np.testing.assert_array_equal(figures.anomaly_map, view.prediction.anomaly_map[index])
        (patch,) = described[index].patches
        near = view.prediction.nearest[index, patch["row"], patch["column"]]
        np.testing.assert_array_equal(figures.explained, view.patches[near][None])
        if masked and (index in masked or TYPES[index] == "good"):
            np.testing.assert_array_equal(figures.mask, view.masks[index])
        elif TYPES[index] == "good":
            np.testing.assert_array_equal(figures.mask, np.zeros((8, 8), bool), strict=True)
        else:
            assert figures.mask is None
    settings = figures.settings
    assert (settings.image_threshold, settings.pixel_threshold) == (3.0, None)
    assert settings.score_range == (0.0, 7.0)


def test_without_score_max_the_colours_reach_from_the_lowest_to_the_highest_distance():
    view = make_view()
    figures = make_figures(view, describe_images(view, make_options()), make_options())(0)
    maps = view.prediction.anomaly_map
    assert figures.settings.score_range == (maps.min(), maps.max())


def test_ignored_patches_are_not_explained():
    view = make_view()
    (first,) = describe_images(view, make_options())[0].patches
    patches = np.zeros((4, 4), bool)
    patches[first["row"], first["column"]] = True
    view = replace(view, ignored=Ignored(np.zeros((8, 8), bool), patches))
    (second,) = describe_images(view, make_options())[0].patches
    assert (second["row"], second["column"]) != (first["row"], first["column"])
    assert second["score"] < first["score"]


def test_ignored_pixels_do_not_count_in_the_range_of_the_colours():
    view = make_view()
    maps = view.prediction.anomaly_map
    ignored = (maps == maps.min()).any(0) | (maps == maps.max()).any(0)
    view = replace(view, ignored=Ignored(ignored, np.zeros((4, 4), bool)))
    settings = make_figures(view, describe_images(view, make_options()), make_options())(0).settings
    judged = [one[~ignored] for one in maps]
    assert settings.score_range == (np.min(judged), np.max(judged))
    assert maps.min() < settings.score_range[0] < settings.score_range[1] < maps.max()
    np.testing.assert_array_equal(settings.ignored, ignored)


@pytest.mark.parametrize(
    ("chosen", "used"), [("backbone", "bilinear"), ("bicubic", "bicubic"), ("bilinear", "bilinear")]
)
def test_training_images_are_shown_as_the_model_sees_them(chosen, used):
    """Those of several backbones may differ: then one of them has to do."""
    options = make_options(interpolation=chosen, resize="shorter_edge", size_resize=(9,))
    view = make_view()
    preprocess = make_figures(view, describe_images(view, options), options)(0).settings.preprocess
    assert (preprocess.interpolation, preprocess.resize) == (used, "shorter_edge")
    assert (preprocess.size_resize, preprocess.size_crop) == ((9, 9), (8, 8))
