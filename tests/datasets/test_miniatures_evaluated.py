"""The miniature of each layout is evaluated: categories, counts, and which metrics there are."""

import json
import math

import pytest

from tests.datasets.miniatures import MINIATURES
from tests.support import evaluate, read_maps, read_run, read_table
from utils.metrics import measure_pixels


@pytest.mark.parametrize("name", MINIATURES)
def test_it_is_evaluated(name, tmp_path):
    miniature = MINIATURES[name]
    path = miniature.write(tmp_path / "data")
    result = evaluate(path, tmp_path / "result", "--size_crop 64 --size_resize 64")
    rows = {row["category"]: row for row in read_table(result)}
    assert set(rows) == set(miniature.categories)
    notes = read_run(result)["notes"]
    for category, expected in miniature.categories.items():
        row = rows[category]
        assert int(row["num_train"]) == len(expected.train)
        assert int(row["num_test"]) == len(expected.test)
        assert 0 <= float(row["image_auroc"]) <= 1
        has_masks = any(masks for _, _, masks in expected.test)
        assert math.isnan(float(row["pixel_auroc"] or "nan")) != has_masks
        for note in expected.notes:
            assert any(text.startswith(f"{category}: {note}") for text in notes)


def test_pixels_are_measured_where_the_defects_are_known(tmp_path):
    """One of the two defective images has no mask: as if it were not there."""
    path = MINIATURES["folder"].write(tmp_path / "data")
    flags = "--size_crop 64 --size_resize 64 --save_maps"
    result = evaluate(path, tmp_path / "result", flags)
    (row,) = read_table(result)
    arrays = read_maps(result, row)
    known = arrays["has_ground_truth"]
    assert arrays["files"].tolist() == ["good/2.png", "bent_deep/b.png", "scratch/a.png"]
    assert known.tolist() == [True, False, True]
    assert not arrays["masks"][1].any()
    measured = measure_pixels(arrays["anomaly_maps"][known], arrays["masks"][known])
    assert float(row["pixel_auroc"]) == pytest.approx(measured.auroc, abs=1e-8)
    assert float(row["pixel_aupro"]) == pytest.approx(measured.aupro, abs=1e-8)
    others = measure_pixels(arrays["anomaly_maps"], arrays["masks"])
    assert abs(others.auroc - measured.auroc) > 1e-4


def test_files_are_named_relative_to_the_folder_of_a_list(tmp_path):
    path = MINIATURES["csv"].write(tmp_path / "data")
    flags = "--size_crop 64 --size_resize 64 --pictures defective"
    result = evaluate(path, tmp_path / "result", flags)
    (file,) = result.glob("explanation_list_dent_long_1_*.json")
    record = json.loads(file.read_text(encoding="utf-8"))
    assert record["file"] == "b/1.png"
    assert {near["file"][:2] for patch in record["patches"] for near in patch["nearest"]} == {"a/"}
