"""Finished categories: the order of their rows, and files that are not those of this program."""

import json
import logging

import pytest

from tests.utils.report.pages import make_row
from utils.pipeline import finished
from utils.pipeline.finished import FinishedCategory, FinishedWork, in_order
from utils.result_folder import ResultFolder
from utils.results import Setting


def test_rows_of_the_command_come_first_and_others_by_setting_and_seed():
    """Each model has its percentages together, as the tables show them."""
    wanted = [(Setting(p, shots), seed) for shots in (2, 4) for seed in (7, 3) for p in (0.25, 0.1)]
    others = [
        *((Setting(0.1, 1), 0), (Setting(0.1, 1), 5), (Setting(0.25, 1), 0)),
        *((Setting(0.1, 4), 0), (Setting(0.1), 7), (Setting(0.25), 3)),
    ]
    expected = [
        (model, setting, seed)
        for part in (wanted, others)
        for shots in (1, 2, 4, None)
        for model in ("b", "a")
        for setting, seed in part
        if setting.shots == shots
    ]
    rows = [
        make_row(percentage=setting.percentage, shots=setting.shots, seed=seed, model=model)
        for model, setting, seed in reversed(expected)
    ]
    found = [(row.model, row.setting, row.seed) for row in in_order(rows, wanted, ["b", "a"])]
    assert found == expected


@pytest.mark.parametrize("changed", [{}, {"of_a_later_version": 1}])
def test_a_record_with_other_entries_is_not_read(tmp_path, caplog, changed):
    work = FinishedWork(ResultFolder(tmp_path))
    one = FinishedCategory("nut", {}, "", {}, rows=(make_row(),), measurements=())
    work.write(one)
    (path,) = (tmp_path / "finished").iterdir()
    record = json.loads(path.read_text())
    content = json.dumps(json.loads(record["content"]) | changed)
    path.write_text(json.dumps(record | {"content": content, "digest": finished._digest(content)}))
    with caplog.at_level(logging.WARNING):
        assert work.read() == ({} if changed else {"nut": one})
    assert ("is damaged" in caplog.text) is bool(changed)


def test_categories_have_readable_files_that_no_file_system_mixes_up(tmp_path):
    names = ["nut-1_B", "nut-1_b", "nut 1/b", "nut:1\udcffb", "é" * 300]
    work = FinishedWork(ResultFolder(tmp_path))
    for name in names:
        work.write(FinishedCategory(name, {}, "", {}, rows=(), measurements=()))
    files = [path.name for path in (tmp_path / "finished").iterdir()]
    assert len({file.lower() for file in files}) == len(names)
    starts = ["nut-1_B", "nut-1_b", "nut_1_b", "nut_1_b", "_" * 80]
    assert sorted(file.rpartition("_")[0] for file in files) == sorted(starts)
    assert set(work.read()) == set(names)


@pytest.mark.parametrize("order", [1, -1])
def test_a_run_of_fewer_shots_forgets_no_image_of_an_earlier_one(order):
    """The images of fewer shots are the first of those of more."""
    shots = [{"0": ["b", "a", "c"], "3": ["d"]}, {"0": ["b"], "3": ["d", "a"], "5": []}]
    one, other = (
        FinishedCategory("nut", {}, "", {}, (), (), record={"shots": seeds, "memory": {"net": n}})
        for n, seeds in enumerate(shots[::order])
    )
    expected = {"0": ["b", "a", "c"], "3": ["d", "a"], "5": []}
    assert one.join(other).record == {"shots": expected, "memory": {"net": 1}}
