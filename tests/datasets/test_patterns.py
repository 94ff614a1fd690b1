"""Patterns against a folder whose files are all known, and against the standard library's glob."""

import glob
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.notes import Notes
from datasets.patterns import expand_pattern, has_match, has_pattern

FILES = (
    "a.png",
    "b.txt",
    "p/a.png",
    "p/q/a.png",
    "p/q/b.png",
    "p[1]/a.png",
    ".h/a.png",
    "p/.c.png",
)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("root")
    for file in FILES:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    return root


@pytest.fixture(autouse=True)
def _within(root, monkeypatch):
    monkeypatch.chdir(root)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.png", ["a.png"]),
        ("?.???", ["a.png", "b.txt"]),
        ("[!b].*", ["a.png"]),
        ("p/*/*", ["p/q/a.png", "p/q/b.png"]),
        ("**/b.png", ["p/q/b.png"]),
        ("**/a.png", ["a.png", "p/a.png", "p/q/a.png", "p[1]/a.png"]),
        ("p/**/a.png", ["p/a.png", "p/q/a.png"]),
        ("**/q/**/a.png", ["p/q/a.png"]),
        ("**/**/b.png", ["p/q/b.png"]),
        ("*/**/b.png", ["p/q/b.png"]),
        ("p/**", ["p", "p/q"]),
        ("p**.png", []),  # within a name it is no more than *
        ("**.png", ["a.png"]),
        ("p[[]1]/*", ["p[1]/a.png"]),
        (".h/*", [".h/a.png"]),
        ("gone/**/*.png", []),
        ("a.png/**", []),
    ],
)
def test_what_a_pattern_matches(pattern, expected):
    assert expand_pattern(pattern, Notes()) == expected
    assert has_match(pattern) == bool(expected)


def test_a_folder_comes_before_what_is_in_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "(a)/b").mkdir(parents=True)
    (tmp_path / "(a) c").mkdir()
    assert expand_pattern("**", Notes()) == [".", "(a)", "(a)/b", "(a) c"]


def test_absolute_patterns_give_absolute_paths(root):
    assert expand_pattern(f"{root}/**/b.png", Notes()) == [f"{root}/p/q/b.png"]


def test_links_that_lead_in_circles_come_to_an_end(tmp_path, monkeypatch):
    """The standard library follows them: two links in a folder double its matches at each turn."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p").mkdir()
    (tmp_path / "p/a.png").touch()
    for name in ("x", "y"):
        (tmp_path / "p" / name).symlink_to("..")
    assert expand_pattern("**/*.png", Notes()) == ["p/a.png"]


NAME = st.sampled_from(["*", "?", "**", "p", "q", "a.png", "*.png", "[ap]*", "p[[]1]"])


@settings(max_examples=150, deadline=None)
@given(st.lists(NAME, min_size=1, max_size=4))
def test_equals_the_standard_librarys_glob_where_there_are_no_links(parts):
    """But that ** at the end means folders alone: they are searched through anyway."""
    pattern = "/".join(parts)
    expected = {str(Path(match)) for match in glob.glob(pattern, recursive=True)}  # noqa: PTH207
    if parts[-1] == "**":
        expected = {match for match in expected if Path(match).is_dir()} - {"."}
    assert set(expand_pattern(pattern, Notes())) - {"."} == expected


@pytest.mark.parametrize(
    ("text", "expected"), [("a*", True), ("a?", True), ("[a]", True), ("a", 0)]
)
def test_tells_patterns_from_names(text, expected):
    assert has_pattern(text) == bool(expected)
