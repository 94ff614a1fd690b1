"""One table of results as Markdown, LaTeX or CSV."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from utils.metric_columns import DASH

AVERAGE = "Average"
# Average over the categories that the paper has too, comparable with the paper's average.
AVERAGE_COMPARED = "Average of the paper's categories"
AVERAGES = (AVERAGE, AVERAGE_COMPARED)


@dataclass(frozen=True)
class TableCell:
    """A value of a table: the mean over seeds and its spread.

    Attributes:
        value: The mean; NaN if there is none.
        standard_deviation: The standard deviation (n - 1) over seeds; NaN with one seed.
    """

    value: float = math.nan
    standard_deviation: float = math.nan

    @property
    def is_known(self) -> bool:
        """Whether there is a value."""
        return not math.isnan(self.value)

    def to_text(self, digits: int, plus_minus: str = "±") -> str:
        """Return the value with ``digits`` digits after the point; a dash if there is none."""
        if not self.is_known:
            return DASH
        spread = _number(self.standard_deviation, digits)
        return _number(self.value, digits) + (f" {plus_minus} {spread}" if spread else "")


@dataclass(frozen=True)
class Table:
    """One metric: categories down, percentages across, averages last.

    Attributes:
        title: Title with the unit.
        columns: Headings of the columns after the first.
        rows: Each category with its cells, in the order of the columns.
        digits: Digits after the decimal point.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[TableCell, ...]], ...]
    digits: int

    @property
    def plain_columns(self) -> list[str]:
        """Headings without Markdown's asterisks."""
        return [column.replace("*", "") for column in self.columns]

    def to_markdown(self) -> str:
        """Return the table with its title."""
        body = []
        for name, cells in self.rows:
            shown = f"**{name}**" if name in AVERAGES else escape_markdown(name)
            body.append([shown, *(cell.to_text(self.digits) for cell in cells)])
        return markdown_table(self.title, ["category", *self.columns], body, num_texts=1)

    def to_latex(self) -> str:
        """Return a tabular that needs the package booktabs."""
        lines = [
            f"% {self.title}",
            rf"\begin{{tabular}}{{l{'r' * len(self.columns)}}}",
            r"\toprule",
            " & ".join(map(_escape_latex, ["category", *self.plain_columns])) + r" \\",
            r"\midrule",
        ]
        for name, cells in self.rows:
            if name == AVERAGE:
                lines.append(r"\midrule")
            values = [cell.to_text(self.digits, r"$\pm$") for cell in cells]
            lines.append(" & ".join([_escape_latex(name), *values]) + r" \\")
        return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"

    def to_records(self) -> list[dict[str, str]]:
        """Return a record for each value: table, category, column, value, deviation."""
        return [
            {
                "table": self.title,
                "category": name,
                "column": column,
                "value": _number(cell.value, self.digits),
                "deviation": _number(cell.standard_deviation, self.digits),
            }
            for name, cells in self.rows
            for column, cell in zip(self.plain_columns, cells, strict=True)
        ]


def markdown_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, num_texts: int
) -> str:
    """Return a table with its title in Markdown.

    Args:
        title: The title.
        columns: Headings.
        rows: The cells of each row, already escaped.
        num_texts: How many of the first columns are texts, aligned to the left.
    """
    alignment = "|:---" * num_texts + "|---:" * (len(columns) - num_texts) + "|"
    lines = [f"| {' | '.join(cells)} |" for cells in (columns, *rows)]
    return "\n".join([f"### {escape_markdown(title)}", "", lines[0], alignment, *lines[1:]]) + "\n"


def escape_markdown(text: str) -> str:
    """Return a text, such as a folder's name, that cannot end a table cell or become HTML."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")


def _escape_latex(text: str) -> str:
    return "".join(f"\\{letter}" if letter in "&%$#_{}" else letter for letter in text)


def _number(value: float, digits: int) -> str:
    return "" if math.isnan(value) else f"{value:.{digits}f}"
