"""The page in a browser: what users see, click and press."""

import json
import math
import shutil
import time
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

import cv2
import numpy as np
import pytest

from tests.support import evaluate, make_data, read_table, write_image
from tests.utils.report.pages import HOSTILE, make_page, make_row, make_view
from utils.report import ReportImage, ReportView
from utils.results import Setting

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.select import Select  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

pytestmark = pytest.mark.skipif(
    not (BROWSER and DRIVER),
    reason="no chromium with chromedriver (apt-get install chromium-driver)",
)

FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"),
    # What is scrolled to is clicked at once.
    "--force-prefers-reduced-motion",
    # A mouse, which a machine without a screen has not.
    "--blink-settings=primaryHoverType=2,availableHoverTypes=2",
    *("--disable-background-networking", "--disable-dev-shm-usage", "--window-size=1280,900"),
)
CASES = {"tp": (True, True), "fp": (True, False), "fn": (False, True), "tn": (False, False)}


class Page:
    """A page and what a user does with it."""

    def __init__(self, driver, path: Path):
        self.driver = driver
        self.folder = path.parent
        driver.get_log("browser")
        driver.get_log("performance")
        driver.get(path.as_uri())

    def find(self, selector: str):
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str):
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def run(self, script: str, *arguments):
        return self.driver.execute_script(script, *arguments)

    def select(self, name: str, value: str) -> None:
        Select(self.find(f"#{name}")).select_by_value(value)

    def press(self, *keys: str) -> None:
        for key in keys:
            self.driver.switch_to.active_element.send_keys(key)

    def set_slider(self, value: int) -> None:
        self.run(
            "const s = document.getElementById('threshold'); s.value = arguments[0];"
            "s.dispatchEvent(new Event('input')); s.dispatchEvent(new Event('change'))",
            value,
        )

    def counts(self) -> dict[str, int]:
        return {case: int(self.find(f"#{case}").text) for case in CASES}

    def cards(self) -> list[dict]:
        """Return what the visible cards show, in their order."""
        return self.run(
            "return [...document.querySelectorAll('#gallery li:not([hidden])')].map(card => ({"
            "kind: card.className, type: card.querySelector('.type').textContent,"
            "file: card.querySelector('.file').textContent,"
            "score: Number(card.querySelector('.score').textContent)}))"
        )

    def view(self) -> dict:
        """Return the data of the category that is shown."""
        return self.run(
            "return JSON.parse(document.getElementById('data').textContent).views.find(v =>"
            "v.category === state.category && v.setting === state.setting)"
        )

    def requested(self) -> list[str]:
        messages = (json.loads(e["message"])["message"] for e in self.driver.get_log("performance"))
        return [
            message["params"]["request"]["url"]
            for message in messages
            if message["method"] == "Network.requestWillBeSent"
        ]


def tally(view: dict, threshold: float) -> dict[str, int]:
    return {
        case: sum(
            (image["score"] >= threshold) == found and image["bad"] == bad
            for image in view["images"]
        )
        for case, (found, bad) in CASES.items()
    }


@pytest.fixture(scope="module")
def driver():
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def result(tmp_path_factory) -> Path:
    """Return the results of a run with two categories and two percentages."""
    root = tmp_path_factory.mktemp("report")
    flags = "--pictures all --percentage_coreset 0.02 0.1"
    return evaluate(make_data(root / "data"), root / "result", flags, plots=True)


@pytest.fixture
def page(driver, result):
    """Return the run's page, freshly opened; it must end without a complaint of the browser."""
    page = Page(driver, result / "index.html")
    yield page
    assert driver.get_log("browser") == []
    folder = result.as_uri()
    assert all(url.startswith((folder, "data:")) for url in page.requested())


@pytest.fixture
def crowded(driver, tmp_path):
    """Return a page with as many images as MVTec AD has, 60 of them with a thumbnail."""
    views = [make_view(f"category_{number:02d}", 115) for number in range(15)]
    rows = [make_row(view.category) for view in views]
    for image in views[0].images:
        write_image(tmp_path / image.thumbnail, np.full((24, 72, 3), 120, np.uint8))
    path = tmp_path / "index.html"
    path.write_text(make_page(rows=rows, views=views), encoding="utf-8")
    return Page(driver, path)


def test_counts_are_those_of_the_table(page, result):
    rows = read_table(result)
    assert len(rows) == 4
    for row in rows:
        page.select("setting", row["percentage_coreset"])
        page.select("category", row["category"])
        counts = page.counts()
        assert counts["fp"] == int(row["image_false_positives"])
        assert counts["fn"] == int(row["image_false_negatives"])
        assert sum(counts.values()) == int(row["num_test"])
        assert counts["tp"] + counts["fn"] == 4


