"""Masks from shapes: against the test of each pixel's centre, and COCO's run lengths."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.base import DatasetError, Ellipse, MaskShapes, Polygon, RunLengths
from datasets.decoding import ImageFile
from datasets.depth import Decoding
from datasets.notes import Notes
from datasets.polygons import OUTSIDE_SHAPES, draw_mask, read_shapes
from tests.support import write_image

SOURCE = Path("shapes.json")


def draw(*shapes, size=(12, 16)):
    return draw_mask(MaskShapes(SOURCE, shapes), size)


def is_inside(x, y, points):
    """Count the crossings of the line with a ray to the left."""
    crossings = 0
    for (x0, y0), (x1, y1) in zip(points, [*points[1:], points[0]], strict=True):
        if (y0 <= y) != (y1 <= y):
            crossings += x0 + (y - y0) / (y1 - y0) * (x1 - x0) <= x
    return crossings % 2 == 1


POINT = st.tuples(st.floats(-4, 20), st.floats(-4, 16))


@given(st.lists(POINT, min_size=3, max_size=8))
def test_a_polygon_is_the_pixels_with_their_centres_inside(points):
    slow = np.array([[is_inside(x + 0.5, y + 0.5, points) for x in range(16)] for y in range(12)])
    fast = draw(Polygon(tuple(points)))
    if slow.any():
        np.testing.assert_array_equal(fast, slow)
        return
    shares = np.linspace(0, 1, 20)[:, None, None]
    line = np.array(points) * (1 - shares) + np.roll(points, -1, axis=0) * shares
    if ((line > 0.01) & (line < (15.99, 11.99))).all(axis=2).any():
        assert fast.any()
    assert fast.sum() <= 2 * len(points)
    if (np.max(points, 0) < 0).any() or (np.min(points, 0) > (16, 12)).any():
        assert not fast.any()


def test_a_rectangle():
    expected = np.zeros((12, 16), bool)
    expected[2:5, 3:7] = True
    box = Polygon(((3, 2), (7, 2), (7, 5), (3, 5)))
    np.testing.assert_array_equal(draw(box), expected)
    other = Polygon(((10, 0), (12, 0), (12, 1), (10, 1)))
    expected[0, 10:12] = True
    np.testing.assert_array_equal(draw(box, other), expected)


def test_a_shape_without_a_centre_marks_its_corners():
    thin = draw(Polygon(((2.0, 3.1), (9.0, 3.1), (9.0, 3.2), (2.0, 3.2))))
    assert thin[3, 2]
    assert thin[3, 9]
    assert thin.sum() == 2
    assert np.argwhere(draw(Ellipse((15.99, 3.0), (0.1, 0.1)))).tolist() == [[3, 15]]
    # Of a line beyond the image, the points at its border count, also on the border itself.
    beyond = draw(Polygon(((-5.0, 3.1), (20.0, 3.1), (20.0, 3.2), (-5.0, 3.2))))
    assert np.argwhere(beyond).tolist() == [[3, 0], [3, 15]]
    assert np.argwhere(draw(Polygon(((16, 12), (16, 12), (16, 12))))).tolist() == [[11, 15]]


@pytest.mark.parametrize(
    "shape",
    [
        # At a side, from outside; across a corner, with a box that overlaps the image.
        Polygon(((-5, 2), (0, 2), (0, 6), (-5, 6))),
        Polygon(((16, 2), (20, 2), (20, 6), (16, 6))),
        Polygon(((-10, 5), (5, -10), (-10, -10))),
        Polygon(((10, 30), (40, 3), (40, 30))),
        Ellipse((-3, 5), (3, 3)),
        Ellipse((-3, -3), (3.5, 3.5)),
        Ellipse((18, 14), (2.1, 2.1)),
        RunLengths((12, 16), (12 * 16,)),
    ],
)
def test_a_shape_next_to_the_image_marks_nothing_and_is_reported(tmp_path, shape):
    path = write_image(tmp_path / "a.png", np.zeros((12, 16, 3), np.uint8))
    image, notes = ImageFile(path, "an image", Decoding()), Notes()
    assert not read_shapes(MaskShapes(SOURCE, (shape,)), image, (12, 16), notes).any()
    assert [note.reason for note in notes.all()] == [OUTSIDE_SHAPES]


@pytest.mark.parametrize(
    ("shape", "pixels"),
    [
        # Corners outside, and less than half a pixel of the line inside.
        (Polygon(((-1, 1.2), (1.2, -1), (-1, -1))), [[0, 0]]),
        (Polygon(((5, -9), (5.2, 0.3), (5.4, -9))), [[0, 5]]),
        (Ellipse((-3, 5.5), (3.2, 3.2)), [[5, 0]]),
        (Polygon(((1.2, -1), (-1, -1), (-1, 1.2))), [[0, 0]]),  # of the line that closes it
        (Polygon(((16, 3), (16, 5), (16, 3))), [[3, 15], [5, 15]]),
        (Polygon(((0, 3), (0, 5), (0, 3))), [[3, 0], [5, 0]]),
        (Polygon(((3, 12), (5, 12), (3, 12))), [[11, 3], [11, 5]]),
        (Polygon(((3, 0), (5, 0), (3, 0))), [[0, 3], [0, 5]]),
        # More than 32 bits away.
        (Polygon(((-1e12, 3.1), (1e12, 3.1), (1e12, 3.2), (-1e12, 3.2))), [[3, 0], [3, 15]]),
        (Polygon(((3.1, -1e12), (3.1, 1e12), (3.2, 1e12), (3.2, -1e12))), [[0, 3], [11, 3]]),
    ],
)
def test_a_shape_that_reaches_into_the_image_marks_where(shape, pixels):
    assert np.argwhere(draw(shape)).tolist() == pixels


@pytest.mark.parametrize(("x", "y"), [(20, 3), (-9, 3), (5, 30), (5, -9)])
def test_a_shape_outside_the_image_marks_nothing_and_is_reported(tmp_path, x, y):
    box = Polygon(((x, y), (x + 2, y), (x + 2, y + 2), (x, y + 2)))
    inside = Polygon(((3, 2), (7, 2), (7, 5), (3, 5)))
    for outside in (box, Ellipse((x + 1, y + 1), (1, 1))):
        assert not draw(outside).any()
        np.testing.assert_array_equal(draw(inside, outside), draw(inside))
    path = write_image(tmp_path / "a.png", np.zeros((12, 16, 3), np.uint8))
    image = ImageFile(path, "an image", Decoding())
    notes = Notes()
    read_shapes(MaskShapes(SOURCE, (inside, box)), image, (12, 16), notes)
    (note,) = notes.all()
    assert str(note).startswith("1 file: shapes without a pixel of their image, left out; ")
    read_shapes(MaskShapes(SOURCE, (inside,)), image, (12, 16), notes := Notes())
    assert notes.all() == []


@given(POINT, st.tuples(st.floats(2, 6), st.floats(2, 6)))
def test_an_ellipse_is_the_pixels_with_their_centres_inside(centre, radii):
    """In coordinates in which it is a circle of radius 1."""
    (x0, y0), (wide, high) = centre, radii
    distances = np.array(
        [
            [math.hypot((x + 0.5 - x0) / wide, (y + 0.5 - y0) / high) for x in range(16)]
            for y in range(12)
        ]
    )
    found = draw(Ellipse(centre, radii))
    assert found[distances < 1 - 1e-9].all()
    if (distances <= 1).any():
        assert not found[distances > 1 + 1e-9].any()


def compress(counts):
    """Write run lengths as COCO does: 5 bits a character, differences from the fourth on."""
    text = ""
    for index, count in enumerate(counts):
        value = count - counts[index - 2] if index > 2 else count
        while True:
            bits, value = value & 31, value >> 5
            more = value != (-1 if bits & 16 else 0)
            text += chr(48 + bits + 32 * more)
            if not more:
                break
    return text


@given(st.integers(0, 2**31), st.sampled_from([(5, 7), (40, 30)]))
def test_run_lengths_go_down_the_columns(seed, size):
    mask = np.random.default_rng(seed).random(size) < 0.3
    flat = [False, *mask.T.reshape(-1)]
    changes = np.flatnonzero(np.diff(flat)).tolist()
    counts = tuple(np.diff([0, *changes, mask.size]).tolist())
    for given_counts in (counts, compress(counts)):
        found = draw(RunLengths(size, given_counts), size=size)
        np.testing.assert_array_equal(found, mask)


def test_compressed_run_lengths_of_the_format_description():
    # A 3x3 image with its centre: 4 outside, 1 inside, 4 outside.
    mask = draw(RunLengths((3, 3), "414"), size=(3, 3))
    assert np.argwhere(mask).tolist() == [[1, 1]]


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        (RunLengths((2, 4), (3, 4)), r"run lengths of 8 pixels, found 7 in shapes.json"),
        (RunLengths((2, 4), (9, -1)), r"run lengths of 8 pixels, found 8"),
    ],
)
def test_run_lengths_that_do_not_fit(runs, message):
    with pytest.raises(DatasetError, match=message):
        draw(runs, size=(2, 4))


@pytest.mark.parametrize(
    "shape",
    [
        Polygon(((1, 1), (math.nan, 5), (5, 1))),
        Polygon(((1, 1), (math.inf, 5), (5, 1))),
        Polygon(((1, 1), (10**400, 5), (5, 1))),
        Polygon(((1, 1), ("x", 5), (5, 1))),
        Polygon(()),
        Ellipse((1, 1), (math.nan, 2)),
        Ellipse((None, 1), (2, 2)),
        RunLengths((12, 16), ("x", 1)),
        RunLengths((12, 16), (0.5, 191.5)),
    ],
)
def test_anything_but_finite_numbers_is_an_error(shape):
    with pytest.raises(DatasetError, match=r"in shapes\.json"):
        draw(shape)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("o" * 11 + "O", "run lengths of 192 pixels, found -1"),
        ("o" * 12 + "O", "more than 60 bits"),
    ],
)
def test_a_compressed_number_has_an_end(text, message):
    """Without one, the time grows with the square of its length."""
    with pytest.raises(DatasetError, match=message):
        draw(RunLengths((12, 16), text))
