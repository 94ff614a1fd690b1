"""A folder is replaced in one step; tests of saved models use whole models for it."""

import platform
import subprocess
import sys

import pytest

from patchcore.folder_swap import replace_folder


@pytest.fixture(scope="module")
def killed():
    """The middle of the names that a killed process has left."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return f"{platform.node()}.{process.pid}"


def test_of_two_files_of_others_with_one_name_the_newer_stays(tmp_path, killed, caplog):
    folder, former = tmp_path / "one", tmp_path / f".one.{killed}.former"
    for place, text in ((folder, "new"), (former, "old")):
        place.mkdir()
        (place / "notes.txt").write_text(text)
        (place / "model").write_text(text)
    (former / "more.txt").write_text("old")
    replace_folder(folder, {"model": b"newest"}, own={"model", "index"})
    found = {path.name: path.read_text() for path in folder.iterdir()}
    assert found == {"model": "newest", "notes.txt": "new", "more.txt": "old"}
    assert [path.name for path in former.iterdir()] == ["notes.txt"]
    assert (former / "notes.txt").read_text() == "old"
    assert f"files of the former folder are left in {former}" in caplog.text


def test_own_files_of_the_former_folder_go_also_where_the_new_one_has_none(tmp_path, caplog):
    folder = tmp_path / "new" / "one"
    replace_folder(folder, {"model": b"1", "index": b"1"}, own={"model", "index"})
    replace_folder(folder, {"model": b"2"}, own={"model", "index"})
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"model": b"2"}
    assert [path.name for path in folder.parent.iterdir()] == ["one"]
    assert not caplog.records


def test_names_of_folders_are_no_patterns(tmp_path, killed):
    """What is left of a folder named ``ab`` does not belong to one named ``[a]b``."""
    other = tmp_path / f".ab.{killed}.partial"
    own = tmp_path / f".[a]b.{killed}.partial"
    for path in (other, own):
        path.mkdir()
    replace_folder(tmp_path / "[a]b", {"model": b"1"}, own={"model"})
    assert {path.name for path in tmp_path.iterdir()} == {"[a]b", other.name}


def test_what_is_not_named_by_a_process_stays(tmp_path):
    name = f".one.{platform.node()}"
    others = {f"{name}.1x.partial", f"{name}.{2**70}.former"}
    for other in others:
        (tmp_path / other).mkdir()
    replace_folder(tmp_path / "one", {"model": b"1"}, own={"model"})
    assert {path.name for path in tmp_path.iterdir()} == {"one", *others}