def test_the_slider_judges_anew(crowded):
    view = crowded.view()
    scores = [image["score"] for image in view["images"]]
    assert crowded.counts() == tally(view, view["threshold"])
    assert 0 < crowded.counts()["fp"] < 20
    assert 0 < crowded.counts()["fn"] < 20
    low, high = crowded.run("return sliderRange(currentViews()[0])")
    for position in (0, 137, 500, 820, 1000):
        crowded.set_slider(position)
        threshold = low + (high - low) * position / 1000
        assert crowded.counts() == tally(view, threshold)
        kinds = [card["kind"] for card in crowded.cards()]
        assert {case: kinds.count(case) for case in CASES} == crowded.counts()
        assert float(crowded.find("#reading").text) == pytest.approx(threshold, rel=1e-3)
    assert low < min(scores)
    assert high > max(scores)
    crowded.find("#reset").click()
    assert crowded.counts() == tally(view, view["threshold"])


def test_the_slider_obeys_the_keyboard(crowded):
    slider = crowded.find("#threshold")
    before = float(crowded.find("#reading").text)
    for _ in range(20):
        slider.send_keys(Keys.ARROW_RIGHT)
    assert float(crowded.find("#reading").text) > before


def test_each_category_keeps_its_threshold(crowded):
    crowded.set_slider(0)
    crowded.select("category", "category_03")
    other = crowded.view()
    assert crowded.counts() == tally(other, other["threshold"])
    crowded.select("category", "category_00")
    assert crowded.counts()["fn"] == crowded.counts()["tn"] == 0


def test_images_are_ordered(crowded):
    view = crowded.view()
    for order, key in (
        ("highest", lambda image: -image["score"]),
        ("lowest", lambda image: image["score"]),
        ("name", lambda image: (image["type"], image["file"])),
        (
            "hardest",
            lambda image: (-1 if image["bad"] else 1) * (view["threshold"] - image["score"]),
        ),
    ):
        crowded.select("order", order)
        expected = [image["file"] for image in sorted(view["images"], key=key)]
        assert [card["file"] for card in crowded.cards()] == expected, order


def test_images_are_filtered(crowded):
    counts = crowded.counts()
    crowded.select("verdict", "fp")
    assert {card["kind"] for card in crowded.cards()} == {"fp"}
    assert len(crowded.cards()) == counts["fp"]
    crowded.select("verdict", "fn")
    assert {card["type"] for card in crowded.cards()} == {"crack"}
    assert len(crowded.cards()) == counts["fn"]
    crowded.select("verdict", "wrong")
    assert len(crowded.cards()) == counts["fn"] + counts["fp"]
    crowded.select("type", "good")
    assert len(crowded.cards()) == counts["fp"]
    assert crowded.find("#shown").text == f"{counts['fp']} of 115 images"
    crowded.select("verdict", "right")
    assert len(crowded.cards()) == counts["tn"]


def test_the_overview_is_sorted_and_leads_to_images(page):
    def names() -> list[str]:
        return [e.text for e in page.all("[data-setting='0.1'] tbody th") if e.is_displayed()]

    heading = page.find("[data-setting='0.1'] thead .sort")
    assert names() == ["gadget", "widget"]
    heading.click()
    assert names() == ["gadget", "widget"]
    heading.click()
    assert names() == ["widget", "gadget"]
    page.find("[data-setting='0.1'] [data-category='widget']").click()
    assert page.find("#category").get_attribute("value") == "widget"


def test_names_are_sorted_by_their_numbers_and_leave_room_for_the_metrics(driver, tmp_path):
    names = ["part_10", "part_2", "part_" + "9" * 200]
    path = tmp_path / "index.html"
    path.write_text(make_page(rows=[make_row(name) for name in names]), encoding="utf-8")
    page = Page(driver, path)
    page.find(".overview thead .sort").click()
    links = page.all(".overview tbody th button")
    assert [link.get_attribute("title") for link in links] == ["part_2", "part_10", names[2]]
    assert max(link.rect["width"] for link in links) <= 300
    first = page.find(".overview tbody td")
    assert first.rect["x"] + first.rect["width"] < 640


