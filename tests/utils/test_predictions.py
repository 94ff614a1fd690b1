"""What is written is read back by other people's readers: the csv and json modules."""

import csv
import json
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.errors import UsageError
from utils.predictions import COLUMNS, CSV_FILE, JSON_FILE, Outcome, PredictionFiles, file_stem
from utils.results import from_cell

REGIONS = (
    {"box": (1, 2, 30, 40), "area": 500, "score": 3.25},
    {"box": (0, 0, 4, 4), "area": 16, "score": 3.0},
)
FOUND = Outcome(
    *("p/a.png", "anomaly", 3.25, 2.5, REGIONS, 0.12345678, {"frame": 3, "time": 0.3}),
    score_ratio=1.3,
    p_value=0.125,
)
FAULT = Outcome("p/b.png", "error", error="cannot read p/b.png: gone")
NOT_TEXT = os.fsdecode(b"p/\xff\xc3.png")
STRANGE = [
    "a,b.png",
    'a"b.png',
    "a\nb.png",
    "a\rb.png",
    "a\r\nb.png",
    "ä 图.png",
    " a ",
    "=1+1",
    "-x.png",
    "+x.png",
    "@x.png",
    "'=x.png",
    "'",
]
NAMES = st.text(st.characters(exclude_characters="\0"), min_size=1)


def write(folder: Path, *outcomes: Outcome) -> None:
    files = PredictionFiles(folder)
    for outcome in outcomes:
        files.add(outcome)
    files.close()


def read_csv(folder: Path) -> list[dict[str, str]]:
    with (folder / CSV_FILE).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def read_json(folder: Path) -> list[dict]:
    lines = (folder / JSON_FILE).read_bytes().decode("ascii").split("\n")
    assert lines.pop() == ""
    return [json.loads(line) for line in lines]


class TestFiles:
    def test_the_columns_of_an_image(self, tmp_path):
        write(tmp_path, FOUND, FAULT)
        found, fault = read_csv(tmp_path)
        assert tuple(found) == COLUMNS
        assert found == {
            "path": "p/a.png",
            "score": "3.25",
            "threshold": "2.5",
            "score_ratio": "1.3",
            "p_value": "0.125",
            "verdict": "anomaly",
            "regions": "1 2 30 40 500; 0 0 4 4 16",
            "seconds": "0.123457",
            "error": "",
        }
        assert fault == dict.fromkeys(COLUMNS, "") | {
            "path": "p/b.png",
            "verdict": "error",
            "error": "cannot read p/b.png: gone",
        }
        found, fault = read_json(tmp_path)
        assert found == {
            "path": "p/a.png",
            "verdict": "anomaly",
            "score": 3.25,
            "threshold": 2.5,
            "score_ratio": 1.3,
            "p_value": 0.125,
            "regions": [region | {"box": list(region["box"])} for region in REGIONS],
            "seconds": 0.123457,
            "frame": 3,
            "time": 0.3,
        }
        assert fault["error"] == "cannot read p/b.png: gone"
        empty = ("score", "threshold", "score_ratio", "p_value", "seconds")
        assert {fault[name] for name in empty} == {None}

    @pytest.mark.parametrize("name", STRANGE)
    def test_any_name_is_read_back(self, tmp_path, name):
        write(tmp_path, Outcome(name, "normal", 1.0, 2.0), FAULT)
        assert [row["path"] for row in read_json(tmp_path)] == [name, "p/b.png"]
        cells = [row["path"] for row in read_csv(tmp_path)]
        assert [from_cell(cell) for cell in cells] == [name, "p/b.png"]
        assert not cells[0].startswith(("=", "+", "-", "@"))

    @given(NAMES, st.floats(), st.sampled_from(["normal", "anomaly"]))
    def test_a_line_is_the_outcome(self, name, score, verdict):
        outcome = replace(FOUND, path=name, score=score, verdict=verdict, seconds=0.25)
        again = Outcome.from_json(outcome.to_json())
        assert again.to_json() == outcome.to_json()
        assert again.to_row() == outcome.to_row()
        assert Outcome.from_json(FAULT.to_json()).to_json() == FAULT.to_json()

    def test_a_name_that_is_no_text_ends_nothing_and_comes_back_from_json(self, tmp_path):
        write(tmp_path, Outcome(NOT_TEXT, "error", error=f"gone: {NOT_TEXT}"), FOUND)
        assert [row["path"] for row in read_csv(tmp_path)] == [r"p/\udcff\udcc3.png", "p/a.png"]
        assert os.fsencode(read_json(tmp_path)[0]["path"]) == b"p/\xff\xc3.png"

    def test_scores_are_read_back_to_the_last_bit_of_a_float32(self, tmp_path):
        score = 2.3499999046325684  # a float32
        write(tmp_path, Outcome("a", "normal", score, 16777217.0))
        assert read_json(tmp_path)[0]["score"] == score
        (row,) = read_csv(tmp_path)
        assert float(row["score"]) == pytest.approx(score, rel=5e-9)
        assert float(row["threshold"]) == 16777217.0

    def test_lines_end_the_same_on_every_system_and_stand_there_at_once(self, tmp_path):
        files = PredictionFiles(tmp_path)
        header = ",".join(COLUMNS).encode() + b"\n"
        assert (tmp_path / CSV_FILE).read_bytes() == header
        for count in (1, 2):
            files.add(FOUND)
            for name, extra in ((CSV_FILE, 1), (JSON_FILE, 0)):
                data = (tmp_path / name).read_bytes()
                assert data.endswith(b"\n")
                assert data.count(b"\n") == count + extra
                assert b"\r" not in data
        files.close()

    def test_what_was_there_is_written_anew(self, tmp_path):
        write(tmp_path, FOUND, FOUND)
        write(tmp_path, FAULT)
        assert len(read_csv(tmp_path)) == len(read_json(tmp_path)) == 1

    def test_a_folder_that_cannot_be_written_is_told(self, tmp_path):
        with pytest.raises(UsageError, match=r"cannot write predictions to .*gone.*--path_result"):
            PredictionFiles(tmp_path / "gone")

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
    @pytest.mark.parametrize("name", [CSV_FILE, JSON_FILE])
    def test_a_full_disk_is_told_once(self, tmp_path, name):
        """Closing tries again to write what was left, and must not fail by itself."""
        (tmp_path / name).symlink_to("/dev/full")
        files = None
        with pytest.raises(UsageError, match=r"No space left.*--path_result"):  # noqa: PT012
            files = PredictionFiles(tmp_path)
            files.add(FOUND)
        if files:
            files.close()

    @pytest.mark.skipif(os.name == "nt", reason="Windows keeps files that are open")
    @pytest.mark.parametrize("name", [CSV_FILE, JSON_FILE])
    @pytest.mark.parametrize("is_replaced", [False, True])
    def test_lines_for_files_that_are_gone_are_an_error(self, tmp_path, name, is_replaced):
        files = PredictionFiles(tmp_path)
        files.add(FOUND)
        (tmp_path / name).rename(tmp_path / "moved")
        expected = "No such file or directory"
        if is_replaced:
            (tmp_path / name).touch()
            expected = f"{tmp_path / name} was replaced during the run"
        message = re.escape(f"cannot write predictions to {tmp_path}: {expected} (--path_result)")
        with pytest.raises(UsageError, match=message):
            files.add(FOUND)
        files.close()


