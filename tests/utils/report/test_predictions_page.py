"""The page of an inference: escaped, complete, in constant memory, and usable in a browser."""

import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from tests.support import write_image
from tests.utils.report.pages import HOSTILE
from tests.utils.report.test_in_browser import (  # noqa: F401
    Page,
    driver,
)
from tests.utils.report.test_in_browser import (
    pytestmark as needs_browser,
)
from tests.utils.report.test_page import Reader, data_of
from utils.pipeline import prediction_page as module
from utils.pipeline.prediction_page import PredictionPage
from utils.predictions import Outcome
from utils.report import PredictionImage, PredictionView, render_predictions
from utils.result_folder import ResultFolder

REGION = {"box": [1, 2, 30, 40], "area": 500, "score": 3.25}
PATCH = {
    **{"row": 3, "column": 4, "score": 2.5},
    "nearest": [{"file": "a/b.png", "row": 1, "column": 2, "version": "", "distance": 2.5}],
}


def make_image(score: float, **changed) -> PredictionImage:
    values = {
        "path": f"parts/{score:g}.png",
        "verdict": "anomaly" if score >= 2 else "normal",
        "score": score,
        "score_ratio": score / 2,
        "p_value": 0.25,
    }
    return PredictionImage(**values | changed)


def make_view(**changed) -> PredictionView:
    values = {"heading": "cap", "images": [make_image(s) for s in (4, 3, 1)], "threshold": 2.0}
    return PredictionView(**values | changed)


