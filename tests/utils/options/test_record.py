"""Options go to run.json and come back the same, whatever they are."""

import dataclasses
import json
import logging
import typing
from dataclasses import asdict, fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.utils.options.test_evaluate import EXAMPLES
from utils.errors import UsageError
from utils.options.evaluate import EvaluateOptions
from utils.options.method import parse_options
from utils.options.record import read_options
from utils.result_folder import ResultFolder

KINDS = typing.get_type_hints(EvaluateOptions)
# Text of a command line: bytes, of which some are not valid text.
TEXT = st.binary(max_size=8).map(
    lambda data: data.replace(b"\0", b"-").decode(errors="surrogateescape")
)


def values_of(entry: dataclasses.Field) -> st.SearchStrategy:
    """Return values that a flag accepts by itself."""
    example = parse_options(
        f"--{entry.name} {EXAMPLES[entry.name][0]}".split(),
        EvaluateOptions(),
        command="",
        description="",
    )
    found = [entry.default, getattr(example, entry.name)]
    kind, details = KINDS[entry.name], entry.metadata
    if details["choices"] or kind is bool:
        return st.sampled_from(found)
    bounds = details["bounds"]
    if kind in (int, float) and bounds is not None:
        numbers = st.integers(0, 10**12) if kind is int else st.floats(0, 1e300)
        return numbers.filter(lambda value: value in bounds)
    if kind is Path:
        return TEXT.map(Path)
    if kind == tuple[str, ...] and entry.name in ("categories", "abnormal_dir"):
        return st.lists(TEXT, max_size=3).map(tuple)
    if kind is str and entry.name in ("normal_dir", "mask_dir", "ignore_mask"):
        return TEXT
    return st.sampled_from(found)


VALUES = {entry.name: values_of(entry) for entry in fields(EvaluateOptions)}


@st.composite
def all_options(draw) -> EvaluateOptions:
    """Return options with some values changed; without those that exclude one another."""
    options = EvaluateOptions()
    for name in draw(st.lists(st.sampled_from(sorted(VALUES)), unique=True, max_size=12)):
        value = draw(VALUES[name])
        try:
            options = dataclasses.replace(options, **{name: value})
        except UsageError:
            continue
    return options


def through_json(options: EvaluateOptions, folder: Path) -> EvaluateOptions:
    path = ResultFolder(folder).write_run({"options": asdict(options)})
    record = json.loads(path.read_text(encoding="utf-8"))
    return read_options(EvaluateOptions(), record["options"], path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("result")


@given(options=all_options())
def test_options_come_back_the_same(folder, options):
    assert through_json(options, folder) == options


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_every_flag_comes_back(folder, name, caplog):
    caplog.set_level(logging.INFO)
    options = parse_options(
        f"--{name} {EXAMPLES[name][0]}".split(), EvaluateOptions(), command="", description=""
    )
    again = through_json(options, folder)
    assert again == options
    assert type(getattr(again, name)) is type(getattr(options, name))
    assert caplog.messages == []  # nothing is missing


def test_options_that_are_not_recorded_have_their_defaults(caplog):
    """A run of an older version did not record newer flags."""
    caplog.set_level(logging.INFO)
    found = read_options(EvaluateOptions(), {"k": 3}, Path("run.json"))
    assert found == dataclasses.replace(EvaluateOptions(), k=3)
    assert caplog.text.count("not in run.json, defaults are used: ") == 1


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("k", "2", "expected int, found '2'"),
        ("k", 2.0, "expected int, found 2.0"),
        ("sigma", True, "expected float, found True"),
        ("quiet", 1, "expected bool, found 1"),
        ("path_data", None, "expected Path, found None"),
        ("size_crop", None, "expected a list, found None"),
        ("size_crop", ["64"], "expected int, found '64'"),
    ],
)
def test_a_value_of_another_type_is_refused(name, value, message):
    with pytest.raises(UsageError, match=f"^cannot use {name} of run.json: {message}$"):
        read_options(EvaluateOptions(), {name: value}, Path("run.json"))


def test_a_whole_number_is_a_float():
    assert read_options(EvaluateOptions(), {"sigma": 3}, Path("run.json")).sigma == 3.0
