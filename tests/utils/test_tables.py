"""Tables are compared as the text that a reader sees."""

import math
from dataclasses import replace

import pytest

from utils.results import ResultRow
from utils.run_texts import describe_run, log_line
from utils.table import Table
from utils.tables import (
    PAPER_FILE,
    all_tables,
    main_tables,
    read_paper,
    readme_tables,
    stage_table,
    tables_text,
)

NAN = math.nan
IMAGE, PIXEL, TIME = range(3)


def row(
    category: str,
    percentage: float = 0.1,
    *,
    seed: int = 0,
    model: str = "resnet18",
    image: float = 0.5,
    pixel: float = 0.25,
    seconds: dict[str, float] | None = None,
    **metrics: float,
) -> ResultRow:
    metrics = {"image_auroc": image, "pixel_auroc": pixel, **metrics}
    return ResultRow(
        category, percentage, 1, seed, 3, 4, metrics, seconds or {"read": 1.0}, model=model
    )


def cells(table: Table) -> dict[str, list[str]]:
    """Return the rows of a table's Markdown: {first cell: the other cells}."""
    lines = [line for line in table.to_markdown().splitlines() if line.startswith("|")]
    split = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {name: values for name, *values in split}


def image_table(*rows: ResultRow) -> dict[str, list[str]]:
    return cells(main_tables(rows)[IMAGE])


def titled(tables: list[Table], title: str) -> dict[str, list[str]]:
    (table,) = [table for table in tables if table.title == title]
    return cells(table)


class TestNotesAboutAverages:
    def test_an_average_of_some_categories_says_of_how_many(self):
        rows = [row("bolt"), row("nut"), row("cap"), row("bolt", 0.05), row("nut", 0.05)]
        table = main_tables(rows)[IMAGE]
        note = "The average at 5 % is of 2 of 3 categories."
        assert table.notes == (note,)
        assert table.to_markdown().endswith(f" |\n\n{note}\n")
        assert table.to_latex().splitlines()[1] == f"% {note}"

    def test_an_average_of_all_categories_says_nothing(self):
        assert main_tables([row("bolt"), row("nut"), row("nut", seed=1)])[IMAGE].notes == ()

    def test_a_category_without_a_value_does_not_count(self):
        rows = [row("bolt", pixel=NAN), row("nut"), row("bolt", 0.05, pixel=NAN)]
        assert main_tables(rows)[PIXEL].notes == ("The average at 10 % is of 1 of 2 categories.",)

    def test_few_shot_results_are_counted_by_themselves(self):
        rows = [row("bolt"), replace(row("bolt"), shots=4), replace(row("nut"), shots=4)]
        rows.append(replace(row("nut", 0.05), shots=4))
        assert main_tables(rows)[IMAGE].notes == (
            "The average at 5 %, 4 shots is of 1 of 2 categories.",
        )


