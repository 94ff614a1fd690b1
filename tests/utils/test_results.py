"""A result folder loses nothing, and shows nothing that is half-written."""

import errno
import json
import math
import os
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import read_table
from utils.errors import UsageError
from utils.results import ResultFolder, ResultRow, per_mille, picture_tag, read_rows

NAN = math.nan
CRACK = {"num_test": 20, "image_auroc": 0.75, "image_ap": NAN}


def row(
    category: str = "bottle",
    metrics: dict | None = None,
    seconds: dict | None = None,
    defects: dict | None = None,
) -> ResultRow:
    return ResultRow(
        category,
        percentage_coreset=0.01,
        k=3,
        seed=7,
        num_train=209,
        num_test=83,
        metrics=metrics or {"image_auroc": 1.0},
        seconds=seconds or {"read": 1.0},
        model="resnet18",
        defects=defects or {},
    )


class TestRecord:
    def test_its_columns_are_the_setting_the_metrics_and_the_seconds(self):
        record = row(
            metrics={"image_auroc": 0.98765432, "pixel_auroc": 1.0},
            seconds={"read": 1.25, "embed": 0.0004},
        ).to_record()
        assert list(record.items()) == [
            ("category", "bottle"),
            ("percentage_coreset", "0.01"),
            ("k", "3"),
            ("seed", "7"),
            ("num_train", "209"),
            ("num_test", "83"),
            ("image_auroc", "0.98765432"),
            ("pixel_auroc", "1"),
            ("seconds_total", "1.250"),
            ("seconds_read", "1.250"),
            ("seconds_embed", "0.000"),
            ("model", "resnet18"),
        ]

    def test_what_was_not_measured_is_empty(self):
        record = row(metrics={"image_auroc": NAN, "pixel_auroc": 0.0}).to_record()
        assert (record["image_auroc"], record["pixel_auroc"]) == ("", "0")

    def test_the_total_is_the_sum_of_the_stages(self):
        assert row(seconds={"read": 0.5, "embed": 2.0, "select": 4.0}).seconds_total == 6.5

    def test_each_defect_type_has_a_record_with_the_same_setting(self):
        (record,) = row(defects={"crack": CRACK}).to_defect_records()
        assert list(record.items()) == [
            ("category", "bottle"),
            ("percentage_coreset", "0.01"),
            ("k", "3"),
            ("seed", "7"),
            ("defect_type", "crack"),
            ("num_test", "20"),
            ("image_auroc", "0.75"),
            ("image_ap", ""),
            ("model", "resnet18"),
        ]


class TestWriting:
    def test_rows_are_written_under_one_heading(self, tmp_path):
        ResultFolder(tmp_path).write_rows([row("bottle"), row("wood")])
        path = tmp_path / "results.csv"
        assert [r["category"] for r in read_table(path)] == ["bottle", "wood"]
        assert path.read_bytes().count(b"\n") == 3
        assert b"\r" not in path.read_bytes()

    def test_rows_of_different_columns_leave_empty_what_they_lack(self, tmp_path):
        rows = [row(metrics={"image_auroc": 0.5}), row(metrics={"pixel_auroc": 0.25})]
        ResultFolder(tmp_path).write_rows(rows)
        first, second = read_table(tmp_path)
        assert (first["image_auroc"], first["pixel_auroc"]) == ("0.5", "")
        assert (second["image_auroc"], second["pixel_auroc"]) == ("", "0.25")

    def test_defect_types_have_a_file_of_their_own(self, tmp_path):
        rows = [row("bottle", defects={"crack": CRACK, "dirt": CRACK}), row("wood")]
        ResultFolder(tmp_path).write_rows(rows)
        records = read_table(tmp_path / "results_defects.csv")
        assert [(r["category"], r["defect_type"]) for r in records] == [
            ("bottle", "crack"),
            ("bottle", "dirt"),
        ]

    def test_arrays_are_read_as_they_were_written(self, tmp_path):
        arrays = {"scores": np.array([0.5, 1.5], np.float32), "files": np.array(["good/1", "é"])}
        path = ResultFolder(tmp_path).write_arrays("maps_x.npz", **arrays)
        with np.load(path, allow_pickle=False) as found:
            for name, array in arrays.items():
                np.testing.assert_array_equal(found[name], array)
                assert found[name].dtype == array.dtype

    def test_the_run_is_json(self, tmp_path):
        record = {"options": {"path_data": Path("data"), "layers": ("a", "b")}, "end": None}
        path = ResultFolder(tmp_path).write_run(record)
        assert path == tmp_path / "run.json"
        assert json.loads(path.read_text()) == {
            "options": {"path_data": "data", "layers": ["a", "b"]},
            "end": None,
        }

    def test_a_picture_is_a_png_with_the_given_colours(self, tmp_path):
        picture = np.zeros((4, 6, 3), np.uint8)
        picture[:2] = 250, 20, 10
        path = ResultFolder(tmp_path).write_picture("picture.png", picture)
        np.testing.assert_array_equal(cv2.imread(str(path), cv2.IMREAD_COLOR_RGB), picture)

    def test_text_is_utf_8(self, tmp_path):
        path = ResultFolder(tmp_path).write_text("tables.md", "grösse 図 ±\n")
        assert path.read_bytes() == "grösse 図 ±\n".encode()

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


