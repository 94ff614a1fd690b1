"""Rows of results are read from CSV as they were written."""

import csv
import io
import math
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import read_table
from utils.comparison import compare_rows
from utils.errors import UsageError
from utils.results import ResultRow, defects_csv, read_rows, results_csv

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


def write(folder: Path, rows: list[ResultRow]) -> None:
    (folder / "results.csv").write_bytes(results_csv(rows).encode())
    (folder / "results_defects.csv").write_bytes(defects_csv(rows).encode())


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
            ("shots", ""),
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
            ("shots", ""),
            ("defect_type", "crack"),
            ("num_test", "20"),
            ("image_auroc", "0.75"),
            ("image_ap", ""),
            ("model", "resnet18"),
        ]


class TestWriting:
    def test_rows_are_written_under_one_heading(self, tmp_path):
        write(tmp_path, [row("bottle"), row("wood")])
        path = tmp_path / "results.csv"
        assert [r["category"] for r in read_table(path)] == ["bottle", "wood"]
        assert path.read_bytes().count(b"\n") == 3
        assert b"\r" not in path.read_bytes()

    def test_rows_of_different_columns_leave_empty_what_they_lack(self, tmp_path):
        rows = [row(metrics={"image_auroc": 0.5}), row(metrics={"pixel_auroc": 0.25})]
        write(tmp_path, rows)
        first, second = read_table(tmp_path)
        assert (first["image_auroc"], first["pixel_auroc"]) == ("0.5", "")
        assert (second["image_auroc"], second["pixel_auroc"]) == ("", "0.25")

    def test_defect_types_have_a_file_of_their_own(self, tmp_path):
        rows = [row("bottle", defects={"crack": CRACK, "dirt": CRACK}), row("wood")]
        write(tmp_path, rows)
        records = read_table(tmp_path / "results_defects.csv")
        assert [(r["category"], r["defect_type"]) for r in records] == [
            ("bottle", "crack"),
            ("bottle", "dirt"),
        ]


class TestValue:
    def test_it_is_a_metric_or_the_total_time(self):
        found = row(metrics={"image_auroc": 0.5}, seconds={"read": 1.0, "embed": 2.0})
        assert found.value("image_auroc") == 0.5
        assert found.value("seconds_total") == 3.0

    def test_of_another_column_it_is_nan(self):
        assert math.isnan(row().value("pixel_auroc"))


