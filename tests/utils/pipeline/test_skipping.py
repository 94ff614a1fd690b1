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


@pytest.mark.parametrize(
    ("gone", "kind"), [("0.png", "training"), ("1.png", "normal test"), ("2.png", "defective test")]
)
def test_a_category_needs_an_image_of_each_kind_that_it_had(skipping, gone, kind):
    def fit(category):
        raise UnusableFilesError({gone: f"cannot read {gone}"})

    defect = Sample(Path("2.png"), "cap", "crack")
    assert skipping.compute(Category("cap", SAMPLES[:1], (SAMPLES[1], defect), False), fit) is None
    assert skipping.categories == {"cap": f"no {kind} image is left: cannot read {gone}"}


@pytest.mark.parametrize("kind", [GOOD, "crack"])
def test_a_kind_of_images_that_was_never_there_is_not_missed(skipping, kind):
    def fit(category):
        if len(category.test) == 2:
            raise UnusableFilesError({"1.png": "cannot read 1.png"})
        return [sample.path.name for sample in category.test]

    tested = tuple(Sample(Path(name), "cap", kind) for name in ("1.png", "2.png"))
    assert skipping.compute(Category("cap", SAMPLES[:1], tested, False), fit) == ["2.png"]


def test_a_file_that_is_none_of_the_categorys_costs_the_category(skipping):
    def fit(category, calls=[]):  # noqa: B006
        calls.append(category)
        assert len(calls) == 1
        raise UnusableFilesError({"3.png": "cannot read 3.png"})

    assert skipping.compute(CAP, fit) is None
    assert skipping.categories == {"cap": "cannot read 3.png"}
    assert not skipping.images
