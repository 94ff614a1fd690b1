"""What ``--on_error skip`` skips, and what it does not."""

import logging
from pathlib import Path

import pytest

from datasets.base import GOOD, Category, Sample, UnusableFilesError
from patchcore.errors import ChangedImagesError
from utils.options.reading import FaultOptions
from utils.pipeline.skipping import Skipping

SAMPLES = tuple(Sample(Path(f"{number}.png"), "cap", GOOD) for number in range(3))
TESTED = tuple(Sample(Path(f"{number}.png"), "cap", GOOD) for number in (3, 4))
CAP = Category("cap", SAMPLES, (), has_masks=False)


@pytest.fixture
def skipping():
    return Skipping(FaultOptions(on_error="skip"))


def test_an_error_of_the_program_is_no_reason(skipping):
    def fail(category):
        raise RuntimeError("a mistake")

    with pytest.raises(RuntimeError, match="a mistake"):
        skipping.compute(CAP, fail)
    assert not skipping.categories


def test_images_that_changed_between_two_passes(skipping):
    error = ChangedImagesError(["1.png"])

    def fit(category):
        if len(category.train) == 3:
            raise error
        return [sample.path.name for sample in category.train]

    assert skipping.compute(CAP, fit) == ["0.png", "2.png"]
    assert skipping.images == {"cap": {"1.png": str(error)}}


def test_training_and_test_images_are_counted(skipping, caplog):
    caplog.set_level(logging.INFO)
    reasons = {"0.png": "cannot read 0.png", "2.png": "cannot read 2.png"}

    def fit(category):
        if len(category.train) == 2:
            raise UnusableFilesError(reasons)
        return len(category.train), len(category.test)

    whole = Category("cap", SAMPLES[:2], (SAMPLES[2], *TESTED), has_masks=False)
    assert skipping.compute(whole, fit) == (1, 2)
    assert caplog.messages[-1] == "cap: starts again without 2 images"


def test_a_file_that_is_none_of_the_categorys_costs_the_category(skipping):
    def fit(category, calls=[]):  # noqa: B006
        calls.append(category)
        assert len(calls) == 1
        raise UnusableFilesError({"3.png": "cannot read 3.png"})

    assert skipping.compute(CAP, fit) is None
    assert skipping.categories == {"cap": "cannot read 3.png"}
    assert not skipping.images