class TestMainTables:
    def test_there_are_three_each_with_its_unit(self):
        titles = [table.title for table in main_tables([row("bottle")])]
        assert titles == ["Image AUROC (%)", "Pixel AUROC (%)", "Processing time (s)"]

    def test_each_model_has_its_own(self):
        rows = [row("bottle", model="a", image=0.25), row("bottle", model="b", image=0.75)]
        tables = main_tables(rows)
        assert len(tables) == 6
        assert titled(tables, "Image AUROC (%): a")["bottle"][1] == "25.00"
        assert titled(tables, "Image AUROC (%): b")["bottle"][1] == "75.00"

    def test_metrics_are_shown_in_percent_beside_the_papers_figures_and_the_difference(self):
        tables = main_tables([row("carpet", 0.01, image=0.98765, pixel=0.5)])
        for table in tables[:TIME]:
            assert cells(table)["category"] == ["*Paper* 1 %", "1 %", "difference"]
        assert cells(tables[IMAGE])["carpet"] == ["98.00", "98.77", "0.77"]
        assert cells(tables[PIXEL])["carpet"] == ["98.90", "50.00", "-48.90"]

    def test_processing_time_is_the_sum_of_the_stages_and_has_no_paper_column(self):
        table = main_tables([row("bottle", seconds={"read": 1.25, "embed": 2.5})])[TIME]
        assert cells(table)["category"] == ["10 %"]
        assert cells(table)["bottle"] == ["3.8"]

    def test_percentages_stand_side_by_side_each_beside_the_papers_figure_for_it(self):
        table = image_table(*(row("zipper", p, image=p) for p in (0.25, 0.01, 0.1)))
        assert table["category"] == [
            heading
            for p in ("1 %", "10 %", "25 %")
            for heading in (f"*Paper* {p}", p, "difference")
        ]
        assert table["zipper"][::3] == ["99.20", "99.50", "99.40"]
        assert table["zipper"][1::3] == ["1.00", "10.00", "25.00"]

    def test_a_percentage_that_the_paper_lacks_has_dashes_and_no_difference(self):
        table = image_table(row("bottle", 0.005))
        assert table["category"] == ["*Paper* 0.5 %", "0.5 %"]
        assert table["bottle"] == table["**Average**"] == ["-", "50.00"]

    def test_categories_keep_the_order_in_which_they_were_measured(self):
        table = image_table(row("wood"), row("bottle"), row("wood", 0.25))
        assert list(table)[2:] == ["wood", "bottle", "**Average**"]

    def test_what_was_not_measured_is_a_dash(self):
        tables = main_tables([row("bottle", image=NAN, pixel=NAN), row("wood", 0.25)])
        assert cells(tables[IMAGE])["bottle"] == ["100.00", "-", "100.00", "-", "-"]
        assert cells(tables[TIME])["wood"] == ["-", "1.0"]


class TestAverage:
    def test_each_percentage_has_that_of_its_own_categories_on_both_sides(self):
        table = image_table(
            row("bottle", 0.1, image=0.9), row("cable", 0.1, image=0.7), row("cable", 0.25, image=1)
        )
        # the paper's bottle: 100.0; cable: 99.4 at 10 %, 99.5 at 25 %
        assert table["**Average**"] == ["99.70", "80.00", "-19.70", "99.50", "100.00", "0.50"]

    def test_of_unknown_categories_the_paper_has_none(self):
        table = image_table(row("widget", image=0.9), row("gadget", image=0.7))
        assert table["widget"] == ["-", "90.00"]
        assert table["**Average**"] == ["-", "80.00"]

    def test_beside_known_categories_unknown_ones_have_their_part_in_another_average(self):
        table = image_table(row("widget", image=0.1), row("bottle", image=0.9))
        assert table["widget"] == ["-", "10.00", "-"]
        assert table["**Average**"] == ["-", "50.00", "-"]
        assert table["**Average of the paper's categories**"] == ["100.00", "90.00", "-10.00"]

    def test_a_category_that_could_not_be_measured_is_left_out_on_both_sides(self):
        table = image_table(row("cable", image=NAN), row("bottle", image=0.9))
        assert table["**Average**"] == ["100.00", "90.00", "-10.00"]

    def test_without_the_papers_figures_it_is_of_all_categories(self):
        rows = [row("widget", seconds={"read": 1.0}), row("bottle", seconds={"read": 3.0})]
        assert cells(main_tables(rows)[TIME])["**Average**"] == ["2.0"]


class TestSeeds:
    ROWS = tuple(
        row(category, seed=seed, image=image)
        for seed, bottle, cable in [(0, 0.5, 0.1), (3, 0.6, 0.2), (4, 0.7, 0.6)]
        for category, image in [("bottle", bottle), ("cable", cable)]
    )

    def test_tables_show_their_mean_and_standard_deviation(self):
        table = image_table(*self.ROWS)
        assert table["bottle"] == ["100.00", "60.00 ± 10.00", "-40.00"]
        assert table["cable"][1] == "30.00 ± 26.46"

    def test_the_spread_of_the_average_is_that_of_the_seeds_averages(self):
        # 30, 40 and 65 %
        assert image_table(*self.ROWS)["**Average**"][1] == "45.00 ± 18.03"

    def test_one_seed_has_no_spread(self):
        assert image_table(*self.ROWS[:2])["bottle"][1] == "50.00"