def test_all_elements_are_closed_and_ids_are_single():
    errors = [(HOSTILE, HOSTILE)]
    page = render_predictions(make_view(errors=errors, notes=[HOSTILE], facts=[("a", HOSTILE)]))
    reader = Reader(page)
    assert reader.open == []
    ids = [attributes["id"] for _, attributes in reader.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert HOSTILE not in page


def test_the_data_of_an_image():
    image = make_image(
        float("nan"),
        path=HOSTILE,
        verdict="anomaly",
        score_ratio=None,
        p_value=None,
        place="frame 3, 0.12 s",
        regions=[REGION],
        thumbnail="thumbnails/a b.jpg",
        patches=[PATCH],
    )
    (found,) = data_of(render_predictions(make_view(images=[image])))["images"]
    assert found == {
        **{"path": HOSTILE, "verdict": "anomaly", "score": None, "ratio": None, "p": None},
        **{"place": "frame 3, 0.12 s", "regions": [[1, 2, 30, 40, 500, 3.25]]},
        **{"thumb": "thumbnails/a%20b.jpg", "large": None, "why": None},
        "patches": [[3, 4, 2.5, [["a/b.png", 1, 2, "", 2.5]]]],
    }


class Run:
    """A page that is written with made-up outcomes."""

    def __init__(self, folder, limit):
        self.folder = folder
        self.model = SimpleNamespace(
            preprocess=SimpleNamespace(size_crop=(24, 48)),
            trained=SimpleNamespace(
                category="cap",
                held_out=None,
                coreset=SimpleNamespace(bank=range(5), origins=SimpleNamespace(names=("a",))),
            ),
            backbone=SimpleNamespace(name="net"),
            scorer=SimpleNamespace(ignored=None),
        )
        image = SimpleNamespace(value=2.0, method="given", rate=None)
        self.drawn = 0
        self.page = PredictionPage(
            self.model,
            SimpleNamespace(image=image),
            SimpleNamespace(page_limit=limit),
            ResultFolder(folder),
            self,
            {"command": "main.py infer", "start": "then"},
        )
        self.counts = {"anomaly": 0, "normal": 0, "error": 0}

    def thumbnail(self, crop, prediction) -> bytes:
        self.drawn += 1
        return b"jpeg"

    def add(self, *scores: float) -> None:
        for score in scores:
            verdict = "normal" if score < 2 else "anomaly"
            self.counts[verdict] += 1
            name = f"{sum(self.counts.values()):03d}.png"
            self.page.add(Outcome(name, verdict, score, 2.0), None, None)

    def fail(self, count: int) -> None:
        for _ in range(count):
            self.counts["error"] += 1
            self.page.add_error(Outcome("x", "error", error="gone"))

    def text(self) -> str:
        return (self.folder / "index.html").read_text()

    def shown(self) -> list[float]:
        return [image["score"] for image in data_of(self.text())["images"]]


def test_the_most_anomalous_are_kept_and_the_rest_is_told(tmp_path):
    run = Run(tmp_path, limit=20)
    scores = np.random.default_rng(0).permutation(300) / 100
    run.add(*scores.tolist())
    run.page.finish(run.counts)
    assert run.shown() == sorted(scores.tolist(), reverse=True)[:20]
    assert "No image was judged" not in run.text()
    assert data_of(run.text())["aspect"] == 2
    assert "Only the 20 most anomalous of 300 judged images are shown (--page_limit)" in run.text()
    thumbnails = {image["thumb"] for image in data_of(run.text())["images"]}
    assert {f"thumbnails/{file.name}" for file in (tmp_path / "thumbnails").iterdir()} == thumbnails
    assert run.drawn < 150  # of 300: few of the later ones are among the 20


def test_a_thumbnail_that_someone_has_removed_ends_no_run(tmp_path):
    run = Run(tmp_path, limit=1)
    run.add(1.0, 2.0)
    shutil.rmtree(tmp_path / "thumbnails")
    run.page.finish(run.counts)
    assert run.shown() == [2.0]


def test_of_equal_scores_the_first_stay_and_an_undefined_one_comes_first(tmp_path):
    run = Run(tmp_path, limit=3)
    run.add(1.0, 1.0, 1.0, 1.0, float("nan"))
    run.page.finish(run.counts)
    images = data_of(run.text())["images"]
    assert [image["path"] for image in images] == ["005.png", "001.png", "002.png"]


def test_errors_are_listed_up_to_the_limit(tmp_path):
    run = Run(tmp_path, limit=2)
    run.fail(2)
    run.page.finish(run.counts)
    assert "2 could not be judged." in run.text()
    run.fail(1)
    run.page.finish(run.counts)
    assert "The first 2 of 3 that could not be judged" in run.text()
    assert "No image was judged." in run.text()


def test_without_a_limit_nothing_is_written(tmp_path):
    run = Run(tmp_path, limit=0)
    run.add(1.0)
    run.page.add_earlier(Outcome("x.png", "normal", 1.0, 2.0))
    run.fail(1)
    run.page.update(run.counts)
    run.page.finish(run.counts)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("limit", [0, 2])
def test_what_earlier_runs_have_left_is_removed_at_the_end(tmp_path, limit):
    (tmp_path / "thumbnails").mkdir()
    for name in ("index.html", "thumbnails/earlier_0.jpg"):
        (tmp_path / name).touch()
    run = Run(tmp_path, limit)
    run.add(1.0, 2.0, 3.0)
    run.page.finish(run.counts)
    assert (tmp_path / "thumbnails/earlier_0.jpg").exists()
    run.page.clean_up()
    found = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")}
    shown = data_of(run.text())["images"] if limit else []
    assert found == ({"index.html"} if limit else set()) | {image["thumb"] for image in shown}
    assert len(shown) == limit


@pytest.mark.parametrize("limit", [0, 1, 2])
def test_an_earlier_image_on_the_page_needs_its_thumbnail(tmp_path, limit):
    run = Run(tmp_path, limit)
    run.add(2.0)
    low, high = (Outcome("x.png", "normal", score, 2.0) for score in (1.0, 3.0))
    assert run.page.can_show(low) == (limit < 2)  # it is not among the most anomalous
    assert run.page.can_show(high) == (limit < 1)
    run.page.add(high, None, None)
    assert run.page.can_show(replace(high, score=4.0))


def test_an_image_that_is_not_shown_gets_no_thumbnail(tmp_path):
    run = Run(tmp_path, limit=2)
    for score, count in ((3.0, 1), (2.0, 2), (1.0, 2), (2.5, 3)):  # one leaves with the next page
        run.add(score)
        assert len(list((tmp_path / "thumbnails").iterdir())) == count


def test_a_run_without_images_has_a_page(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SECONDS_BETWEEN", 0)
    run = Run(tmp_path, limit=1)
    run.page.update(run.counts)
    assert "No image was judged." in run.text()
    assert ">cap</h1>" in run.text()
    run.model.trained.category = ""
    run.page.finish(run.counts)
    assert ">Predictions</h1>" in run.text()


@pytest.mark.parametrize(
    ("held_out", "text"),
    [
        (None, "none: the model has no held-out scores"),
        (range(1200), "by 1,200 held-out scores of normal images"),
    ],
)
def test_facts_tell_where_the_p_values_are_from(tmp_path, held_out, text):
    run = Run(tmp_path, limit=1)
    run.model.trained.held_out = held_out and SimpleNamespace(images=held_out)
    run.page.finish(run.counts)
    assert text in run.text()


def test_a_frame_is_named_with_its_time(tmp_path):
    run = Run(tmp_path, limit=2)
    for details in ({"frame": 3, "time": 0.125}, {}):
        run.page.add(Outcome("line.avi", "normal", 1.0, 2.0, details=details), None, None)
    run.page.finish(run.counts)
    places = [image["place"] for image in data_of(run.text())["images"]]
    assert places == ["frame 3, 0.12 s", ""]
    assert "No image was judged" not in run.text()


def test_it_is_written_during_the_run_but_not_all_the_time(tmp_path, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    run = Run(tmp_path, limit=1)
    run.add(1.0)
    run.page.update(run.counts)
    assert not (tmp_path / "index.html").exists()
    clock[0] += module.SECONDS_BETWEEN
    run.page.update(run.counts)
    assert run.shown() == [1.0]
    run.add(3.0)
    run.page.update(run.counts)
    assert run.shown() == [1.0]
    assert len(list((tmp_path / "thumbnails").iterdir())) == 2  # the page still shows the first
    clock[0] += module.SECONDS_BETWEEN
    run.page.update(run.counts)
    assert run.shown() == [3.0]
    assert len(list((tmp_path / "thumbnails").iterdir())) == 1
    before = (tmp_path / "index.html").stat().st_mtime_ns
    clock[0] += module.SECONDS_BETWEEN
    run.page.update(run.counts)  # nothing has changed
    assert (tmp_path / "index.html").stat().st_mtime_ns == before
    run.fail(1)
    run.page.update(run.counts)
    assert "1 could not be judged." in run.text()


@pytest.mark.parametrize(("seconds", "pause"), [(0.0, 5.0), (0.125, 5.0), (1.0, 20.0)])
def test_a_large_page_takes_at_most_a_twentieth_of_the_time(tmp_path, monkeypatch, seconds, pause):
    clock, written = [100.0], []

    def render(view):
        written.append(clock[0])
        clock[0] += seconds
        return ""

    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(module, "render_predictions", render)
    run = Run(tmp_path, limit=1)
    run.page.finish(run.counts)
    end = clock[0]
    for passed in (pause - 0.125, pause):
        run.add(1.0)
        clock[0] = end + passed
        run.page.update(run.counts)
    assert written == [100.0, end + pause]


@pytest.fixture
def page(driver, tmp_path):  # noqa: F811
    """Return a page of 60 images with thumbnails, two errors and a hostile name."""
    images = []
    for number in range(60):
        score = 6 - number / 10
        thumbnail = f"thumbnails/{number}.jpg"
        write_image(tmp_path / thumbnail, np.full((24, 48, 3), 4 * number, np.uint8))
        images.append(make_image(score, thumbnail=thumbnail, regions=[REGION], patches=[PATCH]))
    images[1] = make_image(
        5.9, path="a/contamination_of_the_rim/5.9.png", score_ratio=123.4, p_value=0.0004785
    )
    images[3] = make_image(
        5.7, path=HOSTILE, place="frame 3, 0.12 s", score_ratio=None, p_value=None
    )
    view = make_view(
        images=images,
        tiles=[("judged", "60"), ("anomalous", "41")],
        errors=[("gone.png", "cannot read"), (HOSTILE, HOSTILE)],
        errors_text="2 could not be judged.",
        notes=["Only the 60 most anomalous of 100 judged images are shown."],
        limit_text="Only the 60 most anomalous of 100 judged images are shown.",
    )
    path = tmp_path / "index.html"
    path.write_text(render_predictions(view), encoding="utf-8")
    page = Page(driver, path)
    yield page
    assert driver.get_log("browser") == []
    assert driver.title == "PatchCore predictions"
    assert all(url.startswith((tmp_path.as_uri(), "data:")) for url in page.requested())


def shown(page) -> list[float]:
    return [card["score"] for card in page.cards()]


@needs_browser
def test_images_are_filtered_and_ordered(page):
    assert shown(page) == pytest.approx([6 - number / 10 for number in range(60)])
    page.select("verdict", "normal")
    assert {card["kind"] for card in page.cards()} == {"tn"}
    assert max(shown(page)) < 2
    page.select("order", "lowest")
    assert shown(page) == sorted(shown(page))
    page.select("verdict", "all")
    page.find("#name").send_keys("/5.")
    assert all(5 <= score < 6 for score in shown(page))
    assert page.find("#shown").text.startswith("9 of 60 images. Only the 60 most anomalous")


@needs_browser
def test_an_image_is_looked_at(page):
    page.find("#gallery .card").click()
    assert page.find("#large-title").text == "parts/6.png"
    assert "anomaly score 6, threshold 2 (3 × threshold, p = 0.25) · 1 of 60" in page.find(
        "#large-note"
    ).text.replace("anomaly\n", "anomaly ")
    tables = page.all("#patches table")
    assert [t.find_element("tag name", "caption").text[:20] for t in tables] == [
        "Its largest anomalou",
        "Its most anomalous p",
    ]
    page.press("\ue014", "\ue014", "\ue014")  # to the fourth
    assert page.find("#large-title").text == HOSTILE
    assert page.find("#large-note").text.endswith("frame 3, 0.12 s · 4 of 60")
    assert not page.all("#patches table")


@needs_browser
@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_is_cut_off(page, width):
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 700}
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        page.driver.refresh()
        assert page.run("return document.documentElement.scrollWidth") <= width
        assert page.find("#gallery .file").text == "3× p = 0.25"
        for part in page.all("#gallery .file")[1:3] + page.all("#gallery .type")[1:3]:
            needed = "return [arguments[0].scrollWidth, arguments[0].scrollHeight]"
            given = "return [arguments[0].clientWidth, arguments[0].clientHeight]"
            assert page.run(needed, part) == page.run(given, part)
    finally:
        page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
