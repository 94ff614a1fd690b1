"""JSON and CSV files that are too deep, too large, or have odd values are one error."""

import json

import pytest

from datasets import json_files
from datasets.base import DatasetError, Saturation
from datasets.csv_files import read_rows
from datasets.json_files import read_json
from datasets.mvtec_loco import read_saturations


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "no", "9" * 5000, "\xff"])
def test_what_is_no_json(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(DatasetError, match=f"expected JSON in {path}"):
        read_json(path)


def test_what_cannot_be_read(tmp_path):
    with pytest.raises(DatasetError, match=f"^cannot read {tmp_path / 'gone.json'}: No such file"):
        read_json(tmp_path / "gone.json")


def test_a_file_too_large_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(json_files, "MAX_BYTES", 3)
    (tmp_path / "a.json").write_text("[1]")
    assert read_json(tmp_path / "a.json") == [1]
    (tmp_path / "a.json").write_text("[10]")
    with pytest.raises(DatasetError, match="more than 3 bytes"):
        read_json(tmp_path / "a.json")


def test_a_json_file_above_1_gib_is_not_read(tmp_path):
    """Those of published datasets have some hundred MB."""
    with (tmp_path / "a.json").open("wb") as file:
        file.truncate((1 << 30) + 1)  # without a block on the disk
    with pytest.raises(DatasetError, match="more than 1073741824 bytes"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize("value", [10**400, float("inf"), None, [], "x"])
def test_a_saturation_that_is_no_number(tmp_path, value):
    record = {"defect_name": "a", "pixel_value": value, "saturation_threshold": value}
    path = tmp_path / "config.json"
    path.write_text(json.dumps([record | {"relative_saturation": False}]))
    with pytest.raises(DatasetError, match="expected a list of defect_name, pixel_value"):
        read_saturations(path)


@pytest.mark.parametrize(
    ("threshold", "is_relative", "is_possible"),
    [
        (1, True, True),
        (0.01, True, True),
        (1.01, True, False),
        (1.01, False, True),
        (0, True, False),
        (0, False, False),
        (-5, False, False),
        (float("nan"), True, False),
        (float("nan"), False, False),
    ],
)
def test_saturation_thresholds(tmp_path, threshold, is_relative, is_possible):
    """An area in pixels, or a share of the region's area in (0, 1]."""
    record = {"defect_name": "a", "pixel_value": 9, "saturation_threshold": threshold}
    path = tmp_path / "config.json"
    path.write_text(json.dumps([record | {"relative_saturation": is_relative}]))
    if is_possible:
        assert read_saturations(path) == (Saturation("a", 9, threshold, is_relative),)
        return
    with pytest.raises(DatasetError, match=r"saturation_threshold and .*found something else"):
        read_saturations(path)


@pytest.mark.parametrize("place", [0, 1])
def test_a_field_too_long_for_csv(tmp_path, place):
    path = tmp_path / "list.csv"
    lines = ["path,label", "a.png,good"]
    lines[place] += "x" * 200_000
    path.write_text("\n".join(lines))
    with pytest.raises(DatasetError, match=rf"cannot read line \d of {path}: field larger"):
        read_rows(path, ("path",))
