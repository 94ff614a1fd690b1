"""The same table for a reader, for a paper and for a program."""

import csv
import io
import math

import pytest

from utils.table import Table, TableCell, TableRow
from utils.tables import records_text

TABLE = Table(
    "Speed_(%)",
    ("*Paper* 1 %", "1 %"),
    (
        TableRow("metal_nut", (TableCell(1.0), TableCell(2.26, 0.04))),
        TableRow("Average", (TableCell(), TableCell(2.0))),
    ),
    digits=1,
)
FEW = Table(
    "Speed",
    ("1 %",),
    (
        TableRow("nut", (TableCell(1.0),), shots=2),
        TableRow("Average", (TableCell(1.0),), shots=2),
        TableRow("nut", (TableCell(3.0),)),
        TableRow("Average", (TableCell(3.0),)),
    ),
    digits=1,
)


class TestTableCell:
    @pytest.mark.parametrize(
        ("cell", "text"),
        [
            (TableCell(), "-"),
            (TableCell(math.nan, 1.0), "-"),
            (TableCell(98.765), "98.77"),
            (TableCell(98.765, 0.5), "98.77 ± 0.50"),
            (TableCell(-0.25), "-0.25"),
        ],
    )
    def test_it_shows_value_and_standard_deviation_where_there_are_any(self, cell, text):
        assert cell.to_text(2) == text


class TestForms:
    def test_markdown(self):
        assert TABLE.to_markdown() == (
            "### Speed_(%)\n"
            "\n"
            "| category | *Paper* 1 % | 1 % |\n"
            "|:---|---:|---:|\n"
            "| metal_nut | 1.0 | 2.3 ± 0.0 |\n"
            "| **Average** | - | 2.0 |\n"
        )

    def test_latex_escapes_what_it_would_read_otherwise(self):
        assert TABLE.to_latex() == (
            "% Speed_(%)\n"
            "\\begin{tabular}{lrr}\n"
            "\\toprule\n"
            "category & Paper 1 \\% & 1 \\% \\\\\n"
            "\\midrule\n"
            "metal\\_nut & 1.0 & 2.3 $\\pm$ 0.0 \\\\\n"
            "\\midrule\n"
            "Average & - & 2.0 \\\\\n"
            "\\bottomrule\n"
            "\\end{tabular}\n"
        )

    def test_csv_has_one_value_a_line_and_leaves_empty_what_is_not_there(self):
        records = list(csv.DictReader(io.StringIO(records_text([TABLE, TABLE]))))
        assert len(records) == 8
        assert {record["table"] for record in records} == {"Speed_(%)"}
        assert [list(record.values())[1:] for record in records[:4]] == [
            ["metal_nut", "", "Paper 1 %", "1.0", ""],
            ["metal_nut", "", "1 %", "2.3", "0.0"],
            ["Average", "", "Paper 1 %", "", ""],
            ["Average", "", "1 %", "2.0", ""],
        ]


class TestShots:
    """Rows of few-shot results show their number of training images, and all others `all`."""

    def test_markdown(self):
        assert FEW.to_markdown().splitlines()[2:] == [
            "| category | shots | 1 % |",
            "|:---|---:|---:|",
            "| nut | 2 | 1.0 |",
            "| **Average** | 2 | 1.0 |",
            "| nut | all | 3.0 |",
            "| **Average** | all | 3.0 |",
        ]

    def test_latex_has_a_line_between_the_numbers_of_shots(self):
        assert FEW.to_latex().splitlines()[1:] == [
            r"\begin{tabular}{lrr}",
            r"\toprule",
            r"category & shots & 1 \% \\",
            r"\midrule",
            r"nut & 2 & 1.0 \\",
            r"\midrule",
            r"Average & 2 & 1.0 \\",
            r"\midrule",
            r"nut & all & 3.0 \\",
            r"\midrule",
            r"Average & all & 3.0 \\",
            r"\bottomrule",
            r"\end{tabular}",
        ]

    def test_csv(self):
        records = list(csv.DictReader(io.StringIO(records_text([FEW]))))
        assert [record["shots"] for record in records] == ["2", "2", "", ""]