class TestReadingBack:
    def test_rows_come_back_in_their_order(self, tmp_path):
        rows = [row("bottle"), row("wood", {"pixel_auroc": 0.125}, {"read": 1.5, "embed": 2.0})]
        rows[0] = replace(rows[0], metrics={"image_auroc": 1.0, "pixel_auroc": 0.25})
        write(tmp_path, rows)
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

    def test_defect_types_come_back_from_their_file(self, tmp_path):
        write(tmp_path, [row("bottle", defects={"crack": CRACK}), row("wood")])
        first, second = read_rows(tmp_path)
        assert first.defects["crack"] == pytest.approx(CRACK, nan_ok=True)
        assert second.defects == {}

    def test_rows_of_the_same_setting_but_for_the_shots_are_told_apart(self, tmp_path):
        few = [replace(row(defects={"crack": CRACK | {"num_test": n}}), shots=n) for n in (1, 16)]
        write(tmp_path, [*few, row()])
        one, sixteen, full = read_rows(tmp_path)
        assert [one.shots, sixteen.shots, full.shots] == [1, 16, None]
        assert len({one.key, sixteen.key, full.key}) == 3
        assert (one.defects["crack"]["num_test"], sixteen.defects["crack"]["num_test"]) == (1, 16)
        assert full.defects == {}

    def test_files_of_older_runs_have_no_column_for_shots(self, tmp_path):
        written = row("bottle", defects={"crack": {"num_test": 20, "image_auroc": 0.75}})
        write(tmp_path, [written])
        for name in ("results.csv", "results_defects.csv"):
            text = (tmp_path / name).read_text().replace(",seed,shots,", ",seed,")
            (tmp_path / name).write_text(text.replace(",7,,", ",7,"))
            assert "shots" not in (tmp_path / name).read_text()
        assert read_rows(tmp_path) == [written]

    def test_a_folder_without_results_is_named(self, tmp_path):
        with pytest.raises(
            UsageError, match=r"results\.csv, found none at .*No such file"
        ) as caught:
            read_rows(tmp_path)
        assert str(tmp_path / "results.csv") in str(caught.value)

    @given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1))
    def test_names_come_back_and_are_never_formulas(self, name):
        written = row(name, defects={name: {"num_test": 20.0, "image_auroc": 0.75}})
        for text in (results_csv([written]), defects_csv([written])):
            (record,) = csv.DictReader(io.StringIO(text, newline=""))
            assert not record["category"].startswith(("=", "+", "-", "@", "\t", "\r"))
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder), [written])
            assert read_rows(Path(folder)) == [written]

    @pytest.mark.parametrize("change", ["extra", "missing", "long", "header"])
    def test_a_changed_table_is_named(self, tmp_path, change):
        write(tmp_path, [row("bottle"), row("wood")])
        path = tmp_path / "results.csv"
        header, *lines = path.read_text().splitlines()
        changed = {
            "extra": [header, lines[0] + ",1", lines[1]],
            "missing": [header, lines[0].rpartition(",")[0], lines[1]],
            "long": [header, lines[0].replace("bottle", "x" * 200_000), lines[1]],
            "header": [header.replace("seed", "sead"), *lines],
        }
        path.write_text("\n".join(changed[change]))
        with pytest.raises(UsageError, match="expected results of this program in") as caught:
            read_rows(tmp_path)
        cells = "cannot read row 1: it has more or fewer cells than there are columns"
        reasons = {"extra": cells, "missing": cells, "header": "cannot find the column 'seed'"}
        assert str(caught.value).endswith(reasons.get(change, ""))

    def test_a_table_of_defect_types_without_their_numbers_is_named(self, tmp_path):
        write(tmp_path, [row("bottle", defects={"crack": CRACK})])
        path = tmp_path / "results_defects.csv"
        path.write_text(path.read_text().replace("num_test", "number"))
        with pytest.raises(UsageError, match="cannot find the column 'num_test'"):
            read_rows(tmp_path)

    @pytest.mark.parametrize(
        "content",
        [b"a,b\n1,2\n", b"category,percentage_coreset\nbottle\n", b"\xff\xfe\n\x00\n", b"a\n1,2\n"],
    )
    def test_what_this_program_did_not_write_is_named(self, tmp_path, content):
        (tmp_path / "results.csv").write_bytes(content)
        with pytest.raises(UsageError, match="expected results of this program in") as caught:
            read_rows(tmp_path)
        assert str(tmp_path / "results.csv") in str(caught.value)


def test_rows_are_compared_by_their_measurements():
    """In all digits of the file, and without the times."""
    recorded = [row(), row("cap"), row("wood", {"image_auroc": 0.5, "image_ap": NAN})]
    repeated = [
        row(metrics={"image_auroc": 1 + 1e-12}, seconds={"read": 2.0}),
        row("cap", {"image_auroc": 1 - 1e-8}),
        row("wood", {"image_auroc": 0.25, "image_ap": NAN}),
    ]
    compared = compare_rows(recorded, repeated)
    assert not compared.is_equal
    assert str(compared) == (
        "1 of 3 rows are equal to the recorded ones, 2 different, by 0.25 at most "
        "(image_auroc of wood, resnet18, 1 %, seed 7)"
    )
    same = compare_rows(recorded, recorded)
    assert same.is_equal
    assert str(same) == "3 of 3 rows are equal to the recorded ones"


@pytest.mark.parametrize(
    ("other", "largest", "name"),
    [
        (row(metrics={"image_auroc": NAN}), math.inf, "image_auroc"),
        (row(metrics={"image_auroc": 0.5, "image_ap": 0.5}), math.inf, "image_ap"),
        (replace(row(metrics={"image_auroc": 0.5}), num_train=207), 2, "num_train"),
        (replace(row(), num_test=86), 3, "num_test"),
    ],
)
def test_counts_and_missing_values_are_differences_too(other, largest, name):
    for pair in ((row(), other), (other, row())):
        compared = compare_rows(*([one] for one in pair))
        assert (compared.num_different, compared.largest) == (1, largest)
        assert compared.place.startswith(f"{name} of bottle")


def test_rows_that_are_not_recorded_are_counted():
    compared = compare_rows([row("bottle"), row("cap")], [row("bottle"), row("wood")])
    assert not compared.is_equal
    assert str(compared) == (
        "1 of 2 rows are equal to the recorded ones, 1 not recorded, 1 recorded but not repeated"
    )
