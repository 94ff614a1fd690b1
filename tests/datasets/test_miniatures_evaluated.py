"""The miniature of each layout is evaluated: categories, counts, and which metrics there are."""

import math

import pytest

from tests.datasets.miniatures import MINIATURES
from tests.support import evaluate, read_run, read_table


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