class TestShots:
    """Few-shot results have rows of their own, by the number of training images."""

    @staticmethod
    def few(category: str, shots: int | None, **values: float) -> ResultRow:
        return replace(row(category, **values), shots=shots)

    @staticmethod
    def body(table: Table) -> list[tuple[str, str, list[str]]]:
        """Return name, shots and values of each row."""
        return [
            (r.name, r.shots_text, [cell.to_text(table.digits) for cell in r.cells])
            for r in table.rows
        ]

    def test_fewer_shots_come_first_and_each_number_has_its_average(self):
        rows = [self.few("wood", n, image=n / 10) for n in (4, 1)]
        rows += [self.few("nut", n, image=n / 20) for n in (4, 1)]
        table = main_tables(rows)[IMAGE]
        assert table.columns == ("10 %",)  # nothing of the paper is comparable
        assert self.body(table) == [
            ("wood", "1", ["10.00"]),
            ("nut", "1", ["5.00"]),
            ("Average", "1", ["7.50"]),
            ("wood", "4", ["40.00"]),
            ("nut", "4", ["20.00"]),
            ("Average", "4", ["30.00"]),
        ]

    def test_they_are_not_compared_with_the_papers_results_of_all_images(self):
        rows = [self.few("bottle", None, image=0.9), self.few("bottle", 2, image=0.5)]
        table = main_tables(rows)[IMAGE]
        assert table.columns == ("*Paper* 10 %", "10 %", "difference")
        assert self.body(table) == [
            ("bottle", "2", ["-", "50.00", "-"]),
            ("Average", "2", ["-", "50.00", "-"]),
            ("bottle", "all", ["100.00", "90.00", "-10.00"]),
            ("Average", "all", ["100.00", "90.00", "-10.00"]),
        ]

    def test_each_number_has_the_mean_and_the_standard_deviation_of_its_seeds(self):
        rows = [
            self.few("nut", shots, seed=seed, image=shots / 10 + seed / 100)
            for shots in (1, 2)
            for seed in (0, 2)
        ]
        values = [cells for _, _, (cells,) in self.body(main_tables(rows)[IMAGE])]
        assert values == ["11.00 ± 1.41"] * 2 + ["21.00 ± 1.41"] * 2

    def test_other_outputs_name_the_shots(self):
        one = replace(self.few("nut", 1), defects={"crack": {"num_test": 2}})
        assert "nut, resnet18, coreset 10 %, 1 shot, seed 0" in log_line(one)
        assert stage_table([one]).rows[0].name == "nut, resnet18, 10 %, 1 shot, seed 0"
        assert "| nut | crack | resnet18 | 10 %, 1 shot | 2 |" in tables_text([one], "")


class TestAllTables:
    MEASURED = row(
        "bottle",
        0.1,
        pixel_aupro=0.931,
        aupro_limit=0.3,
        image_ap=0.91,
        image_f1_max=0.92,
        image_false_positives=3,
        image_false_negatives=2,
        pixel_ap=0.61,
        pixel_f1_max=0.62,
        pixel_auroc_defective=0.63,
    )

    @pytest.mark.parametrize(
        ("title", "texts"),
        [
            ("Image AP (%)", ["91.00"]),
            ("Image F1-max (%)", ["92.00"]),
            ("Misclassified images at the F1-max threshold", ["5.0"]),
            ("... of which good images taken for defective (false positives)", ["3.0"]),
            ("... of which defective images taken for good (false negatives)", ["2.0"]),
            ("Pixel AP (%)", ["61.00"]),
            ("Pixel F1-max (%)", ["62.00"]),
            ("Pixel AUROC over defective images only (%)", ["63.00"]),
            (
                "AUPRO (%), up to a false positive rate of 0.3",
                ["96.10", "93.10", "-3.00"],  # the first is the paper's
            ),
        ],
    )
    def test_each_metric_has_one(self, title, texts):
        assert titled(all_tables([self.MEASURED]), title)["bottle"] == texts

    def test_the_main_ones_are_among_them(self):
        titles = {table.title for table in all_tables([self.MEASURED])}
        assert {table.title for table in main_tables([self.MEASURED])} < titles

    def test_the_papers_overlap_is_not_compared_with_that_of_another_limit(self):
        other = replace(self.MEASURED, metrics={**self.MEASURED.metrics, "aupro_limit": 0.05})
        tables = all_tables([self.MEASURED, replace(other, category="cable")])
        table = titled(tables, "AUPRO (%), up to a false positive rate of 0.05")
        assert table["category"] == ["10 %"]
        assert (table["bottle"], table["cable"]) == (["-"], ["93.10"])
        assert titled(tables, "AUPRO (%), up to a false positive rate of 0.3")["cable"][1] == "-"

    def test_limits_are_in_ascending_order(self):
        limits = (0.3, NAN, 0.05, 0.7, 0.1, 0.2)
        rows = [row(f"c{limit}", pixel_aupro=0.5, aupro_limit=limit) for limit in limits]
        titles = [table.title for table in all_tables(rows) if table.title.startswith("AUPRO")]
        assert [title.split()[-1] for title in titles] == ["0.05", "0.1", "0.2", "0.3", "0.7"]

    def test_a_readme_has_the_main_ones_and_the_papers(self):
        titles = [table.title for table in readme_tables([self.MEASURED])]
        assert titles == [
            "Image AUROC (%)",
            "Pixel AUROC (%)",
            "AUPRO (%), up to a false positive rate of 0.3",
            "Processing time (s)",
        ]

    def test_without_regions_there_is_no_table_of_them(self):
        tables = all_tables([row("bottle", aupro_limit=NAN, pixel_aupro=NAN)])
        assert not any(table.title.startswith("AUPRO") for table in tables)


