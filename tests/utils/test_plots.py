"""Pictures are checked at pixels whose content is known, not against stored pictures."""

import itertools
import math
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import matplotlib.style
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.plots import (
    curves,
    distribution,
    draw_localization,
    draw_roc_curves,
    draw_thumbnail,
    figures,
    hatching,
    panel_grid,
    text,
)
from utils.plots import draw_score_distribution as draw_distribution
from utils.plots import localization as loc
from utils.plots.colour_scale import ColourScale, colour_table
from utils.plots.figures import DEFECT_COLOUR, DPI, NORMAL_COLOUR, PALETTE

pytestmark = pytest.mark.filterwarnings("error")

SIDE, PANEL, LOW, HIGH = 224, loc.PANEL_SIDE, 1.0, 3.0
CORNER, MIDDLE = (5, 5), (PANEL // 2, PANEL // 2)  # outside and inside of the square
PHOTO, REBUILT, WHITE = np.array([(200, 120, 40), (40, 160, 90), (255, 255, 255)])
IMAGE, NORMAL, MAP, OVERLAY, THROUGH, MASK = range(6)
TYPES = ["scratch"] * 5 + ["good"] * 9 + ["crack"] * 7


def square(low, high, height=SIDE, width=SIDE):
    """A map that is high in the middle of the image (a quarter of its height and width) only."""
    values = np.full((height, width), low, np.float32)
    values[height * 3 // 8 : height * 5 // 8, width * 3 // 8 : width * 5 // 8] = high
    return values


def draw(**changed):
    size = changed.get("anomaly_map", square(LOW, HIGH)).shape
    photos = {"image": PHOTO, "rebuilt": REBUILT}
    photos = {name: np.full((*size, 3), colour, np.uint8) for name, colour in photos.items()}
    maps = {"mask": square(0, 1, *size) > 0, "anomaly_map": square(LOW, HIGH)}
    names = {"defect_type": "broken_large", "file_name": "000.png"}
    numbers = {"score": 2.5, "score_range": (LOW, HIGH)}
    return draw_localization(**photos | maps | names | numbers | changed)


def cell(number, map_at=MAP, width=PANEL, height=PANEL):
    panels = [panel_grid.Panel(np.zeros((height, width, 3), np.uint8), "")] * 6
    bar = panel_grid.ColourBar(ColourScale(LOW, HIGH), 2.5, None)
    panels[map_at] = replace(panels[map_at], bar=bar)
    return panel_grid.place_panels(panels, loc.COLUMNS)[number]


def panel(picture, number, **layout):
    place = cell(number, **layout)
    return picture[place.y : place.y + place.height, place.x : place.x + place.width]


def near(picture, colour, allowed=24):
    """Where a picture has a colour (RGB or #RRGGBB), roughly because lines are smoothed."""
    colour = bytes.fromhex(colour[1:]) if isinstance(colour, str) else colour
    return (np.abs(picture.astype(int) - np.array(list(colour))) <= allowed).all(axis=-1)


def distribute(**changed):
    defective = np.array([name != "good" for name in changed.get("defect_types", TYPES)], bool)
    scores = np.random.default_rng(0).normal(2, 0.3, len(defective)) + 2 * defective
    example = {"scores": scores, "labels": defective, "defect_types": TYPES}
    return draw_distribution(**example | {"title": "bottle", "auroc": 0.9876} | changed)


def distribution_parts(picture):
    rows = slice(round(distribution.TOP * DPI) + 2, -round(distribution.BOTTOM * DPI) - 2)
    for left in (0, distribution.PART_WIDTH + distribution.GAP):
        start = round((distribution.LEFT + left) * DPI)
        yield picture[rows, start + 2 : start + round(distribution.PART_WIDTH * DPI) - 2]


def curve(power, points=201):
    return (x := np.linspace(0, 1, points)), x**power, 1 / (1 + power)


def curve_panel(picture, number, count=2):
    left = number * picture.shape[1] // count + round(curves.LEFT * DPI)
    top, side = round(curves.TOP * DPI), round(curves.PANEL_SIDE * DPI)
    legend = picture[top:, left + side + 12 : (number + 1) * picture.shape[1] // count]
    return picture[top : top + side, left : left + side], legend


def legend_colours(legend):
    handles = [[c for c in PALETTE[:6] if near(row, c, 2).any()] for row in legend[:, 5:25]]
    return list(dict.fromkeys(colour for row in handles for colour in row))


def test_localization_has_six_panels_on_white():
    picture = draw()
    assert picture.dtype == np.uint8
    assert picture.shape == pytest.approx((925, 1250, 3), abs=75)
    assert (panel(picture, IMAGE) == PHOTO).all()
    assert (panel(picture, NORMAL) == REBUILT).all()
    mask = panel(picture, MASK)
    assert set(np.unique(mask)) == {loc.NORMAL_GREY, 255}
    assert (mask == 255).mean() == 1 / 16
    assert all((side[:20] == 255).all() for side in (picture, picture[::-1], np.rot90(picture)))


def test_without_mask_or_defect_there_is_no_panel_or_no_contour():
    picture = draw(mask=None)
    assert (panel(picture, MASK) == 255).all()
    with_mask = draw()
    for number in (IMAGE, NORMAL, MAP, THROUGH):
        np.testing.assert_array_equal(panel(picture, number), panel(with_mask, number))
    assert not near(picture, loc.TRUTH_COLOUR).any()
    assert not near(draw(mask=np.zeros((SIDE, SIDE), bool)), loc.TRUTH_COLOUR).any()


def test_equal_distances_have_equal_colours_on_a_common_scale():
    first = panel(draw(anomaly_map=square(1.5, 1e30)), MAP)
    second = panel(draw(anomaly_map=square(0.2, 1.5), score=9.0), MAP)
    assert (first[CORNER] == second[MIDDLE]).all()
    shown = first[CORNER], first[MIDDLE], second[CORNER]  # the latter two are out of the range
    assert (np.array(shown) == colour_table()[[64, 255, 0]]).all()
    lightness = colour_table() @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(lightness) > -0.5).all()


def test_map_is_laid_on_the_image_and_lights_it():
    picture = draw()
    overlay, through = panel(picture, OVERLAY), panel(picture, THROUGH)
    mixed = loc.OVERLAY_STRENGTH * colour_table()[255] + (1 - loc.OVERLAY_STRENGTH) * PHOTO
    assert (overlay[CORNER] == PHOTO).all()
    assert overlay[MIDDLE] == pytest.approx(mixed, abs=1)
    assert through[CORNER] == pytest.approx(PHOTO * loc.NORMAL_BRIGHTNESS, abs=1)
    assert (through[MIDDLE] == PHOTO).all()


def test_colour_bar_shows_scale_score_and_threshold():
    place = cell(MAP)
    bar_x = place.x + place.width + panel_grid.BAR_GAP
    rows = slice(place.y, place.y + PANEL)
    assert cell(2, map_at=1).x > bar_x - place.x + cell(1).x + 40  # room for its numbers
    assert (draw()[rows, bar_x + 5][[0, PANEL // 2, -1]] == colour_table()[[255, 127, 0]]).all()
    marked = draw(threshold=2.5, score=1.5)[rows]
    assert near(marked[:, bar_x + 5], WHITE).nonzero()[0] == pytest.approx(PANEL / 4, abs=2)
    marker = (marked[:, bar_x - 10] < 60).all(axis=-1)
    assert marker.nonzero()[0].mean() == pytest.approx(PANEL * 3 / 4, abs=1)
    assert ColourScale(0.6, 2.2).ticks(4) == [(1.0, "1.0"), (1.5, "1.5"), (2.0, "2.0")]
    assert ColourScale(0, 90_000).ticks(2) == [(0.0, "0"), (50_000.0, "50000")]
    assert ColourScale(0, 100_000).ticks(2) == [(0.0, "0"), (5e4, "5e+04"), (1e5, "1e+05")]
    assert ColourScale(2.0, 2.0).fraction(np.array([1, 2, 3])).tolist() == [0, 0, 1]


@pytest.mark.parametrize("power", range(-4, 5))
@pytest.mark.parametrize(("high", "step"), [(10, 2), (9, 2), (26, 10), (21, 5), (5, 1), (4.9, 1)])
def test_texts_of_ticks_are_their_scores(power, high, step):
    """Steps of 1, 2 or 5 times a power of ten, at most 5 of them."""
    ticks = ColourScale(0, high * 10.0**power).ticks()
    expected = np.arange(0, high + 1e-6, step) * 10.0**power
    np.testing.assert_allclose([score for score, _ in ticks], expected)
    np.testing.assert_allclose([float(text) for _, text in ticks], expected, rtol=1e-9)


@pytest.mark.parametrize(
    ("low", "high", "texts"),
    [
        (0.1229999, 0.1230101, ["0.123", "0.123005", "0.12301"]),
        (0, 0.0008, ["0.0000", "0.0002", "0.0004", "0.0006", "0.0008"]),
        (0.123, 0.12305, ["0.123", "0.12301", "0.12302", "0.12303", "0.12304", "0.12305"]),
        (123_400, 123_402, ["123400", "123401", "123402"]),
        (-1.2e6, -1.19e6, ["-1.2e+06", "-1.195e+06", "-1.19e+06"]),
        *((0, 2.6, ["0", "1", "2"]), (0, 26, ["0", "10", "20"]), (0, 260, ["0", "100", "200"])),
        *((0, 0.26, ["0.0", "0.1", "0.2"]), (0, 40, ["0", "20", "40"]), (0, 4, ["0", "2", "4"])),
    ],
)
def test_ticks_of_a_narrow_scale_have_different_texts(low, high, texts):
    assert [text for _, text in ColourScale(low, high).ticks(len(texts))] == texts


def test_truth_is_outlined_on_the_overlay_only_and_the_threshold_with_dashes():
    picture = draw(threshold=2.0)  # the truth lies over the threshold's contour
    found = near(panel(picture, OVERLAY), loc.TRUTH_COLOUR)
    first, last = PANEL * 3 // 8, PANEL * 5 // 8 - 1
    edges = np.stack([found[first], found[last], found[:, first], found[:, last]])
    assert edges[:, first + 3 : last - 3].all()
    assert not found[: first - 3].any()
    assert not found[first + 5 : last - 4, first + 5 : last - 4].any()
    others = np.stack([panel(picture, number) for number in range(6) if number != OVERLAY])
    assert not near(others, loc.TRUTH_COLOUR).any()
    halves = np.repeat(np.float32([[LOW, HIGH]]), SIDE // 2, axis=1).repeat(SIDE, axis=0)
    found = near(panel(draw(anomaly_map=halves, threshold=2, mask=None), OVERLAY), WHITE)
    edge = found[20:-20, PANEL // 2 - 2 : PANEL // 2 + 3].any(axis=1)
    assert 0.4 < edge.mean() < 0.9
    assert not found[:, : PANEL // 2 - 4].any()


@pytest.mark.parametrize("shape", [(64, 64), (SIDE, SIDE), (1000, 1000), (100, 200), (200, 100)])
def test_all_shapes_keep_their_proportions_and_defects_of_one_pixel(shape):
    mask = np.zeros(shape, bool)
    mask[shape[0] // 2 + 1, shape[1] // 2 + 1] = True  # which plain sampling misses in the largest
    width, height = loc.panel_size(*shape)
    assert (width / height, width * height) == pytest.approx((shape[1] / shape[0], PANEL**2), 0.01)
    picture = draw(anomaly_map=square(LOW, LOW, *shape), mask=mask)
    panels = [panel(picture, number, width=width, height=height) for number in range(6)]
    assert (panels[MASK] == 255).any()
    assert near(panels[OVERLAY], loc.TRUTH_COLOUR).any()
    assert (panels[NORMAL] == REBUILT).all()


@pytest.mark.parametrize("shape", [(40, 90), (90, 40)])  # either side may be compared
def test_masks_are_enlarged_by_whole_pixels_and_lose_none_as_they_shrink(shape):
    height, width = shape
    mask = np.random.default_rng(0).random(shape) < 0.3
    blocks = mask.reshape(height // 2, 2, width // 2, 2)
    shrunk, enlarged = ((round(width * by), round(height * by)) for by in (0.5, 2))
    np.testing.assert_array_equal(loc._resize_mask(mask, shrunk), blocks.any((1, 3)))
    np.testing.assert_array_equal(loc._resize_mask(mask, enlarged), mask.repeat(2, 0).repeat(2, 1))


@pytest.mark.parametrize("shape", [(10, 30), (30, 10)])
def test_images_shrink_by_area_and_are_enlarged_smoothly(shape):
    height, width = shape
    ramp = np.tile((8 * np.arange(width, dtype=np.uint8))[:, None], (height, 1, 3))
    shrunk, enlarged = (
        loc.resize_image(ramp, (round(width * by), round(height * by))).astype(int)
        for by in (0.5, 2)
    )
    assert (shrunk == 16 * np.arange(width // 2)[:, None] + 4).all()
    inner = slice(4, 2 * width - 4)  # there are no neighbours beyond the border
    assert (enlarged[:, inner] == (4 * np.arange(2 * width) - 2)[inner, None]).all()


def test_long_names_differ_but_stay_in_their_column():
    first, second = (draw(file_name="part_" * 900 + end, defect_type="W" * 500) for end in "12")
    place = cell(IMAGE)
    ys, xs = (first != second).any(axis=-1).nonzero()
    assert place.y - panel_grid.TITLE_HEIGHT < ys.min() <= ys.max() < place.y
    assert (first[: place.y - 2, place.x + place.title_width + 3 : cell(NORMAL).x] == 255).all()
    assert xs.min() > place.x + place.width / 2


@given(st.text(max_size=40), st.integers(1, 50))
def test_elided_text_keeps_both_ends_and_is_as_long_as_fits(full, limit):
    short = text.elide(full, limit, len)
    assert len(short) == min(len(full), limit)
    ends = full[: (limit - 1) // 2] + "…" + full[len(full) - limit // 2 :]
    assert short == (full if len(full) <= limit else ends)
    assert text.TextStyle(16).width(text.printable(full)) >= 0  # one line, whatever it was


def test_only_letters_that_both_weights_have_are_printed():
    weights = [set(text.FT2Font(text._font_path(bold)).get_charmap()) for bold in (False, True)]
    in_one = "".join(map(chr, sorted(weights[0] ^ weights[1])))
    assert set(text.printable(in_one)) == {text.REPLACEMENT}
    assert text.printable("Größe 5 µm, Łódź, 温") == "Größe 5 µm, Łódź, \ufffd"


@pytest.mark.parametrize(
    "places",
    [
        itertools.product((-15, 0, 30, 70), (-15, 5, 30, 70)),
        itertools.product(range(-50, 90), [30]),  # entirely outside, by a pixel or more
        itertools.product([30], range(-30, 85)),
    ],
)
def test_text_that_does_not_fit_is_cut_at_the_border(places):
    style = text.TextStyle(16)
    for x, y in places:
        around, inside = np.full((160, 200, 3), 255, np.uint8), np.full((60, 80, 3), 255, np.uint8)
        text.draw_labels(around, [text.Label("Text", x + 50, y + 50, style)])
        text.draw_labels(inside, [text.Label("Text", x, y, style)])
        np.testing.assert_array_equal(inside, around[50:110, 50:130])


CALLS = draw, distribute, lambda: draw_roc_curves({"a": curve(0.1)}, {}, title="")
ODD_MAPS = [  # what is drawn; the number in the colour table outside and inside of the square
    ({"anomaly_map": square(0, 0), "threshold": 0.0, "score_range": (0.0, 0.0)}, 0, 0),
    ({"score_range": (0.0, 1e-50)}, 255, 255),
    ({"anomaly_map": square(0, 1e30), "score_range": (0.0, 1e-30)}, 0, 255),
    ({"file_name": "two\nlines\udcff瓶.png", "defect_type": ""}, 0, 255),
]


@pytest.mark.parametrize(("changed", "outside", "inside"), ODD_MAPS)
def test_odd_maps_have_exact_colours(changed, outside, inside):
    picture = draw(**changed)
    assert (panel(picture, IMAGE) == PHOTO).all()
    assert (panel(picture, NORMAL) == REBUILT).all()
    shown = panel(picture, MAP)
    assert (shown[CORNER] == colour_table()[outside]).all()
    assert (shown[MIDDLE] == colour_table()[inside]).all()
    assert (panel(picture, MASK) == 255).mean() == 1 / 16


def test_the_panel_of_a_line_has_a_pixel_across():
    assert loc.panel_size(1, 9000) == (3 * PANEL, 1)
    assert loc.panel_size(9000, 1) == (1, 3 * PANEL)


def test_an_image_of_one_row_is_drawn():
    picture = draw(anomaly_map=square(LOW, HIGH, 1, 900), threshold=2.0)  # its square is empty
    width, height = loc.panel_size(1, 900)
    for number, colour in ((IMAGE, PHOTO), (NORMAL, REBUILT), (MAP, colour_table()[0])):
        assert (panel(picture, number, width=width, height=height) == colour).all()


@pytest.mark.parametrize(
    ("types", "colours"),
    [
        (["good"], {NORMAL_COLOUR}),
        (["good", "crack"], {NORMAL_COLOUR, DEFECT_COLOUR}),
        (["$\\x 瓶$" * 20, "_"], {DEFECT_COLOUR}),
        ([], set()),
    ],
)
def test_equal_huge_scores_of_odd_types_are_drawn(types, colours):
    picture = distribute(scores=[1e20] * len(types), defect_types=types)
    for part in distribution_parts(picture):
        assert {c for c in (NORMAL_COLOUR, DEFECT_COLOUR) if near(part, c).any()} == colours
        middle = np.array_split(part, 5, axis=1)[2]
        assert (middle < 150).all(axis=-1).any() == (not types)  # "nothing to measure"


def test_a_title_that_looks_like_a_formula_changes_nothing_below_it():
    odd, plain = (
        distribution_parts(distribute(title=title, auroc=None)) for title in ("$\\x$" * 99, "")
    )
    for found, expected in zip(odd, plain, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_long_title_ends_at_the_margin():
    picture = draw_roc_curves({}, {}, title="W" * 500)
    inked = (picture[: round(curves.TOP * DPI) // 2] < 128).any(axis=(0, 2)).nonzero()[0]
    left = round(figures.MARGIN * DPI)
    assert left <= inked.min() <= left + 5
    assert picture.shape[1] - 30 - left <= inked.max() <= picture.shape[1] - left


def test_a_curve_of_one_point_has_its_place_in_the_legend_only():
    picture = draw_roc_curves({"a": ([0.5], [0.5], None)}, {}, title="$\\x$")
    shown, legend = curve_panel(picture, 0)
    assert not near(shown, PALETTE[0]).any()
    assert legend_colours(legend) == [PALETTE[0]]


def test_a_falling_score_range_is_refused():
    with pytest.raises(ValueError, match="expected a rising score range"):
        draw(score_range=(HIGH, LOW))


def test_distribution_has_good_images_in_the_first_row_of_both_parts():
    for part in distribution_parts(distribute()):
        (good_y, good_x), (y, x) = (near(part, c).nonzero() for c in (NORMAL_COLOUR, DEFECT_COLOUR))
        assert good_y.max() < y.min()
        assert np.median(good_x) < np.median(x)
        assert not (part < 60).all(axis=-1).any()
    for part in distribution_parts(distribute(threshold=50.0)):
        assert np.ptp((part < 60).all(axis=-1).nonzero()[1]) <= 3  # an upright line
    groups = distribution._group(np.arange(21)[::-1], np.array(TYPES) != "good", TYPES)
    assert [(g.name, g.scores[0]) for g in groups] == [("good", 7), ("crack", 0), ("scratch", 16)]


def test_curves_have_insets_common_colours_and_legends_by_auroc():
    first = {"a": curve(0.5), "b": curve(0.01), "c": curve(0.3)}
    second = {"a": (*curve(1, points=0)[:2], math.nan), "b": curve(1)}
    picture = draw_roc_curves(first, second, title="Test")
    a, b, c = PALETTE[:3]
    assert legend_colours(curve_panel(picture, 0)[1]) == [b, c, a]
    assert legend_colours(curve_panel(picture, 1)[1]) == [b, a]
    assert near(curve_panel(picture, 0)[0], b)[240:, 240:].any()  # no curve but an inset's
    title = "Pixel ROC, mean AUROC of 1 of 2 categories 0.5000"
    assert curves._panel_title(curves.PIXEL_ROC, second) == title
    title = "Image ROC, mean AUROC of 3 categories 0.8087"
    assert curves._panel_title(curves.IMAGE_ROC, first) == title
    assert curves._panel_title(curves.IMAGE_PR, {"b": curve(1)}) == (
        "Image precision-recall, AP 0.5000"
    )
    empty = curve_panel(draw_roc_curves(first, {}, title="Test"), 1)[0]
    assert (empty[200:270, 120:350] < 150).all(axis=-1).sum() > 200  # "nothing to measure"


@pytest.mark.parametrize("names", ["_", "abcdefghijklmno", range(60), ["W" * 99], ["$瓶$" * 50]])
def test_legend_fits_beside_its_panel(names):
    many = {str(name): curve(0.01 * number) for number, name in enumerate(names)}
    legend = curve_panel(draw_roc_curves(many, {}, title="Test"), 0)[1]
    assert len(legend_colours(legend)) == min(len(many), 6)
    if len(many) <= 15:
        assert (legend[round(curves.PANEL_SIDE * DPI) :] == 255).all()
    assert (legend[:, -8:] == 255).all()
    assert len({str(curves._line_style(number)) for number in range(35)}) == 35


def test_the_text_of_a_long_legend_is_no_smaller():
    many = {f"{number:02d}": curve(0.01 * number) for number in range(60)}
    legend = curve_panel(draw_roc_curves(many, {}, title="Test"), 0)[1]
    lines = np.flatnonzero((legend[:, 40:-8] < 128).any(axis=(1, 2)))
    assert len(np.flatnonzero(np.diff(lines) > 1)) >= 60  # one gap below the heading and each line
    assert lines[-1] - lines[0] > 60 * 1.3 * figures.TICK_SIZE * DPI / 72
    assert lines[-1] < len(legend) - 10


def test_other_families_of_long_curves_fit_beside_the_roc():
    x = np.linspace(0, 1, 300_000)
    y = np.where(x < 0.25, 0.5, 1.0)
    for limit in (1.0, 0.3, 0.01):
        family = curves.CurveFamily("PRO", "AUPRO", "x", "y", x_limits=(0.0, limit))
        thin_x, thin_y = curves._thin(x * limit, y, family)
        assert curves.GRID_STEPS <= len(thin_x) < 3 * curves.GRID_STEPS
        assert np.abs(np.interp(x * limit, thin_x, thin_y) - y).max() < 1 / curves.GRID_STEPS
        assert (thin_x[0], thin_x[-1]) == (0, limit)
    family = curves.CurveFamily("PRO", "AUPRO", "x", "y", x_limits=(0.0, 0.3))
    panels = [(family, {"a": curve(0.1)})] * 3
    shown, legend = curve_panel(curves.draw_curve_families(panels, title="Test"), 2, count=3)
    assert near(shown, PALETTE[0])[:, -60:].any()
    assert not near(legend[:, :2], PALETTE[0]).any()  # no further than the limit of x


@pytest.mark.parametrize("call", CALLS)
def test_neither_threads_nor_the_user_s_style_change_a_byte(call):
    plain = call()
    with ThreadPoolExecutor(4) as pool:
        pictures = [future.result() for future in [pool.submit(call) for _ in range(4)]]
    with matplotlib.style.context(["dark_background", {"font.size": 30, "lines.linewidth": 7}]):
        pictures.append(call())
    assert all(picture.tobytes() == plain.tobytes() for picture in pictures)


def test_import_brings_in_neither_pyplot_nor_the_rest_of_the_project():
    heavy = "{'torch', 'matplotlib.pyplot', 'patchcore', 'datasets'}"
    code = f"import sys, utils.plots; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_ignored_pixels_are_hatched_where_the_map_is_shown(monkeypatch):
    panels = []
    compose = loc.compose_panels
    monkeypatch.setattr(
        loc,
        "compose_panels",
        lambda given, columns: panels.extend(given) or compose(given, columns),
    )
    ignored = np.zeros((40, 40), bool)
    ignored[:20, :10] = True
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
    draw_localization(
        image,
        mask=np.zeros((40, 40), bool),
        anomaly_map=rng.random((40, 40)),
        rebuilt=image[::-1],
        defect_type="good",
        file_name="a.png",
        score=1.0,
        score_range=(0, 1),
        ignored=ignored,
    )
    hatched = [
        set(np.unique(panel.image[:170, :80])) == {hatching.GREY, hatching.STRIPE_GREY}
        for panel in panels
    ]
    assert hatched == [False, False, True, True, True, True]
    assert not any((panel.image[190:, 100:] == hatching.STRIPE_GREY).all() for panel in panels)
    assert panels[4].subtitle == "brightness: map, hatched: ignored"


@pytest.mark.parametrize(
    ("threshold", "ignored", "through", "key"),
    [
        (2.0, None, "brightness: map", "map ≥ 2"),
        (HIGH, None, "brightness: map", "map ≥ 3"),
        (None, None, "brightness: map", None),
        # The brightest pixel of a good image is no defect.
        (3.5, None, "brightness: map, all below threshold", "map ≥ 3.5: nowhere"),
        (2.0, square(0, 1) > 0, "all below threshold, hatched: ignored", "map ≥ 2: nowhere"),
    ],
)
def test_the_figure_says_if_the_map_is_below_its_threshold(
    monkeypatch, threshold, ignored, through, key
):
    panels = []
    compose = loc.compose_panels
    monkeypatch.setattr(
        loc,
        "compose_panels",
        lambda given, columns: panels.extend(given) or compose(given, columns),
    )
    draw(threshold=threshold, ignored=ignored, mask=None)
    assert panels[THROUGH].subtitle == through
    assert [k.text for k in panels[OVERLAY].keys] == ([] if key is None else [key])
    assert panel_grid.SUBTITLE.width(through) < PANEL


def test_a_thumbnail_has_two_views_without_the_rebuilt_image():
    image = np.full((30, 60, 3), 100, np.uint8)
    ignored = np.zeros((30, 60), bool)
    ignored[:15] = True
    found = draw_thumbnail(image, np.zeros((30, 60)), None, (0, 1), ignored)
    height, width = found.shape[:2]
    assert width == pytest.approx(4 * height, abs=4)
    assert (found[:, : width // 2] == 100).all()
    assert (found[: height // 2, width // 2 :] != 100).all()
    assert draw_thumbnail(image, np.zeros((30, 60)), image, (0, 1)).shape[1] == width // 2 * 3


@pytest.mark.parametrize(
    ("num_pixels", "text"),
    [
        (0, "no defect"),
        (9, "less than 0.1 % of the image"),
        (10, "0.1 % of the image"),
        (12, "0.1 % of the image"),
        (1000, "10.0 % of the image"),
    ],
)
def test_the_area_of_the_truth_is_described(num_pixels, text):
    mask = np.arange(10_000).reshape(100, 100) < num_pixels
    assert loc._area(mask) == text
