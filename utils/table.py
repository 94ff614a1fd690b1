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
class TableRow:
    """A row of a table.

    Attributes:
        name: A category, or one of `AVERAGES`.
        cells: The values, in the order of the table's columns.
        shots: Number of training images of a few-shot run; None for all.
    """

    name: str
    cells: tuple[TableCell, ...]
    shots: int | None = None

    @property
    def shots_text(self) -> str:
        """The number of training images, or ``all``."""
        return "all" if self.shots is None else str(self.shots)


@dataclass(frozen=True)
class Table:
    """One metric: categories down, percentages across, averages last.

    Rows with the same number of shots are consecutive.

    Attributes:
        title: Title with the unit.
        columns: Headings of the columns with values.
        rows: Categories, then averages; for each number of shots.
        digits: Digits after the decimal point.
        notes: What limits the comparison of columns, one sentence each.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[TableRow, ...]
    digits: int
    notes: tuple[str, ...] = ()

    @property
    def has_shots(self) -> bool:
        """Whether a row is of a few-shot run, so that rows show their number of shots."""
        return any(row.shots is not None for row in self.rows)

    @property
    def plain_columns(self) -> list[str]:
        """Headings without Markdown's asterisks."""
        return [column.replace("*", "") for column in self.columns]

    def to_markdown(self) -> str:
        """Return the table with its title."""
        body = []
        for row in self.rows:
            shown = f"**{row.name}**" if row.name in AVERAGES else escape_markdown(row.name)
            values = [cell.to_text(self.digits) for cell in row.cells]
            body.append([shown, *self._shots_of(row), *values])
        columns = [*self._first_columns, *self.columns]
        text = markdown_table(self.title, columns, body, num_texts=1)
        return "\n".join([text, *(f"{note}\n" for note in self.notes)])

    def to_latex(self) -> str:
        """Return a tabular that needs the package booktabs."""
        headings = [*self._first_columns, *self.plain_columns]
        lines = [
            *(f"% {text}" for text in (self.title, *self.notes)),
            rf"\begin{{tabular}}{{l{'r' * (len(headings) - 1)}}}",
            r"\toprule",
            " & ".join(map(_escape_latex, headings)) + r" \\",
            r"\midrule",
        ]
        for before, row in zip((self.rows[0], *self.rows), self.rows, strict=False):
            if row.name == AVERAGE or row.shots != before.shots:
                lines.append(r"\midrule")
            values = [cell.to_text(self.digits, r"$\pm$") for cell in row.cells]
            name = _escape_latex(row.name)
            lines.append(" & ".join([name, *self._shots_of(row), *values]) + r" \\")
        return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"

    def to_records(self) -> list[dict[str, str]]:
        """Return a record for each value: table, category, shots, column, value, deviation."""
        return [
            {
                "table": self.title,
                "category": row.name,
                "shots": "" if row.shots is None else str(row.shots),
                "column": column,
                "value": _number(cell.value, self.digits),
                "deviation": _number(cell.standard_deviation, self.digits),
            }
            for row in self.rows
            for column, cell in zip(self.plain_columns, row.cells, strict=True)
        ]

    @property
    def _first_columns(self) -> list[str]:
        return ["category", "shots"] if self.has_shots else ["category"]

    def _shots_of(self, row: TableRow) -> list[str]:
        return [row.shots_text] if self.has_shots else []


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
    words = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(words.get(c, f"\\{c}" if c in "&%$#_{}" else c) for c in text)


def _number(value: float, digits: int) -> str:
    return "" if math.isnan(value) else f"{value:.{digits}f}"