class TestText:
    def test_it_has_the_origin_every_table_and_the_defect_types(self):
        defects = {
            "crack": {"num_test": 20, "image_auroc": 0.75, "image_ap": NAN, "image_f1_max": 0.5}
        }
        rows = [replace(row("bottle", seed=seed), defects=defects) for seed in (2, 3)]
        text = tables_text(rows, "where from")
        assert text.startswith("# PatchCore results\n\nwhere from\n")
        for table in all_tables(rows):
            assert table.to_markdown() in text
        assert "### Each defect type against the good images (%)\n" in text
        line = "| bottle | crack | resnet18 | 10 % | 20 | 75.00 ± 0.00 | - | 50.00 ± 0.00 |"
        assert text.count(line) == 1

    def test_a_defect_type_has_the_mean_of_the_seeds_that_measured_it(self):
        rows = [
            replace(row("bottle", seed=seed), defects={"crack": {"num_test": 2, "image_auroc": x}})
            for seed, x in ((0, 0.5), (1, 0.7))
        ]
        other = {"crack": {"num_test": 2, "image_auroc": 0.9}}
        text = tables_text([*rows, replace(row("cap", seed=1), defects=other)], "")
        assert "| bottle | crack | resnet18 | 10 % | 2 | 60.00 ± 14.14 | - | - |" in text
        assert "| cap | crack | resnet18 | 10 % | 2 | 90.00 | - | - |" in text

    def test_a_metric_that_an_older_run_did_not_measure_is_a_dash(self):
        defects = {"crack": {"num_test": 20, "image_auroc": 0.75}}
        text = tables_text([replace(row("bottle"), defects=defects)], "")
        assert "| bottle | crack | resnet18 | 10 % | 20 | 75.00 | - | - |" in text

    def test_names_can_neither_end_a_cell_nor_become_html(self):
        name = "a|b<script>&"
        defects = {name: {"num_test": 1, "image_auroc": 1, "image_ap": 1, "image_f1_max": 1}}
        rows = [replace(row(name, model=model), defects=defects) for model in (name, "other")]
        text = tables_text(rows, "")
        escaped = r"a\|b&lt;script>&amp;"
        assert f"### Image AUROC (%): {escaped}" in text
        assert f"\n| {escaped} | - | 50.00 |\n" in text
        assert f"\n| {escaped} | {escaped} | {escaped} | 10 % | 1 |" in text
        assert "<script" not in text

    def test_without_defect_types_it_ends_with_the_tables(self):
        assert "defect type" not in tables_text([row("bottle")], "")

    def test_the_origin_names_what_shaped_the_results(self):
        record = {
            "options": {
                "backbone": ["a", "b"],
                "weights": ["file.pth"],
                "layers": [["x", "y"], ["z"]],
                "k": 5,
                "seed": [7],
                "protocol": "patchcore_ex",
            },
            "notes": ["Mind this."],
            "command": "python main.py --k 5",
            "device": "CPU",
            "cpu": "Some CPU, 2 cores",
            "start": "2026-01-02T03:04:05",
        }
        rows = [row("bottle"), replace(row("bottle", seed=7), shots=2)]
        text = describe_run(record, rows)
        assert text.startswith("> Mind this.\n\n    python main.py --k 5\n\n")
        for part in (
            *(
                "Backbone a, b;",
                "weights file.pth;",
                "layers x y, z;",
                "k = 5;",
                "seed 0 7;",
                "shots 2;",
            ),
            *("protocol patchcore_ex;", "on CPU (Some CPU, 2 cores)", "2026-01-02", "Roth et al."),
        ):
            assert part in text


