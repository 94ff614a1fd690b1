"""Every flag of `infer` is read; that it arrives is shown with the command."""

from dataclasses import fields, replace
from pathlib import Path

import pytest

from utils.errors import UsageError
from utils.flags import parse_flags
from utils.infer_options import InferOptions
from utils.machine import usable_cores

EXAMPLES: dict[str, tuple[str, object]] = {  # flag: what a user types, what the program gets
    "watch": ("incoming", "incoming"),
    "every": ("5", 5),
    "path_trained": ("kept", Path("kept")),
    "category": ("bottle", "bottle"),
    "percentage_coreset": ("0.1", 0.1),
    "backbone": ("my:network", "my:network"),
    "weights": ("file.pth", "file.pth"),
    "threshold": ("f1_max", "f1_max"),
    "threshold_pixel": ("-2.5", "-2.5"),
    "nominal_fpr": ("0.05", 0.05),
    "nominal_fpr_pixel": ("1", 1.0),
    "regions": ("0", 0),
    "path_result": ("out", Path("out")),
    "json": ("", True),
    "pictures": ("anomalies", "anomalies"),
    "layout": ("overlay", "overlay"),
    "explain_top": ("3", 3),
    "save_masks": ("", True),
    "save_maps": ("", True),
    "annotate": ("", True),
    "score_max": ("7.5", 7.5),
    "batch_size": ("1", 1),
    "num_workers": ("0", 0),
    "device": ("cpu", "cpu"),
}


def parse(text: str) -> InferOptions:
    return parse_flags(text.split(), InferOptions(), command="infer", description="Try.")


def test_every_flag_has_an_example():
    assert {*EXAMPLES, "paths"} == {field.name for field in fields(InferOptions)}


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_a_flag_sets_its_own_option_and_no_other(name):
    words, value = EXAMPLES[name]
    options = parse(f"a.png --{name} {words}")
    assert options == replace(InferOptions(), paths=("a.png",), **{name: value})
    assert type(getattr(options, name)) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("--every 0", "--every of at least 1, found 0"),
        ("--regions -1", "--regions of at least 0, found -1"),
        ("--batch_size 0", "--batch_size of at least 1, found 0"),
        ("--num_workers -2", "--num_workers of at least -1, found -2"),
        ("--nominal_fpr 0", r"--nominal_fpr in \(0, 1\], found 0"),
        ("--nominal_fpr_pixel 1.5", r"--nominal_fpr_pixel in \(0, 1\], found 1.5"),
        ("--nominal_fpr nan", r"--nominal_fpr in \(0, 1\], found nan"),
        ("--percentage_coreset 10", r"--percentage_coreset in \(0, 1\], found 10"),
        ("--percentage_coreset nan", r"--percentage_coreset in \(0, 1\], found nan"),
        ("--score_max -1", "--score_max above 0, found -1"),
        ("--score_max inf", "--score_max above 0, found inf"),
        ("--score_max nan", "--score_max above 0, found nan"),
        ("--threshold best", "--threshold trained, train_quantile, f1_max or a number"),
        ("--threshold_pixel nan", "--threshold_pixel trained, train_quantile, f1_max or a number"),
        ("--pictures some", "--pictures: invalid choice"),
        ("--layout grid", "--layout: invalid choice"),
    ],
)
def test_a_value_that_cannot_be_is_told_with_its_flag(text, message):
    with pytest.raises(UsageError, match=message):
        parse(text)


@pytest.mark.parametrize(
    ("text", "right"), [("a", 1), ("--watch w", 1), ("", 0), ("a --watch w", 0)]
)
def test_there_is_one_kind_of_thing_to_judge(text, right):
    options = parse(text)
    if right:
        options.check_input()
    else:
        with pytest.raises(UsageError, match="PATHs, or --watch FOLDER, and not both"):
            options.check_input()


@pytest.mark.parametrize(("number", "threads"), [(-1, usable_cores()), (0, 0), (3, 3)])
def test_threads(number, threads):
    assert InferOptions(num_workers=number).threads == threads
