"""Positional flags, bounds and groups; the rest is in test_evaluate.py."""

from dataclasses import dataclass, fields
from pathlib import Path

import pytest

from patchcore.setting_values import SHARE, Bounds
from utils.errors import UsageError
from utils.options.check import CheckOptions
from utils.options.download import DownloadOptions
from utils.options.evaluate import EvaluateOptions
from utils.options.export import ExportOptions
from utils.options.flags import Flags, describe_value, flag, parse_flags
from utils.options.infer import InferOptions
from utils.options.train import DEFAULTS, TrainOptions


@dataclass(frozen=True)
class Everything(Flags):
    paths: tuple[str, ...] = flag((), "input", "at most 50 % of them", metavar="P", positional=True)
    count: int = flag(1, "input", "how many", metavar="N", bounds=Bounds(1))
    sizes: tuple[int, ...] = flag((5,), "input", "one or two", max_values=2, bounds=Bounds(1, 9))
    share: float = flag(0.5, "input", "how much", bounds=SHARE)
    quiet: bool = flag(False, "output", "say 100 % less")
    loud: bool = flag(True, "output", "say 100 % more")


@dataclass(frozen=True)
class FewPaths(Flags):
    paths: tuple[str, ...] = flag((), "input", "two", metavar="P", positional=True, max_values=2)


@dataclass(frozen=True)
class NoPaths(Flags):
    count: int = flag(1, "input", "how many", metavar="N")


def parse(text: str, defaults=Everything(), **more):
    return parse_flags(text.split(), defaults, command="try", description="Try.", **more)


class TestPositional:
    @pytest.mark.parametrize(
        ("text", "paths"),
        [
            ("", ()),
            ("a", ("a",)),
            ("a b c", ("a", "b", "c")),
            ("--count 3 a", ("a",)),
            ("a --count 3", ("a",)),
            ("a --count 3 b --quiet c", ("a", "b", "c")),
            ("-", ("-",)),
            ("0 -1", ("0", "-1")),
            ("-- -x.png", ("-x.png",)),
            ("--count 3 -- --quiet b", ("--quiet", "b")),
            ("a -- -x.png", ("a", "-x.png")),
            ("a --quiet -- -- -", ("a", "--", "-")),
            ("--sizes 1 2 -- a", ("a",)),
            ("a --", ("a",)),
        ],
    )
    def test_words_without_a_flag_are_kept_in_order_wherever_they_stand(self, text, paths):
        options = parse(text)
        assert options.paths == paths
        assert options.count == (3 if "--count" in text else 1)
        assert options.quiet == ("--quiet" in text.partition("-- ")[0])

    def test_the_default_stays_where_none_is_given(self):
        assert parse("--count 2", Everything(paths=("x",))) == Everything(paths=("x",), count=2)
        assert parse("a", Everything(paths=("x",))).paths == ("a",)

    @pytest.mark.parametrize("text", ["-x.png", "a --nope", "--coun 3 a", "a --quie"])
    def test_an_unknown_flag_is_no_path(self, text):
        with pytest.raises(UsageError, match=r"unrecognized arguments.*try --help"):
            parse(text)

    def test_too_many_are_told_by_their_name(self):
        assert parse("a b", FewPaths()).paths == ("a", "b")
        with pytest.raises(UsageError, match="one to 2 values for P, found 3"):
            parse("a b c", FewPaths())
        with pytest.raises(UsageError, match="one to 2 values for --sizes, found 3"):
            parse("--sizes 1 2 3")

    @pytest.mark.parametrize("text", ["a", "-- a", "--count 2 -- a"])
    def test_a_command_without_them_takes_none(self, text):
        with pytest.raises(UsageError, match="unrecognized arguments: a"):
            parse(text, NoPaths())


class TestBounds:
    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("--count 0", r"expected count of at least 1, found 0 \(--count\)"),
            ("--sizes 3 0", r"expected sizes in \[1, 9\], found 3 0 \(--sizes\)"),
            ("--sizes 10", r"expected sizes in \[1, 9\], found 10 \(--sizes\)"),
            ("--share 0", r"expected share in \(0, 1\], found 0 \(--share\)"),
            ("--share inf", r"expected finite share in \(0, 1\], found inf \(--share\)"),
            ("--share nan", r"expected share in \(0, 1\], found nan \(--share\)"),
        ],
    )
    def test_a_number_out_of_its_bounds(self, text, message):
        with pytest.raises(UsageError, match=f"^{message}$"):
            parse(text)

    def test_the_bounds_are_allowed(self):
        options = parse("--count 1 --sizes 1 9 --share 1")
        assert (options.count, options.sizes, options.share) == (1, (1, 9), 1.0)