class TestSeedsThatDiffer:
    """Runs that came together may have other seeds: an average is still one of categories."""

    def test_the_average_is_that_of_the_categories_means(self):
        rows = [row("a", seed=seed, image=1.0) for seed in (0, 1, 2)] + [row("b", image=0.5)]
        assert image_table(*rows)["**Average**"][-1] == "75.00"

    def test_the_spread_is_not_that_between_categories(self):
        table = image_table(row("a", seed=0, image=1.0), row("b", seed=1, image=0.5))
        assert table["**Average**"][-1] == "75.00"

    def test_the_spread_is_that_of_the_seeds_that_all_have(self):
        rows = [row(c, seed=s, image=v) for c in "ab" for s, v in ((0, 0.5), (1, 0.6))]
        table = image_table(*rows, row("a", seed=2, image=0.55))
        assert table["**Average**"][-1] == "55.00 ± 7.07"


class TestLogLine:
    def test_it_has_the_setting_the_time_and_the_metrics(self):
        measured = replace(
            TestAllTables.MEASURED,
            metrics={**TestAllTables.MEASURED.metrics, "image_threshold": 1.25},
        )
        assert log_line(measured) == (
            "bottle, resnet18, coreset 10 %, seed 0, 1.0 s: image AUROC 50.00 %, AP 91.00 %, "
            "F1-max 92.00 %, F1-max threshold 1.2500, wrong 5, false positives 3, false negatives "
            "2; pixel AUROC 25.00 %, AUPRO to 0.3 93.10 %, AP 61.00 %, F1-max 62.00 %"
        )

    def test_it_has_a_dash_for_what_was_not_measured(self):
        line = log_line(row("bottle", pixel=NAN, aupro_limit=NAN, pixel_aupro=NAN))
        assert "pixel AUROC -, AUPRO -, AP -" in line
        assert "nan" not in line


def test_the_stage_table_shows_where_the_time_goes():
    rows = [
        row("bottle", 0.01, seed=3, seconds={"read": 1.0, "embed": 2.5}),
        row("wood", seconds={"read": 0.5, "normalise": 4.0}),
    ]
    assert cells(stage_table(rows)) == {
        "category": ["read", "embed", "normalise", "total"],
        ":---": ["---:"] * 4,
        "bottle, resnet18, 1 %, seed 3": ["1.00", "2.50", "0.00", "3.50"],
        "wood, resnet18, 10 %, seed 0": ["0.50", "0.00", "4.00", "4.50"],
    }


class TestPaper:
    def test_it_has_the_fifteen_categories_of_mvtec_ad_and_not_their_mean(self):
        paper = read_paper()
        assert len(paper) == 15
        assert {"bottle", "metal_nut", "zipper"} < set(paper)

    def test_each_has_three_measures_at_three_percentages(self):
        names = {f"{m}_{p}" for m in ("image_auroc", "pixel_auroc", "pro") for p in (25, 10, 1)}
        for figures in read_paper().values():
            assert set(figures) == names
            assert all(80 < figure <= 100 for figure in figures.values())

    @pytest.mark.real_data
    def test_it_is_the_reference_file(self, shared):
        reference = shared / "reference/paper_tables.csv"
        assert PAPER_FILE.read_text() == reference.read_text()
