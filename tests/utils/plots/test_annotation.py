"""Annotated pictures are checked at pixels whose content is known."""

import math
import re

import numpy as np
import pytest

from utils.plots import annotation, hatching
from utils.plots.annotation import ANOMALY_BAR, CASING, NORMAL_BAR, OVERLAY_STRENGTH, annotate
from utils.plots.colour_scale import ColourScale, colour_table

HEIGHT, WIDTH = 240, 320
BAR = annotation.MIN_BAR_HEIGHT
GREY = 100
SQUARE = np.s_[100:180, 120:220]


def hot_square(value=4.0, height=HEIGHT, width=WIDTH):
    anomaly_map = np.zeros((height, width), np.float32)
    anomaly_map[SQUARE] = value
    return anomaly_map


def draw(anomaly_map=None, size=(HEIGHT, WIDTH), **changed):
    arguments = {
        "image": np.full((*size, 3), GREY, np.uint8),
        "anomaly_map": np.zeros(size, np.float32) if anomaly_map is None else anomaly_map,
        "scale": ColourScale(0, 4),
        "pixel_threshold": 2.0,
        "text": "",
        "is_anomaly": True,
    } | changed
    return annotate(arguments.pop("image"), **arguments)


def holds(picture, colour):
    return (picture == np.array(colour, np.uint8)).all(axis=-1)


def outlined(picture):
    """Tell where the outline is: smoothed, it is not quite white."""
    return (picture > 200).all(axis=-1)


def test_where_nothing_is_found_the_image_stays_as_it_is():
    picture = draw()
    assert picture.shape == (HEIGHT, WIDTH, 3)
    assert picture.dtype == np.uint8
    assert (picture[BAR:] == GREY).all()


@pytest.mark.parametrize("fraction", [0.25, 1.0])
def test_colours_cover_by_the_square_of_the_maps_height(fraction):
    picture = draw(hot_square(4 * fraction), pixel_threshold=9.0)
    strength = OVERLAY_STRENGTH * fraction**2
    colour = colour_table()[round(255 * fraction)]
    expected = strength * colour + (1 - strength) * GREY
    np.testing.assert_allclose(picture[140, 170], expected, atol=1)
    assert (picture[200:, :] == GREY).all()


def test_what_is_anomalous_is_outlined_along_its_border():
    picture = draw(hot_square(2.0))
    outline = outlined(picture)
    assert outline[100, 140:200].all()
    assert outline[179, 140:200].all()
    assert outline[110:170, 120].all()
    assert outline[110:170, 219].all()
    assert holds(picture, CASING)[98, 140:200].all()  # so that it shows on white as well
    assert not outline[103:177, 123:217].any()
    assert not outlined(draw(hot_square(1.99))).any()


def test_the_outline_grows_with_the_picture():
    small, large = (
        outlined(draw(hot_square(height=side, width=side), size=(side, side)))[80:, 170].sum()
        for side in (300, 1200)
    )
    assert large >= 3 * small


@pytest.mark.parametrize(
    ("size", "height"),
    [((352, 600), 22), ((360, 600), 22), ((800, 480), 30), ((480, 800), 30), ((9, 600), 9)],
)
def test_the_bar_is_a_sixteenth_of_the_shorter_side_or_22_pixels(size, height):
    assert holds(draw(size=size), ANOMALY_BAR).sum(0).tolist() == [height] * size[1]


@pytest.mark.parametrize(("is_anomaly", "colour"), [(True, ANOMALY_BAR), (False, NORMAL_BAR)])
def test_the_bar_tells_the_verdict_by_colour_and_words(is_anomaly, colour):
    plain = draw(is_anomaly=is_anomaly)
    assert holds(plain[:BAR], colour).all()
    assert not holds(plain[BAR:], colour).any()
    written = draw(is_anomaly=is_anomaly, text="ANOMALY 3.2")
    changed = np.argwhere((written != plain).any(axis=-1))
    assert holds(written[:BAR], annotation.WHITE).any()
    assert changed[:, 0].max() < BAR
    assert changed[:, 1].min() >= BAR // 3 - 1


def test_what_was_given_is_not_changed():
    image, anomaly_map = np.full((HEIGHT, WIDTH, 3), GREY, np.uint8), hot_square()
    draw(anomaly_map, image=image, text="ANOMALY")
    assert (image == GREY).all()
    np.testing.assert_array_equal(anomaly_map, hot_square())


@pytest.mark.parametrize("size", [(1, 1), (9, 300), (300, 9), (64, 64)])
def test_any_size_will_do(size):
    hot = np.full(size, 4, np.float32)
    assert draw(hot, size=size, text="ANOMALY  3.21").shape == (*size, 3)


def test_a_flat_scale_marks_what_is_above_it():
    picture = draw(hot_square(), scale=ColourScale(2, 2), pixel_threshold=9.0)
    assert (picture[140, 170] != GREY).any()
    assert (picture[200:] == GREY).all()


def test_ignored_pixels_are_hatched_and_not_outlined():
    ignored = np.zeros((HEIGHT, WIDTH), bool)
    ignored[90:190, 110:230] = True
    picture = draw(hot_square(), ignored=ignored)
    greys = {tuple(colour) for colour in picture[ignored].tolist()}
    assert greys == {(hatching.GREY,) * 3, (hatching.STRIPE_GREY,) * 3}
    assert (picture[BAR:][~ignored[BAR:]] == GREY).all()


@pytest.mark.parametrize(
    ("low", "high", "kind"),
    [(0, math.inf, "finite"), (math.nan, 1, "finite"), (2, 1, "rising")],
)
def test_a_scale_has_two_ends_that_rise(low, high, kind):
    expected = re.escape(f"expected a {kind} score range, found ({low}, {high})")
    with pytest.raises(ValueError, match=expected):
        ColourScale(low, high)