class TestLines:
    def test_verdict_score_and_name_stand_below_one_another(self):
        lines = [
            FOUND.to_line(),
            Outcome("p/c.png", "normal", 0.123456, 2.5).to_line(),
            Outcome("p/d.png", "normal", 12345.6, 2.5).to_line(),
            FAULT.to_line(),
        ]
        assert lines == [
            "anomaly      3.25  p/a.png",
            "normal     0.1235  p/c.png",
            "normal   1.235e+04  p/d.png",
            "error              p/b.png: cannot read p/b.png: gone",
        ]
        assert {line.index("p/") for line in lines} == {19, 20}  # the third needs one more

    @given(NAMES)
    def test_any_name_leaves_one_line_that_can_be_printed(self, name):
        for outcome in (Outcome(name, "normal", 1.0, 2.0), Outcome(name, "error", error=name)):
            line = outcome.to_line()
            assert line.isprintable()
            assert line.encode("utf-8")

    def test_names_in_any_script_stay_as_they_are(self):
        assert Outcome("größe 图.png", "normal", 1.0, 2.0).to_line().endswith("  größe 图.png")
        assert Outcome("a\nb\x1b", "normal", 1.0, 2.0).to_line().endswith(r"  a\nb\x1b")
        assert Outcome(NOT_TEXT, "normal", 1.0, 2.0).to_line().endswith(r"  p/\udcff\udcc3.png")


class TestFileStem:
    @pytest.mark.parametrize(
        ("name", "start"),
        [
            ("parts/good/000.png", "good_000_"),
            ("000.png", "000_"),
            ("clips/line 1.mp4#12", "clips_line_1.mp4_12_"),
            ("camera 0#7", "camera_0_7_"),
            ("größe/图.png", "gr_e_"),
            ("图.png", ""),
            (".hidden.png", "hidden_"),
            ("-rf.png", "rf_"),
            ("../a.b.png", "a.b_"),
        ],
    )
    def test_is_readable(self, name, start):
        stem = file_stem(name)
        assert stem.startswith(start)
        assert len(stem) == len(start) + 12

    @given(NAMES)
    def test_is_a_plain_short_visible_file_name(self, name):
        stem = file_stem(name)
        assert stem == file_stem(name)
        assert Path(stem).name == stem
        assert set(stem) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-_")
        assert stem[0] not in ".-"
        assert len(stem) <= 93

    @given(st.lists(NAMES, unique=True, max_size=20))
    def test_no_two_names_share_one(self, names):
        assert len({file_stem(name).casefold() for name in names}) == len(names)

    def test_a_long_name_keeps_its_end_and_is_not_hidden(self):
        stem = file_stem(f"{'x' * 50}/{'y' * 20}.{'z' * 79}.png")
        assert stem.startswith("z" * 79 + "_")

    def test_names_that_are_no_text_are_told_apart(self):
        stems = {file_stem(os.fsdecode(name)) for name in (b"\xff.png", b"\xfe.png")}
        assert len({*stems, file_stem("\ud800.png")}) == 3
