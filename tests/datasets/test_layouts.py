"""The layout of a dataset is found by looking at its folders."""

from types import SimpleNamespace

import pytest

from datasets import mvtec
from datasets.layouts import LAYOUTS, layout_of


def layout(*, fits: bool) -> SimpleNamespace:
    return SimpleNamespace(is_layout=lambda path: fits)


@pytest.fixture
def dataset(tmp_path):
    (tmp_path / "data/widget/train").mkdir(parents=True)
    return tmp_path / "data"


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_has_the_functions_of_the_protocol(name):
    for function in ("is_layout", "find_categories", "read_category", "read_training"):
        assert callable(getattr(LAYOUTS[name], function))


def test_a_dataset_in_the_layout_of_mvtec_ad(dataset):
    assert mvtec.is_layout(dataset)
    assert layout_of(dataset) is mvtec


@pytest.mark.parametrize("folder", ["data/widget", "data/widget/train", "nowhere"])
def test_no_layout_fits_and_the_default_reports_it(dataset, folder):
    path = dataset.parent / folder
    assert not mvtec.is_layout(path)
    assert layout_of(path) is mvtec
    assert layout_of(path, {"first": layout(fits=False), "mvtec": mvtec}) is not mvtec


def test_of_several_layouts_that_fit_the_last_one_is_used(dataset):
    first, last, other = layout(fits=True), layout(fits=True), layout(fits=False)
    layouts = {"mvtec": mvtec, "first": first, "last": last, "other": other}
    assert layout_of(dataset, layouts) is last
    assert layout_of(dataset, {"mvtec": mvtec, "other": other}) is mvtec
