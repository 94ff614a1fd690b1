"""Tables are compared as the text that a reader sees."""

import math

import pytest

from utils.results import ResultRow
from utils.tables import PAPER_FILE, Table, make_tables, read_paper

NAN = math.nan
IMAGE, PIXEL, TIME = range(3)


def row(category: str, percentage: float = 0.1, image: float = 0.5, pixel: float = 0.25, **seconds):
    metrics = {"image_auroc": image, "pixel_auroc": pixel}
    return ResultRow(category, percentage, 1, 0, 3, 4, metrics, seconds or {"read": 1.0})


def cells(table: Table) -> dict[str, list[str]]:
    """Return the rows of a table's Markdown: {first cell: the other cells}."""
    lines = [line for line in table.to_markdown().splitlines() if line.startswith("|")]
    split = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {name: values for name, *values in split}


def test_a_table_is_markdown_with_its_average_last():
    table = Table("Speed (m)", ("here", "there"), (("a", (1, 2.25)), ("b", (2, 4.5))), digits=1)
    assert table.to_markdown() == (
        "### Speed (m)\n"
        "\n"
        "| category | here | there |\n"
        "|:---|---:|---:|\n"
        "| a | 1.0 | 2.2 |\n"
        "| b | 2.0 | 4.5 |\n"
        "| **Average** | 1.5 | 3.4 |\n"
    )


def test_there_are_three_tables_each_with_its_unit():
    titles = [table.title for table in make_tables([row("bottle")])]
    assert titles == ["Image AUROC (%)", "Pixel AUROC (%)", "Processing time (s)"]


def test_metrics_are_shown_in_percent_beside_the_papers_figures():
    tables = make_tables([row("carpet", 0.01, image=0.98765, pixel=0.5)])
    assert cells(tables[IMAGE])["category"] == ["*Paper* 1 %", "1 %"]
    assert cells(tables[IMAGE])["carpet"] == ["98.00", "98.77"]
    assert cells(tables[PIXEL])["category"] == ["*Paper* 1 %", "1 %"]
    assert cells(tables[PIXEL])["carpet"] == ["98.90", "50.00"]


def test_processing_time_is_the_sum_of_the_stages_and_has_no_paper_column():
    table = make_tables([row("bottle", read=1.25, embed=2.5)])[TIME]
    assert cells(table)["category"] == ["10 %"]
    assert cells(table)["bottle"] == ["3.8"]


def test_percentages_stand_side_by_side_in_ascending_order():
    rows = [row("bottle", p, image=p) for p in (0.25, 0.01, 0.1)]
    table = cells(make_tables(rows)[IMAGE])
    assert table["category"] == [
        "*Paper* 1 %",
        "1 %",
        "*Paper* 10 %",
        "10 %",
        "*Paper* 25 %",
        "25 %",
    ]
    assert table["bottle"][1::2] == ["1.00", "10.00", "25.00"]


def test_each_percentage_stands_beside_the_papers_figure_for_it():
    table = cells(make_tables([row("zipper", p) for p in (0.25, 0.01, 0.1)])[IMAGE])
    assert table["zipper"][::2] == ["99.20", "99.50", "99.40"]


def test_a_percentage_that_the_paper_lacks_has_dashes_in_its_column():
    table = cells(make_tables([row("bottle", 0.005)])[IMAGE])
    assert table["category"] == ["*Paper* 0.5 %", "0.5 %"]
    assert table["bottle"] == ["-", "50.00"]
    assert table["**Average**"] == ["-", "50.00"]


def test_categories_keep_the_order_in_which_they_were_measured():
    table = cells(make_tables([row("wood"), row("bottle"), row("wood", 0.25)])[TIME])
    assert list(table)[2:] == ["wood", "bottle", "**Average**"]


def test_what_was_not_measured_is_a_dash():
    tables = make_tables([row("bottle", image=NAN, pixel=NAN), row("wood", 0.25)])
    assert cells(tables[IMAGE])["bottle"] == ["100.00", "-", "100.00", "-"]
    assert cells(tables[TIME])["wood"] == ["-", "1.0"]


class TestAverage:
    def test_it_is_over_the_categories_that_every_column_has(self):
        # wood at 25 % is missing: its 10 % would make the two averages incomparable.
        rows = [row("bottle", 0.1, image=0.9), row("wood", 0.1, image=0.1)]
        rows += [row("bottle", 0.25, image=0.8)]
        table = cells(make_tables(rows)[IMAGE])
        assert table["**Average**"] == ["100.00", "90.00", "100.00", "80.00"]

    def test_an_unknown_category_leaves_the_papers_column_without_a_mean(self):
        table = cells(make_tables([row("widget", image=0.9), row("gadget", image=0.7)])[IMAGE])
        assert table["widget"] == ["-", "90.00"]
        assert table["**Average**"] == ["-", "80.00"]

    def test_beside_known_categories_an_unknown_one_is_left_out(self):
        table = cells(make_tables([row("widget", image=0.1), row("bottle", image=0.9)])[IMAGE])
        assert table["**Average**"] == ["100.00", "90.00"]

    def test_a_column_without_any_value_takes_no_mean_from_the_others(self):
        table = Table("", ("a", "b", "c"), (("x", (1.0, NAN, 2.0)), ("y", (3.0, NAN, NAN))), 1)
        average = table.average()
        assert average[0] == 1.0
        assert math.isnan(average[1])
        assert average[2] == 2.0

    def test_without_a_common_category_there_is_none(self):
        table = Table("", ("a", "b"), (("x", (1.0, NAN)), ("y", (NAN, 2.0))), digits=1)
        assert all(math.isnan(value) for value in table.average())


class TestPaper:
    def test_it_has_the_fifteen_categories_of_mvtec_ad_and_their_means(self):
        paper = read_paper()
        means = paper.pop("mean")
        assert len(paper) == 15
        for name, mean in means.items():
            column = [figures[name] for figures in paper.values()]
            # The paper's categories are rounded to a tenth, and its means were not made of them.
            assert sum(column) / 15 == pytest.approx(mean, abs=0.1)

    @pytest.mark.real_data
    def test_it_is_the_reference_file(self, shared):
        reference = shared / "reference/paper_tables.csv"
        assert PAPER_FILE.read_text() == reference.read_text()