@pytest.mark.parametrize("width", [390, 1280])
def test_the_text_of_curves_is_large_enough(page, width):
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        for name, least in (("roc", 0.6), ("pr", 0.6), ("pro", 0.6)):
            address = page.find(f".curves:not([hidden]) a[href^={name}-curve]").get_attribute(
                "href"
            )
            image = page.find(f".curves:not([hidden]) img[src^={name}-curve]")
            page.run("arguments[0].scrollIntoView(); arguments[0].loading = 'eager'", image)
            WebDriverWait(page.driver, 5).until(
                lambda _, image=image: page.run("return arguments[0].complete", image)
            )
            drawn = cv2.imread(url2pathname(urlparse(address).path)).shape[1]
            assert image.rect["width"] / drawn >= least
        assert page.run("return document.documentElement.scrollWidth") <= width
    finally:
        page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_an_image_is_looked_at_with_the_keyboard_alone(page):
    files = [card["file"] for card in page.cards()]
    types = [card["type"] for card in page.cards()]

    def title() -> str:
        return page.find("#large-title").text

    page.find("#gallery .card").send_keys(Keys.ENTER)
    assert title() == f"gadget / {types[0]} / {files[0]}"
    assert "localization_gadget" in page.find("#large-image").get_attribute("src")
    page.press(Keys.ARROW_RIGHT)
    assert title() == f"gadget / {types[1]} / {files[1]}"
    page.press(Keys.ARROW_LEFT, Keys.ARROW_LEFT)  # before the first comes the last
    assert title() == f"gadget / {types[-1]} / {files[-1]}"
    page.press("e")
    assert "explanation_gadget" in page.find("#large-image").get_attribute("src")
    assert "nearest" in page.find("#large-image").get_attribute("alt")
    assert page.run("return document.getElementById('large-image').decode().then(() => true)")
    page.press(Keys.HOME)
    assert title() == f"gadget / {types[0]} / {files[0]}"
    page.press(Keys.END, Keys.ESCAPE)
    assert not page.find("#large").is_displayed()
    expected = f"gadget, {types[-1]}, {files[-1]}: score"
    # The browser first gives the focus back to where it was, and then tells the page.
    WebDriverWait(page.driver, 10).until(
        lambda driver: (
            driver.switch_to.active_element.get_attribute("aria-label") or ""
        ).startswith(expected)
    )


def test_the_patches_are_those_of_the_record(page, result):
    page.find("#gallery .card").click()
    address = page.find("#large-image").get_attribute("src")
    name = Path(address).name.partition("_s")[0] if "_s" in address else ""
    stem = page.view()["images"]
    kind, file = page.find("#large-title").text.split(" / ")[1:]
    (image,) = [i for i in stem if (i["type"], i["file"]) == (kind, file)]
    record = json.loads((result / image["why"]).with_suffix(".json").read_text())
    assert name.startswith("localization")
    cells = [
        [cell.text for cell in row.find_elements(By.TAG_NAME, "td")]
        for row in page.all("#patches tbody tr")
    ]
    assert len(cells) == len(record["patches"]) == 3
    for cell, patch in zip(cells, record["patches"], strict=True):
        near = patch["nearest"][0]
        assert cell[:2] == [str(patch["rank"]), f"row {patch['row']}, column {patch['column']}"]
        assert float(cell[2]) == pytest.approx(patch["score"], rel=1e-3)
        place = near["file"].removeprefix("gadget/")
        where = f"patch row {near['row']}, column {near['column']}"
        assert cell[3].startswith(f"{place}, {where}; distance ")


def test_thumbnails_show_one_view_and_what_it_was_compared_with(page):
    thumbnail = page.find("#gallery .thumb")
    # The browser may not lay out cards that are out of sight; the mouse rests on the page's bar.
    page.run("arguments[0].scrollIntoView({block: 'center'})", thumbnail)
    webdriver.ActionChains(page.driver).move_to_element(page.find(".brand")).perform()
    width = thumbnail.size["width"]

    def offset() -> float:
        return page.run(
            "const t = document.querySelector('#gallery .thumb');"
            "return t.getBoundingClientRect().left"
            " - t.querySelector('img').getBoundingClientRect().left"
        )

    assert offset() == pytest.approx(width, abs=2)
    page.run("document.querySelector('input[name=view][value=\"0\"]').click()")
    assert offset() == pytest.approx(0, abs=2)
    webdriver.ActionChains(page.driver).move_to_element(thumbnail).perform()
    assert offset() == pytest.approx(2 * width, abs=2)


def test_all_categories_at_once(crowded):
    crowded.select("category", "*")
    assert sum(crowded.counts().values()) == len(crowded.cards()) == 15 * 115
    assert not crowded.find("#threshold").is_displayed()
    assert "category_" in crowded.cards()[0]["file"]


def test_thousands_of_images_load_without_delay(crowded):
    begin = time.perf_counter()
    crowded.select("category", "*")
    assert crowded.find("#shown").text == f"{15 * 115} of {15 * 115} images"
    assert time.perf_counter() - begin < 5  # a third of a second on an idle machine
    milliseconds = crowded.run(
        "const start = performance.now(); buildGallery(); return performance.now() - start"
    )
    assert milliseconds < 2000
    asked = {url for url in crowded.requested() if url.endswith(".jpg")}
    assert 0 < len(asked) < 400  # those in sight, and a screen ahead


