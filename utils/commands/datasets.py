"""`main.py datasets`: list published datasets, their licences, and where to get them."""

import shutil
import sys
import textwrap
from collections.abc import Sequence

from datasets.downloads import DOWNLOADS, NEEDS_FORM, listed
from datasets.published import Published
from utils.options.flags import CommandParser
from utils.results import numbered
from utils.table import escape_markdown, markdown_table

DESCRIPTION = """List published datasets for anomaly detection: name, categories, images, licence,
paper, and where to get them. Unknown numbers are left out. Where the output is no terminal, it is a
Markdown table."""
COLUMNS = ("name", "title", "categories", "images", "licence", "paper", "address", "download")


def main(arguments: list[str], *, epilog: str = "") -> None:
    """Run the command."""
    CommandParser("datasets", DESCRIPTION, epilog).parse_args(arguments)
    if sys.stdout.isatty():
        print(describe(listed(), shutil.get_terminal_size().columns))
        return
    rows = [[escape_markdown(text) for text in _row(dataset)] for dataset in listed()]
    print(markdown_table("Published datasets", COLUMNS, rows, num_texts=len(COLUMNS)))


def describe(datasets: Sequence[Published], width: int) -> str:
    """Return a paragraph for each dataset, with its name in front.

    Args:
        datasets: The datasets.
        width: Longest line; an address may be longer.
    """
    margin = max(len(dataset.key) for dataset in datasets) + 2
    paragraphs = []
    for dataset in datasets:
        counts = [
            numbered(count, noun)
            for count, noun in ((len(dataset.categories), "category"), (dataset.images, "image"))
            if count
        ]
        first = ", ".join([dataset.name, *counts, f"licence: {dataset.licence}"])
        lines = [first, dataset.paper, dataset.address, _way(dataset)]
        wrapped = [
            line
            for text in lines
            for line in textwrap.wrap(
                text, max(width - margin, 20), break_long_words=False, break_on_hyphens=False
            )
        ]
        text = textwrap.indent("\n".join(wrapped), " " * margin)
        paragraphs.append(dataset.key + text[len(dataset.key) :])
    return "\n\n".join(paragraphs)


def _row(dataset: Published) -> list[str]:
    return [
        dataset.key,
        dataset.name,
        str(len(dataset.categories) or ""),
        str(dataset.images or ""),
        dataset.licence,
        dataset.paper,
        dataset.address,
        _way(dataset),
    ]


def _way(dataset: Published) -> str:
    """Return how to get a dataset."""
    known = DOWNLOADS.get(dataset.key)
    if known and known.remote.url:
        return f"python main.py download {dataset.key}"
    if dataset.key in NEEDS_FORM:
        return "form at the address, then download --archive FILE"
    return "at the address"
