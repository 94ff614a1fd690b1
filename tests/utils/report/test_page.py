"""The page as text: complete, self-contained, and safe whatever a file is called."""

import base64
import hashlib
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from urllib.parse import unquote

import pytest

from tests.utils.report.pages import (
    HOSTILE,
    NOTHING,
    RECORD,
    make_page,
    make_row,
    make_view,
)
from utils.report import ReportImage, ReportView
from utils.report.view import as_url
from utils.results import Setting

VOID = {"meta", "link", "input", "img", "br", "path", "circle"}


class Reader(HTMLParser):
    """Collects a page's elements, and sees whether each one is closed."""

    def __init__(self, page: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def data_of(page: str) -> dict:
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    return json.loads(text)


def test_all_elements_are_closed_and_ids_are_single():
    reader = Reader(make_page())
    assert reader.open == []
    ids = [attributes["id"] for _, attributes in reader.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    labels = [a["for"] for tag, a in reader.elements if tag in ("label", "output") and "for" in a]
    assert set(labels) <= set(ids)


def test_nothing_comes_from_elsewhere():
    page = make_page(curves={Setting(0.1): [("ROC curves", "roc #1.png")]})
    for tag, attributes in Reader(page).elements:
        assert tag not in {"iframe", "object", "embed", "base", "form"}
        for name in ("src", "href"):
            assert "://" not in (attributes.get(name) or ""), tag
    without_names = page.replace("http://www.w3.org/2000/svg", "")  # a name, never asked for
    assert not re.search(r"https?://|@import|url\(", without_names)
    assert '<img src="roc%20%231.png"' in page


def test_only_its_own_script_may_run():
    page = make_page()
    scripts = re.findall(r"<script>(.*?)</script>", page, re.S)
    assert len(scripts) == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page


@pytest.mark.parametrize("place", ["category", "type", "file", "note", "command"])
def test_names_are_never_markup(place):
    images = [ReportImage(HOSTILE if place == "type" else "crack", "a.png", 1.0, True)]
    if place == "file":
        images = [ReportImage("crack", HOSTILE, 1.0, True, thumbnail=f"thumbnails/{HOSTILE}.jpg")]
    category = HOSTILE if place == "category" else "nut"
    record = RECORD | {"notes": [HOSTILE]} if place == "note" else RECORD
    if place == "command":
        record = record | {"command": HOSTILE}
    page = make_page(
        record=record,
        rows=[make_row(category)],
        views=[ReportView(category, Setting(0.1), 0.5, images)],
    )
    reader = Reader(page)
    assert reader.open == []
    assert [tag for tag, _ in reader.elements].count("script") == 2
    assert not any("onerror" in attributes for _, attributes in reader.elements)
    view = data_of(page)["views"][0]
    assert view["category"] == category
    if place == "file":
        assert view["images"][0]["file"] == HOSTILE
        assert unquote(view["images"][0]["thumb"]) == f"thumbnails/{HOSTILE}.jpg"


def test_undecodable_names_do_not_stop_it():
    view = ReportView(
        "nut\udcff", Setting(0.1), 0.5, [ReportImage("crack", "\udcff.png", 1.0, True)]
    )
    page = make_page(rows=[make_row("nut\udcff")], views=[view])
    assert page.encode("utf-8")
    assert as_url("a\udcff b.png") == "a%FF%20b.png"


def test_scores_and_threshold_are_exact():
    """Or an image at the threshold would be judged otherwise than in the table."""
    view = make_view(count=50)
    (record,) = data_of(make_page(views=[view]))["views"]
    assert [image["score"] for image in record["images"]] == [i.score for i in view.images]
    assert record["threshold"] == view.threshold


def test_what_was_not_measured_is_a_dash():
    page = make_page(rows=[NOTHING], views=[ReportView("nut", Setting(0.1), math.nan, [])])
    assert data_of(page)["views"][0]["threshold"] is None
    assert "nan" not in re.sub(r"<script.*?</script>", "", page, flags=re.S).lower()


def test_the_overview_has_a_line_for_each_category_and_their_average():
    worse = make_row("bolt", metrics=make_row().metrics | {"image_auroc": 0.7})
    other = replace(worse, percentage_coreset=0.05, metrics=make_row().metrics)
    page = make_page(rows=[make_row(), worse, other])
    overview = page.partition('<table class="overview">')[2].partition("</table>")[0]
    assert re.findall(r'data-category="(\w+)"', overview) == ["nut", "bolt"]
    first_values = re.findall(r"</th>\s*<td[^>]*>([^<]+)</td>", overview)
    assert first_values == ["90.00", "70.00", "80.00"]


def test_tiles_and_overview_are_of_the_last_model():
    member = make_row(model="resnet18", metrics=make_row().metrics | {"image_auroc": 0.7})
    found, expected = (make_page(rows=rows) for rows in ([member, make_row()], [make_row()]))
    tables = '<div class="tables">'
    assert found.partition(tables)[0] == expected.partition(tables)[0]
    assert "resnet18" in found.partition(tables)[2]


@pytest.mark.parametrize(
    ("values", "bars"),
    [
        ((0.9, 0.8, 0.7), ["0.8000", "0.6000", "0.7000"]),
        ((1.0, 0.5, 0.0), ["1.0000", "0.0000", "0.0000"]),
        ((0.4, math.nan, 1.0), ["0.0000", "1.0000"]),
    ],
)
def test_bars_of_auroc_begin_at_50_percent(values, bars):
    names = ("image_auroc", "pixel_auroc", "pixel_aupro")
    metrics = make_row().metrics | dict(zip(names, values, strict=True))
    page = make_page(rows=[make_row(metrics=metrics)])
    assert re.findall(r'style="--share:([^"]+)"', page) == bars


def test_the_numbers_of_its_tiles_and_of_the_overview():
    page = make_page(rows=[make_row()])
    tiles = page.partition('<dl class="tiles">')[2].partition("</dl>")[0]
    assert re.findall("<dt>(.*?)</dt>", tiles) == [
        *("Image AUROC", "Pixel AUROC", "AUPRO", "Time per category"),
    ]
    overview = page.partition('<table class="overview">')[2].partition("</thead>")[0]
    assert re.findall(r'class="sort">(.*?)</button>', overview) == [
        *("Category", "Image AUROC", "Image AP", "Image F1-max"),
        *("Pixel AUROC", "AUPRO", "Pixel AP", "Wrong", "Seconds"),
    ]


def test_tables_leave_out_columns_in_which_nothing_is_known():
    for category, columns in (
        ("nut", ["Category", "10 %"]),
        ("bottle", ["Category", "Paper 10 %", "10 %", "difference"]),
    ):
        tables = make_page(rows=[make_row(category)]).partition('<div class="tables">')[2]
        assert re.findall(r'<th scope="col">(.*?)</th>', tables.partition("</thead>")[0]) == columns


def test_several_seeds_are_averaged():
    other = make_row(seed=1, metrics=make_row().metrics | {"image_auroc": 0.7})
    page = make_page(rows=[make_row(), other])
    assert "means over the seeds" in page
    assert "Curves, images, scores and thresholds below are of seed 0 only" in page
    assert "of seed 0 only" not in make_page()
    overview = page.partition('<table class="overview">')[2].partition("</table>")[0]
    assert re.findall(r"</th>\s*<td[^>]*>([^<]+)</td>", overview) == ["80.00", "80.00"]


def test_categories_count_equally_whatever_their_seeds():
    low = make_row().metrics | {"image_auroc": 0.5}
    rows = [make_row(), *(make_row("bolt", seed=seed, metrics=low) for seed in range(3))]
    tiles = make_page(rows=rows).partition('<dl class="tiles">')[2].partition("</dl>")[0]
    assert re.search(r"<dd>\s*([\d.]+)", tiles)[1] == "70.00"


def test_the_largest_percentage_is_shown_first():
    rows = [make_row(percentage=p) for p in (0.01, 0.25)]
    page = make_page(rows=rows)
    assert re.findall(r'data-setting="([\d.]+)"( hidden)?', page) == [
        ("0.25", ""),
        ("0.01", " hidden"),
    ]


def test_notes_and_an_unfinished_state_are_told():
    page = make_page(record=RECORD | {"notes": ["RANDOM WEIGHTS"], "state": "running"})
    assert "RANDOM WEIGHTS" in page
    assert "State of the run when this page was written: running." in page
    assert "State of the run" not in make_page()
