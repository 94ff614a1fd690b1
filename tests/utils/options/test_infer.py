"""Every flag of `infer` is read; its effect is tested with the command."""

from dataclasses import fields, replace
from pathlib import Path

import pytest

from utils.errors import UsageError
from utils.machine import usable_cores
from utils.options.flags import parse_flags
from utils.options.infer import InferOptions

EXAMPLES: dict[str, tuple[str, object]] = {  # flag: what a user types, what the program gets
    "watch": ("incoming", "incoming"),
    "frame_stride": ("5", 5),
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
    "ignore_mask": ("mask.png", "mask.png"),
    "page_limit": ("20", 20),
    "on_error": ("stop", "stop"),
    "fresh": ("", True),
    "max_megapixels": ("40.5", 40.5),
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
    "quiet": ("", True),
    "verbose": ("", True),
}


def parse(text: str) -> InferOptions:
    return parse_flags(text.split(), InferOptions(), command="infer", description="Try.")


def test_every_flag_has_an_example():
    assert {*EXAMPLES, "paths"} == {field.name for field in fields(InferOptions)}


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_a_flag_sets_its_own_option_and_no_other(name):
    words, value = EXAMPLES[name]
    needed = {"pictures": "all"} if name == "layout" else {}
    others = " ".join(f"--{flag} {text}" for flag, text in needed.items())
    options = parse(f"a.png {others} --{name} {words}")
    assert options == replace(InferOptions(), paths=("a.png",), **needed, **{name: value})
    assert type(getattr(options, name)) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("--frame_stride 0", r"frame_stride of at least 1, found 0 \(--frame_stride\)"),
        ("--explain_top -1", r"explain_top of at least 0, found -1 \(--explain_top\)"),
        ("--regions -1", r"regions of at least 0, found -1 \(--regions\)"),
        ("--page_limit -1", r"page_limit of at least 0, found -1 \(--page_limit\)"),
        ("--batch_size 0", r"batch_size of at least 1, found 0 \(--batch_size\)"),
        ("--num_workers -2", r"num_workers of at least -1, found -2 \(--num_workers\)"),
        ("--nominal_fpr 0", r"nominal_fpr in \(0, 1\], found 0 \(--nominal_fpr\)"),
        ("--nominal_fpr_pixel 1.5", r"nominal_fpr_pixel in \(0, 1\], found 1.5 \(--nominal"),
        ("--nominal_fpr nan", r"nominal_fpr in \(0, 1\], found nan"),
        ("--percentage_coreset 10", r"in \[0, 1\], found 10 \(--percentage_coreset\)"),
        ("--percentage_coreset nan", r"in \[0, 1\], found nan \(--percentage_coreset\)"),
        ("--score_max -1", r"score_max of at least 0, found -1 \(--score_max\)"),
        ("--score_max inf", r"finite score_max of at least 0, found inf \(--score_max\)"),
        ("--score_max nan", r"score_max of at least 0, found nan \(--score_max\)"),
        ("--device 0", r"expected a torch device .* found '0' \(--device\)"),
        ("--quiet --verbose", "expected --quiet or --verbose, found both"),
        ("--threshold 3 --nominal_fpr 0.01", "no --nominal_fpr with --threshold 3: it sets train"),
        (
            "--threshold_pixel f1_max --nominal_fpr_pixel 0.1",
            "expected no --nominal_fpr_pixel with --threshold_pixel f1_max",
        ),
        ("--threshold best", "--threshold trained, train_quantile, f1_max or a number"),
        ("--threshold_pixel nan", "--threshold_pixel trained, train_quantile, f1_max or a number"),
        ("--pictures some", "--pictures: expected none, anomalies, all, found 'some'"),
        ("--layout overlay", "expected no --layout without --pictures: it is the form"),
        ("--layout panels --pictures none", "expected no --layout without --pictures"),
        ("--layout grid", "--layout: expected panels, overlay, found 'grid'"),
    ],
)
def test_a_value_that_cannot_be_is_told_with_its_flag(text, message):
    with pytest.raises(UsageError, match=message):
        parse(text)


def test_flags_are_grouped():
    groups = dict.fromkeys(field.metadata["group"] for field in fields(InferOptions))
    assert list(groups) == ["input", "model", "thresholds", "output", "computing", "messages"]


def test_every_frame_is_judged_and_nothing_but_the_results_is_saved_unasked():
    options = InferOptions()
    assert (options.frame_stride, options.regions, options.page_limit) == (1, 5, 500)
    switches = ("fresh", "json", "save_masks", "save_maps", "annotate", "quiet", "verbose")
    assert not any(getattr(options, name) for name in switches)
    assert (options.score_max, options.explain_top, options.percentage_coreset) == (0, 0, 0)


def test_0_is_the_smallest_number_of_most_flags():
    names = ("regions", "page_limit", "explain_top", "score_max", "percentage_coreset")
    options = parse(" ".join(f"--{name} 0" for name in names))
    assert all(getattr(options, name) == 0 for name in names)


class TestInput:
    def test_paths_or_a_folder_to_watch(self, tmp_path):
        parse("a").check_input()
        InferOptions(watch=str(tmp_path)).check_input()

    @pytest.mark.parametrize("text", ["", "a --watch ."])
    def test_neither_or_both(self, text):
        with pytest.raises(UsageError, match="either PATHs or --watch FOLDER"):
            parse(text).check_input()

    def test_a_missing_folder(self):
        with pytest.raises(UsageError, match=r"a folder to watch, found none: w \(--watch\)"):
            parse("--watch w").check_input()


def test_a_missing_weights_file(tmp_path):
    for weights in ("", "default", "random"):
        InferOptions(weights=weights).check_files()
    (tmp_path / "w.pth").touch()
    InferOptions(weights=str(tmp_path / "w.pth")).check_files()
    with pytest.raises(UsageError, match=r"no weights file w.pth \(--weights\)"):
        InferOptions(weights="w.pth").check_files()


@pytest.mark.parametrize(("number", "threads"), [(-1, usable_cores()), (0, 0), (3, 3)])
def test_threads(number, threads):
    assert InferOptions(num_workers=number).threads == threads
