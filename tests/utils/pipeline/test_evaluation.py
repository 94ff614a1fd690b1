"""What an evaluation shows while it goes on."""

from tests.support import evaluate, make_data, read_run, read_table
from tests.utils.report.test_page import data_of
from utils.pipeline import evaluation


def test_what_is_finished_is_shown_while_the_next_category_is_computed(tmp_path, monkeypatch):
    folder, seen, compute = tmp_path / "result", [], evaluation.evaluate_one

    def noted(models, category, *arguments):
        page, tables = folder / "index.html", folder / "tables.md"
        if page.exists():
            rows = [row["category"] for row in read_table(folder)]
            views = [view["category"] for view in data_of(page.read_text())["views"]]
            seen.append((rows, views, "| gadget |" in tables.read_text(), category.name))
        assert read_run(folder)["state"] == "running"
        return compute(models, category, *arguments)

    monkeypatch.setattr(evaluation, "evaluate_one", noted)
    evaluate(make_data(tmp_path / "data"), folder)
    assert seen == [(["gadget"], ["gadget"], True, "widget")]
    record = read_run(folder)
    assert record["state"] == "complete"
    assert record["command"] in (folder / "run.log").read_text()
