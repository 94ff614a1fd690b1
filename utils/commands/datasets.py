"""`main.py datasets`: list published datasets, their licences, and where to get them."""

from datasets.downloads import DOWNLOADS, NEEDS_FORM, listed
from datasets.published import Published
from utils.options.flags import CommandParser
from utils.table import escape_markdown, markdown_table

DESCRIPTION = """List published datasets for anomaly detection: name, categories, images, licence,
paper, and where to get them. Unknown numbers are left empty."""
COLUMNS = ("name", "title", "categories", "images", "licence", "paper", "address", "download")


def main(arguments: list[str], *, epilog: str = "") -> None:
    """Run the command."""
    CommandParser("datasets", DESCRIPTION, epilog).parse_args(arguments)
    rows = [[escape_markdown(text) for text in _row(dataset)] for dataset in listed()]
    print(markdown_table("Published datasets", COLUMNS, rows, num_texts=len(COLUMNS)))


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
