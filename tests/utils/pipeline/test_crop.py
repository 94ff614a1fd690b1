"""The share of each image that is not judged is logged, with the flag that changes it."""

import logging

import pytest

from patchcore.preprocess import Preprocess
from tests.support import evaluate, make_category
from utils.pipeline.crop import report_crop


@pytest.mark.parametrize(
    ("resize", "crop", "advice", "message"),
    [
        ((256, 256), (224, 224), "", "23.4 % of each image, at its borders, is not judged: "
         "crop of 224x224 of 256x256 pixels"),
        ((256, 256), (224, 224), "use", "23.4 % of each image, at its borders, is not judged: "
         "crop of 224x224 of 256x256 pixels (use --size_crop 256 for the whole image)"),
        ((100, 200), (100, 150), "train with", "25.0 % of each image, at its borders, is not "
         "judged: crop of 150x100 of 200x100 pixels (train with --size_crop 100 200 for the whole "
         "image)"),
        ((256, 256), (256, 256), "use", None),
    ],
)  # fmt: skip
def test_the_share_of_each_image_that_is_not_judged(caplog, resize, crop, advice, message):
    caplog.set_level(logging.INFO)
    report_crop(Preprocess(resize, crop), advice)
    assert caplog.messages == ([] if message is None else [message])


def test_the_centre_of_images_with_their_aspect_kept(caplog):
    caplog.set_level(logging.INFO)
    report_crop(Preprocess((448, 448), (448, 672), resize="shorter_edge"))
    assert "a shorter edge of 448 pixels and cropped to the central 672x448 pixels" in caplog.text


@pytest.mark.parametrize(("category", "advises"), [("bottle", False), ("widget", True)])
def test_only_own_images_are_worth_another_crop(tmp_path, caplog, category, advises):
    """The crop is part of the protocol of a published dataset."""
    caplog.set_level(logging.INFO)
    make_category(tmp_path / "data", category)
    evaluate(tmp_path / "data", tmp_path / "result")
    assert "of each image, at its borders, is not judged" in caplog.text
    assert ("for the whole image" in caplog.text) == advises