class TestReadingBack:
    """What is read equals what was written, but for defect types, which have their own file."""

    def test_rows_come_back_in_their_order(self, tmp_path):
        rows = [row("bottle"), row("wood", {"pixel_auroc": 0.125}, {"read": 1.5, "embed": 2.0})]
        rows[0] = replace(rows[0], metrics={"image_auroc": 1.0, "pixel_auroc": 0.25})
        ResultFolder(tmp_path).write_rows(rows)
        first, second = read_rows(tmp_path)
        assert first == rows[0]
        assert math.isnan(second.metrics["image_auroc"])
        assert replace(second, metrics={"pixel_auroc": 0.125}) == rows[1]

    @given(
        st.dictionaries(
            st.sampled_from(["image_auroc", "pixel_ap", "aupro_limit", "image_threshold"]),
            st.floats(0, 1e6) | st.just(NAN),
        ),
        st.dictionaries(st.sampled_from(["read", "embed", "total_of_all"]), st.floats(0, 1e5)),
    )
    def test_any_row_does_to_the_digits_that_are_kept(self, metrics, seconds):
        written = replace(row(), metrics=metrics, seconds=seconds)
        found = ResultRow.from_record(written.to_record())
        assert replace(found, metrics={}, seconds={}) == replace(written, metrics={}, seconds={})
        assert found.metrics == pytest.approx(metrics, rel=1e-8, nan_ok=True)
        assert found.seconds == pytest.approx(seconds, abs=0.0006)

    def test_a_folder_without_results_is_named(self, tmp_path):
        with pytest.raises(
            UsageError, match=r"results\.csv, found none at .*No such file"
        ) as caught:
            read_rows(tmp_path)
        assert str(tmp_path / "results.csv") in str(caught.value)

    @pytest.mark.parametrize(
        "content", [b"a,b\n1,2\n", b"category,percentage_coreset\nbottle\n", b"\xff\xfe\n\x00\n"]
    )
    def test_what_this_program_did_not_write_is_named(self, tmp_path, content):
        (tmp_path / "results.csv").write_bytes(content)
        with pytest.raises(UsageError, match="expected results of this program in") as caught:
            read_rows(tmp_path)
        assert str(tmp_path / "results.csv") in str(caught.value)


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
        assert folder.name.startswith("2001-09-")  # the first file's time, in the local zone
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
        with pytest.raises(UsageError, match=r"earlier/2001-09-.*Permission denied"):
            folder.move_earlier_run()
        assert set(self.FILES) < {entry.name for entry in tmp_path.iterdir()}


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_folder_that_cannot_be_is_an_error_that_names_it(tmp_path, place):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UsageError, match=r"expected a folder to write results to.*--path_result"):
        ResultFolder(tmp_path / place)
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_folder_that_cannot_be_written_to_is_an_error_that_names_it(tmp_path, monkeypatch):
    def refuse(self, data):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(UsageError, match=r"Permission denied; --path_result") as caught:
        ResultFolder(tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    ("percentage", "k", "tag"),
    [
        (0.1, 1, "p0100_k01"),
        (0.25, 9, "p0250_k09"),
        (0.01, 1, "p0010_k01"),
        (1, 12, "p1000_k12"),
        (0.0675, 1, "p0067.5_k01"),  # a name of its own, which 0.067 and 0.068 do not have
        (0.00025, 1, "p0000.25_k01"),
        (0.07, 1, "p0070_k01"),  # 1000 * 0.07 is not 70 in floating point
    ],
)
def test_picture_names_bear_per_mille_and_k(percentage, k, tag):
    assert picture_tag(percentage, k) == tag


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.9912, "0991"), (1.0, "1000"), (0.0, "0000"), (0.067, "0067"), (NAN, "none")],
)
def test_scores_in_names_are_per_mille(value, text):
    assert per_mille(value) == text


@given(st.floats(0, 1))
def test_per_mille_has_four_digits_and_is_as_near_as_they_allow(value):
    text = per_mille(value)
    assert len(text) == 4
    assert abs(int(text) / 1000 - value) <= 0.0005 + 1e-12
