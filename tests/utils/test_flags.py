"""Positional flags and flags that a command leaves out; the rest is in test_options.py."""

from dataclasses import dataclass

import pytest

from utils.errors import UsageError
from utils.flags import flag, flags_as_markdown, parse_flags


@dataclass(frozen=True)
class Settings:
    paths: tuple[str, ...] = flag((), "input", "at most 50 % of them", metavar="P", positional=True)
    count: int = flag(1, "input", "how many", metavar="N")
    sizes: tuple[int, ...] = flag((5,), "input", "one or two", most=2)
    quiet: bool = flag(False, "output", "say 100 % less")
    loud: bool = flag(True, "output", "say 100 % more")


@dataclass(frozen=True)
class FewPaths:
    paths: tuple[str, ...] = flag((), "input", "two", metavar="P", positional=True, most=2)


@dataclass(frozen=True)
class NoPaths:
    count: int = flag(1, "input", "how many", metavar="N")


def parse(text: str, defaults=Settings(), **more):
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
        assert parse("--count 2", Settings(paths=("x",))) == Settings(paths=("x",), count=2)
        assert parse("a", Settings(paths=("x",))).paths == ("a",)

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


class TestWithout:
    def test_what_a_command_leaves_out_is_no_flag_and_keeps_its_default(self):
        defaults = Settings(count=7)
        assert parse("a", defaults, without=("count", "sizes")).count == 7
        with pytest.raises(UsageError, match="unrecognized arguments: --count"):
            parse("a --count 3", defaults, without=("count", "sizes"))

    def test_help_does_not_show_it(self, capsys):
        with pytest.raises(SystemExit):
            parse("--help", without=("count",))
        shown = capsys.readouterr().out
        assert "--count" not in shown
        assert "--sizes" in shown
        assert shown.count("50 %") == shown.count("100 % less") == shown.count("100 % more") == 1


def test_the_table_shows_positional_ones_without_dashes():
    assert "| `P` |  | at most 50 % of them |\n| `--count` | `1` | how many |" in flags_as_markdown(
        Settings()
    )