def test_groups_are_combined_from_the_last_base_to_the_first():
    @dataclass(frozen=True)
    class Both(NoPaths, FewPaths):
        loud: bool = flag(False, "output", "say more")

    assert [entry.name for entry in fields(Both)] == ["paths", "count", "loud"]
    assert parse("a b --count 3 --loud", Both()) == Both(("a", "b"), 3, True)


def test_help_shows_every_text_and_no_percent_sign_twice(capsys):
    with pytest.raises(SystemExit):
        parse("--help")
    shown = capsys.readouterr().out
    assert shown.startswith("usage: python main.py try ")
    assert shown.count("50 %") == shown.count("100 % less") == shown.count("100 % more") == 1


@pytest.mark.parametrize(
    "options",
    [
        EvaluateOptions,
        TrainOptions,
        InferOptions,
        ExportOptions,
        CheckOptions,
        DownloadOptions,
    ],
)
def test_help_names_the_value_of_each_flag(options):
    for entry in fields(options):
        details = entry.metadata
        has_value = entry.type not in (bool, "bool")
        assert bool(details["metavar"] or details["choices"]) == has_value, entry.name


@pytest.mark.parametrize("flag_name", ["--count", "--sizes", "--share", "--quiet", "--coun"])
def test_two_dashes_are_no_value(flag_name, capsys):
    """argparse makes an empty list of them, whatever the type of the flag."""
    with pytest.raises((UsageError, SystemExit)) as found:
        parse(f"{flag_name}=--")
    shown = str(found.value) + capsys.readouterr().err
    assert f"argument {flag_name}: expected a value, found --" in shown


def test_different_values_have_different_words():
    """By them a run finds out whether an earlier one had the same settings."""
    values = [
        *((("a", "b"), ("c",)), (("a",), ("b", "c")), ("a", "b", "c"), ("a b", "c"), ("a; b", "c")),
        *(("a b c",), (), ("",), 1, 2.5, True, False, Path("a b"), "d e"),
    ]
    texts = [describe_value(value) for value in values]
    assert len(set(texts)) == len(values)
    assert texts[:3] == ["a b; c", "a; b c", "a b c"]


class TestCheck:
    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("--model m --categories a", "expected no --categories with --model: the model's own"),
            ("data --num_suspects 3", "expected no --num_suspects without --model"),
            ("data --path_data data", "expected no --path_data with PATH, which takes its place"),
        ],
    )
    def test_a_flag_without_effect_is_refused(self, text, message):
        with pytest.raises(UsageError, match=message):
            parse(text, CheckOptions())

    def test_one_dataset_with_one_seed(self):
        options = parse("data", CheckOptions())
        assert (options.paths, options.seed, options.num_suspects) == (("data",), (0,), 20)
        for text in ("data other", "data --seed 1 2"):
            with pytest.raises(
                UsageError, match=r"expected one to 1 values for (PATH|--seed), found"
            ):
                parse(text, CheckOptions())

    def test_at_least_one_image_is_listed(self):
        assert parse("--model m --num_suspects 1", CheckOptions()).num_suspects == 1
        with pytest.raises(UsageError, match="expected num_suspects of at least 1, found 0"):
            parse("--model m --num_suspects 0", CheckOptions())

    def test_flags_with_an_effect_are_not(self):
        assert parse("--model m --num_suspects 3 --quiet", CheckOptions()).num_suspects == 3
        assert parse("data --categories a --holdout 0.3", CheckOptions()).categories == ("a",)


def test_a_download_is_of_one_dataset_and_nothing_is_accepted_or_kept_unasked():
    options = parse("visa --to f", DownloadOptions())
    assert options == DownloadOptions(names=("visa",), to="f")
    assert (options.accept_licence, options.keep_archive) == (False, False)
    with pytest.raises(UsageError, match="expected one to 1 values for NAME, found 2"):
        parse("visa btad --to f", DownloadOptions())


def test_training_takes_paths_and_no_copies_unasked():
    options = parse("a b --category c", DEFAULTS)
    assert (options.paths, options.keep_copies) == (("a", "b"), False)


def test_an_empty_text_is_no_path():
    with pytest.raises(UsageError, match="expected a value, found an empty text"):
        parse_flags(["a", ""], Everything(), command="try", description="Try.")


def test_an_empty_text_takes_back_what_a_record_gives_and_is_no_value_otherwise():
    recorded = CheckOptions(normal_dir="fine")
    assert parse("--normal_dir=", recorded).normal_dir == ""
    for text, defaults in (("--normal_dir=", CheckOptions()), ("--path_data=", recorded)):
        with pytest.raises(UsageError, match="expected a value, found an empty text"):
            parse(text, defaults)