@pytest.mark.parametrize("width", [360, 390, 768, 1280])
def test_nothing_is_cut_off_at_any_width(page, width):
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 700}
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        page.driver.refresh()
        for step in ("", "document.querySelector('.card').click()"):
            page.run(step)
            needed = page.run("return document.documentElement.scrollWidth")
            assert needed <= width
        frame = page.find("#large .frame").rect
        assert frame["x"] >= 0
        assert frame["x"] + frame["width"] <= width
    finally:
        page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_dark_and_light_follow_the_system_until_one_chooses(page):
    def brightness() -> int:
        colour = page.run("return getComputedStyle(document.body).backgroundColor")
        return int(colour.partition("(")[2].partition(",")[0])

    def prefer(scheme: str) -> None:
        feature = {"name": "prefers-color-scheme", "value": scheme}
        page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})

    try:
        prefer("dark")
        assert brightness() < 60
        prefer("light")
        assert brightness() > 200
        page.find("#theme").click()
        assert brightness() < 60
        page.driver.refresh()
        assert brightness() < 60
    finally:
        page.run("localStorage.clear()")
        page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_everything_that_can_be_used_has_a_name(page):
    page.driver.execute_cdp_cmd("Accessibility.enable", {})
    nodes = page.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    roles = {"button", "combobox", "slider", "radio", "link", "image", "table"}
    shown = [n for n in nodes if not n["ignored"] and n["role"]["value"] in roles]
    assert len(shown) > 30
    nameless = [n for n in shown if not n.get("name", {}).get("value")]
    assert nameless == []


def test_the_focus_goes_down_the_page(page):
    seen = []
    page.run("document.activeElement.blur(); window.scrollTo(0, 0)")
    for _ in range(60):
        page.press(Keys.TAB)
        tag = page.run(
            "const e = document.activeElement;"
            "return e.id || e.dataset.category || e.getAttribute('href') || e.name || e.className"
        )
        seen.append(tag)
    order = ["#images", "setting", "theme", "gadget", "category", "threshold", "card"]
    places = [seen.index(name) for name in order]
    assert places == sorted(places)


def test_hostile_names_are_shown_and_do_nothing(driver, tmp_path):
    images = [ReportImage(HOSTILE, HOSTILE, 1.0, True), ReportImage("good", "a.png", 0.2, False)]
    path = tmp_path / "index.html"
    view = ReportView(HOSTILE, Setting(0.1), 0.5, images)
    path.write_text(make_page(rows=[make_row(HOSTILE)], views=[view]), encoding="utf-8")
    page = Page(driver, path)
    page.select("order", "highest")
    assert [card["file"] for card in page.cards()] == [HOSTILE, "a.png"]
    page.find("#gallery .card").click()
    assert page.find("#large-title").text == f"{HOSTILE} / {HOSTILE} / {HOSTILE}"
    assert driver.title == "PatchCore report"
    assert driver.get_log("browser") == []


def test_without_figures_scores_are_still_judged(driver, tmp_path):
    images = [ReportImage("good", "0.png", 0.1, False), ReportImage("crack", "1.png", 0.9, True)]
    path = tmp_path / "index.html"
    path.write_text(
        make_page(views=[ReportView("nut", Setting(0.1), 0.5, images)]), encoding="utf-8"
    )
    page = Page(driver, path)
    assert page.counts() == {"tp": 1, "fp": 0, "fn": 0, "tn": 1}
    page.find("#gallery .card").click()
    assert page.find("#large-image").get_attribute("alt") == "No figure was drawn for this image"
    assert driver.get_log("browser") == []


def test_a_threshold_that_was_not_measured_has_no_number(driver, tmp_path):
    images = [ReportImage("good", f"{n}.png", 0.1 + n, False) for n in range(2)]
    view = ReportView("nut", Setting(0.1), math.nan, images)
    path = tmp_path / "index.html"
    path.write_text(make_page(views=[view]), encoding="utf-8")
    page = Page(driver, path)
    reading, reset, line = (page.find(s) for s in ("#reading", "#reset", "#histogram .line"))

    def shown() -> tuple[str, str, str]:
        return reading.text, page.find("#reset").text, line.get_attribute("visibility")

    assert shown() == ("–", "", "hidden")
    assert page.find("#threshold").get_attribute("aria-valuetext") == "none"
    assert not page.find(".gauge b").is_displayed()
    page.set_slider(500)
    assert page.counts() == {"tp": 0, "fp": 1, "fn": 0, "tn": 1}
    assert shown() == ("0.6", "none", "visible")
    reset.click()
    assert shown() == ("–", "", "hidden")
    assert page.counts() == {"tp": 0, "fp": 0, "fn": 0, "tn": 2}
