"""The layout of a dataset is found by looking at its folders."""

from types import SimpleNamespace

import pytest

from datasets.base import DatasetError
from datasets.entries import ReadOptions
from datasets.layouts import GENERAL, LAYOUTS, open_dataset
from datasets.published import PUBLISHED


def layout(match: str | None) -> SimpleNamespace:
    return SimpleNamespace(match=lambda path: match)


@pytest.fixture
def dataset(tmp_path):
    (tmp_path / "data/widget/train").mkdir(parents=True)
    (tmp_path / "data/widget/test").mkdir()
    (tmp_path / "data/gadget/train").mkdir(parents=True)
    return tmp_path / "data"


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_has_the_functions_of_the_protocol(name):
    for function in ("match", "find_categories", "read_category"):
        assert callable(getattr(LAYOUTS[name], function))


def test_every_published_dataset_has_a_layout_and_a_name_of_its_own():
    assert {entry.layout for entry in PUBLISHED} <= set(LAYOUTS)
    assert len({entry.key for entry in PUBLISHED}) == len(PUBLISHED)


@pytest.mark.parametrize("name", ["auto", "mvtec", "mpdd", "visa_1cls"])
def test_a_dataset_in_the_layout_of_mvtec_ad(dataset, name):
    assert open_dataset(dataset, name).layout == "mvtec"


@pytest.mark.parametrize("wrappers", [1, 2])
def test_folders_that_an_archive_puts_around_a_dataset_are_looked_through(dataset, wrappers):
    outer = dataset.parent / "outer" / "/".join("abc"[: wrappers - 1])
    outer.mkdir(parents=True)
    dataset = dataset.rename(outer / "data")
    found = open_dataset(dataset.parents[wrappers - 1])
    assert (found.layout, found.path) == ("mvtec", dataset)


def test_no_layout_fits(tmp_path):
    with pytest.raises(DatasetError, match=r"another layout of docs/datasets.md under .*none"):
        open_dataset(tmp_path)


def choose(dataset, **matches):
    layouts = {name: layout(match) for name, match in matches.items()}
    return open_dataset(dataset, layouts=layouts).layout


def test_a_general_layout_is_used_only_if_no_other_fits(dataset):
    assert GENERAL == ("mvtec", "folder")
    assert choose(dataset, one=None, mvtec="", folder="") == "mvtec"
    assert choose(dataset, one="", mvtec="", folder="") == "one"
    assert choose(dataset, one=None, mvtec=None, folder="") == "folder"


def test_if_several_fit_the_choices_are_named(dataset):
    with pytest.raises(DatasetError, match="several that fit: choose --dataset one or two"):
        choose(dataset, one="", two="", mvtec="")
    layouts = {"one": layout(""), "two": layout("")}
    assert open_dataset(dataset, "two", layouts=layouts).layout == "two"


def test_what_a_layout_lacks_is_named_though_a_general_one_fits(dataset):
    with pytest.raises(DatasetError, match=r"layout one in .*data, found no list.csv; .*--dataset"):
        choose(dataset, one="list.csv", mvtec="", folder="")
    assert choose(dataset, one="list.csv", two="", mvtec="") == "two"


def test_a_file_that_cannot_be_read_is_an_error_unless_another_layout_fits(dataset, caplog):
    def refuse(path):
        raise DatasetError("cannot read a.json")

    layouts = {"one": SimpleNamespace(match=refuse), "two": layout(None), "mvtec": layout("")}
    with pytest.raises(DatasetError, match=r"^cannot read a\.json$"):
        open_dataset(dataset, layouts=layouts)
    layouts["two"] = layout("")
    assert open_dataset(dataset, layouts=layouts).layout == "two"
    assert caplog.messages == ["not used to recognise the layout: cannot read a.json"]


def test_what_a_named_layout_lacks(dataset):
    layouts = {"one": layout("list.csv"), "two": layout(None)}
    with pytest.raises(DatasetError, match=r"--dataset one at .*data: list.csv is missing"):
        open_dataset(dataset, "one", layouts=layouts)
    with pytest.raises(DatasetError, match=r"--dataset two at .*data: it is not in this layout"):
        open_dataset(dataset, "two", layouts=layouts)


def test_an_unknown_name_lists_the_known_ones(dataset):
    expected = r"dataset name \(auto, .*, mvtec, mvtec_3d.*\), found 'mvtek' \(--dataset\)"
    with pytest.raises(DatasetError, match=expected):
        open_dataset(dataset, "mvtek")


def test_folders_that_are_named_mean_the_plain_layout(dataset):
    options = ReadOptions(normal_dir="train")
    found = open_dataset(dataset, options=options)
    assert (found.layout, found.find_categories()) == ("folder", ["gadget", "widget"])
    with pytest.raises(DatasetError, match="found --dataset mvtec"):
        open_dataset(dataset, "mvtec", options)
