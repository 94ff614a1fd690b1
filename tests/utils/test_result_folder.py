"""A result folder loses nothing, and shows nothing that is half-written."""

import errno
import json
import os
import time
from pathlib import Path

import pytest

from tests.support import read_table
from tests.utils.test_results import CRACK, row
from utils.errors import UsageError
from utils.result_folder import ResultFolder


class TestNewFolder:
    """Of a run that cannot begin."""

    @pytest.mark.parametrize("kept", ["", "a", "a/b"])
    def test_all_folders_that_are_new_are_removed(self, tmp_path, kept):
        (tmp_path / kept).mkdir(parents=True, exist_ok=True)
        folder = ResultFolder(tmp_path / "a/b/c")
        with pytest.raises(UsageError), folder.removed_on_error():
            raise UsageError
        found = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")}
        assert found == {"": set(), "a": {"a"}, "a/b": {"a", "a/b"}}[kept]

    def test_one_that_holds_something_stays(self, tmp_path):
        folder = ResultFolder(tmp_path / "a/b")
        folder.write_text("tables.md", "text")
        with pytest.raises(UsageError), folder.removed_on_error():
            raise UsageError
        assert (tmp_path / "a/b/tables.md").is_file()


class TestWriting:
    def test_rows_and_their_defect_types_have_a_file_each(self, tmp_path):
        ResultFolder(tmp_path).write_rows([row("bottle", defects={"crack": CRACK}), row("wood")])
        assert [r["category"] for r in read_table(tmp_path)] == ["bottle", "wood"]
        (record,) = read_table(tmp_path / "results_defects.csv")
        assert (record["category"], record["defect_type"]) == ("bottle", "crack")

    def test_the_run_is_json(self, tmp_path):
        record = {"options": {"path_data": Path("data"), "layers": ("a", "b")}, "end": None}
        path = ResultFolder(tmp_path).write_run(record)
        assert path == tmp_path / "run.json"
        assert json.loads(path.read_text()) == {
            "options": {"path_data": "data", "layers": ["a", "b"]},
            "end": None,
        }

    def test_text_is_utf_8(self, tmp_path):
        path = ResultFolder(tmp_path).write_text("tables.md", "grösse 図 ±\n")
        assert path.read_bytes() == "grösse 図 ±\n".encode()

    def test_folders_in_a_name_are_created(self, tmp_path):
        path = ResultFolder(tmp_path).write_bytes("thumbnails/small/a.jpg", b"content")
        assert path == tmp_path / "thumbnails/small/a.jpg"
        assert path.read_bytes() == b"content"

    def test_a_file_in_place_of_such_a_folder_is_an_error_that_names_the_path(self, tmp_path):
        (tmp_path / "thumbnails").write_text("in the way")
        with pytest.raises(UsageError, match=r"cannot write .*thumbnails/a\.jpg: File exists"):
            ResultFolder(tmp_path).write_bytes("thumbnails/a.jpg", b"content")

    @pytest.mark.parametrize("method", ["write_bytes", "replace"])
    @pytest.mark.parametrize("former", [b"the former content", None])
    def test_a_failing_write_leaves_what_was_there_and_nothing_else(
        self, tmp_path, monkeypatch, method, former
    ):
        folder = ResultFolder(tmp_path)
        if former:
            folder.write_bytes("results.csv", former)
        original = getattr(Path, method)

        def fill_disk(self, argument):
            if method == "write_bytes":
                original(self, argument[: len(argument) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(Path, method, fill_disk)
        with pytest.raises(UsageError, match=r"No space left on device \(--path_result") as caught:
            folder.write_bytes("results.csv", b"the new content")
        assert str(tmp_path / "results.csv") in str(caught.value)
        assert isinstance(caught.value.__cause__, OSError)
        assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == (
            {"results.csv": former} if former else {}
        )


class TestEarlierRun:
    FILES = (
        "results.csv",
        "results_defects.csv",
        "tables.md",
        "run.json",
        "roc-curve_p0100_k01_rim0991_rpm0982.png",
        "roc_curve.png",
        "pr-curve_p0100_k01_aim0991_apm0682.png",
        "pro-curve_p0100_k01_prm0932.png",
        "maps_bottle_resnet18_p0100_k01_seed0.npz",
        "pred-dist_bottle_p0100_k01_r1000.png",
        "localization_bottle_broken_large_000_p0100_k01_s067.png",
    )

    def make_run(self, path: Path, started: float = 1_000_000_000.0) -> None:
        path.mkdir(exist_ok=True)
        for age, name in enumerate(self.FILES):
            (path / name).write_text(f"{name} of {started}")
            os.utime(path / name, (started + age, started + age))

    def move(self, path: Path) -> None:
        ResultFolder(path).move_earlier_run()

    def earlier(self, path: Path) -> list[Path]:
        return sorted((path / "earlier").iterdir())

    def test_all_its_files_move_to_one_folder_named_by_its_start(self, tmp_path):
        self.make_run(tmp_path)
        self.move(tmp_path)
        (folder,) = self.earlier(tmp_path)
        assert {file.name: file.read_text() for file in folder.iterdir()} == {
            name: f"{name} of 1000000000.0" for name in self.FILES
        }
        first = time.localtime(1_000_000_000)
        assert folder.name == time.strftime("%Y-%m-%dT%H-%M-%S", first)
        assert [entry.name for entry in tmp_path.iterdir()] == ["earlier"]

    def test_runs_of_the_same_second_are_kept_apart(self, tmp_path):
        for _ in range(3):
            self.make_run(tmp_path)
            self.move(tmp_path)
        folders = self.earlier(tmp_path)
        assert len(folders) == 3
        assert all(len(list(folder.iterdir())) == len(self.FILES) for folder in folders)

    def test_other_peoples_files_stay_where_they_are(self, tmp_path):
        self.make_run(tmp_path)
        (tmp_path / "notes.txt").write_text("mine")
        (tmp_path / "photo.png").write_text("mine too")
        self.move(tmp_path)
        names = {entry.name for entry in tmp_path.iterdir()}
        assert names == {"earlier", "notes.txt", "photo.png"}

    def test_outputs_of_other_commands_are_moved_by_name(self, tmp_path):
        (tmp_path / "pictures").mkdir()
        (tmp_path / "predictions.csv").write_text("")
        ResultFolder(tmp_path).move_earlier_run(["predictions.csv", "pictures", "absent"])
        (folder,) = self.earlier(tmp_path)
        assert {entry.name for entry in folder.iterdir()} == {"pictures", "predictions.csv"}

    def test_without_one_nothing_moves(self, tmp_path):
        self.move(tmp_path / "new" / "nested")
        assert list((tmp_path / "new" / "nested").iterdir()) == []

    def test_it_stays_until_the_new_run_begins(self, tmp_path):
        self.make_run(tmp_path)
        ResultFolder(tmp_path)
        assert {entry.name for entry in tmp_path.iterdir()} == set(self.FILES)

    def test_what_cannot_be_moved_is_an_error_that_names_the_place(self, tmp_path, monkeypatch):
        def refuse(self, target):
            raise PermissionError(errno.EACCES, "Permission denied")

        self.make_run(tmp_path)
        folder = ResultFolder(tmp_path)
        monkeypatch.setattr(Path, "rename", refuse)
        with pytest.raises(UsageError, match=r"earlier/2001-09-\S+: Permission denied"):
            folder.move_earlier_run()
        assert set(self.FILES) < {entry.name for entry in tmp_path.iterdir()}


@pytest.mark.parametrize("place", ["file", "file/below", "x" * 300], ids=["file", "below", "long"])
def test_a_folder_that_cannot_be_is_an_error_that_names_it(tmp_path, place):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UsageError, match=r"expected a folder to write results to.*--path_result"):
        ResultFolder(tmp_path / place)
    assert (tmp_path / "file").read_text() == "in the way"


@pytest.mark.parametrize("number", [(errno.EACCES,), ()])
def test_a_folder_that_cannot_be_written_to_is_an_error_that_names_it(
    tmp_path, monkeypatch, number
):
    def refuse(self, data):
        raise OSError(*number, "Permission denied")

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(UsageError) as caught:
        ResultFolder(tmp_path)
    assert str(caught.value) == (
        f"expected a folder to write results to, found {tmp_path} "
        "(Permission denied; --path_result)"
    )
