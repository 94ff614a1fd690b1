"""Regions against a slow twin that walks from pixel to pixel; resized maps against known slopes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from patchcore.preprocess import Preprocess
from patchcore.regions import Region, find_regions, resize_map_to_image, resize_mask_to_image

MAPS = arrays.arrays(
    np.float32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 5)
)
ALL = 1000


def whole(anomaly_map, scale=1):
    height, width = anomaly_map.shape
    return 0, 0, width * scale, height * scale


def regions_by_walking(anomaly_map, threshold):
    """Return (box, area, score) of each region, largest first."""
    left = {tuple(place) for place in np.argwhere(anomaly_map >= threshold)}
    found = []
    while left:
        todo, region = [min(left)], []
        left.remove(todo[0])
        while todo:
            y, x = todo.pop()
            region.append((y, x))
            for near in [(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]:
                if near in left:
                    left.remove(near)
                    todo.append(near)
        ys, xs = np.array(region).T
        box = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
        found.append((box, len(region), anomaly_map[ys, xs].max()))
    return sorted(found, key=lambda region: -region[1])


class TestFindRegions:
    def test_of_equal_areas_the_upper_ones_come_first(self):
        anomaly_map = np.zeros((24, 32), np.float32)
        anomaly_map[::4, ::4] = anomaly_map[::4, 1::8] = 1.0  # two pixels and one in turn
        found = find_regions(anomaly_map, 1.0, crop_box=whole(anomaly_map), max_regions=ALL)
        corners = [region.box[:2] for region in found]
        assert corners == [
            (x, y) for first in (0, 4) for y in range(0, 24, 4) for x in range(first, 32, 8)
        ]

    def test_by_hand(self):
        anomaly_map = np.zeros((8, 10), np.float32)
        anomaly_map[0, 0] = 2.0  # exactly at the threshold, at a corner
        anomaly_map[5:8, 7:10] = 3.0
        anomaly_map[6, 9] = 5.5
        anomaly_map[4, 6] = 2.5  # touches by a corner
        anomaly_map[2, 2] = 1.99
        regions = find_regions(anomaly_map, 2.0, crop_box=(10, 20, 60, 52))  # 5 wide, 4 high
        assert regions == [
            Region((10 + 6 * 5, 20 + 4 * 4, 60, 52), 10 * 20, 5.5),
            Region((10, 20, 15, 24), 20, 2.0),
        ]
        for region in regions:
            assert {type(edge) for edge in region.box} == {type(region.area)} == {int}
            assert type(region.score) is float

    def test_a_region_within_anothers_box_keeps_its_score_to_itself(self):
        anomaly_map = np.array([[2, 2, 2, 2], [2, 0, 0, 0], [2, 0, 9, 0], [2, 0, 0, 0]], np.float32)
        around, within = find_regions(anomaly_map, 2, crop_box=(0, 0, 4, 4))
        assert around == Region((0, 0, 4, 4), 7, 2.0)
        assert within == Region((2, 2, 3, 3), 1, 9.0)

    @settings(max_examples=150, deadline=None)
    @given(MAPS, st.integers(1, 4))
    def test_equals_the_slow_twin(self, anomaly_map, scale):
        found = find_regions(anomaly_map, 3, crop_box=whole(anomaly_map, scale), max_regions=ALL)
        expected = [
            Region(tuple(int(edge) * scale for edge in box), area * scale**2, float(score))
            for box, area, score in regions_by_walking(anomaly_map, 3)
        ]
        assert [region.area for region in found] == [region.area for region in expected]
        assert set(found) == set(expected)

    @given(MAPS, st.integers(0, 6), st.integers(1, 7), st.integers(1, 7))
    def test_areas_sum_up_to_what_is_marked(self, anomaly_map, threshold, scale_x, scale_y):
        box = 0, 0, anomaly_map.shape[1] * scale_x, anomaly_map.shape[0] * scale_y
        found = find_regions(anomaly_map, threshold, crop_box=box, max_regions=ALL)
        marked = int((anomaly_map >= threshold).sum())
        assert sum(region.area for region in found) == marked * scale_x * scale_y

    @given(MAPS, st.integers(0, 12))
    def test_the_largest_come_first_and_no_more_than_asked_for(self, anomaly_map, max_regions):
        box = whole(anomaly_map)
        found = find_regions(anomaly_map, 3, crop_box=box, max_regions=max_regions)
        assert found == find_regions(anomaly_map, 3, crop_box=box, max_regions=ALL)[:max_regions]
        assert [r.area for r in found] == sorted((r.area for r in found), reverse=True)

    @settings(max_examples=100, deadline=None)
    @given(
        MAPS,
        st.tuples(st.integers(1, 40), st.integers(1, 40)),
        st.tuples(st.integers(9, 20), st.integers(9, 20)),
    )
    def test_boxes_lie_in_the_image_and_enclose_all_that_is_marked(self, anomaly_map, size, resize):
        """Also of images that are smaller than the map: a box and an area are never empty."""
        crop_box = Preprocess(resize, anomaly_map.shape).crop_box(size)
        scale_x = (crop_box[2] - crop_box[0]) / anomaly_map.shape[1]
        scale_y = (crop_box[3] - crop_box[1]) / anomaly_map.shape[0]
        found = find_regions(anomaly_map, 3, crop_box=crop_box, max_regions=ALL)
        boxes = np.array([region.box for region in found]).reshape(-1, 4)
        assert (boxes >= 0).all()
        assert (boxes[:, 2:] <= size[::-1]).all()
        assert (boxes[:, :2] < boxes[:, 2:]).all()
        sides = boxes[:, 2:] - boxes[:, :2]
        areas = np.array([region.area for region in found], dtype=int)
        assert ((areas >= 1) & (areas <= sides.prod(axis=1))).all()
        for y, x in np.argwhere(anomaly_map >= 3):
            left, top = crop_box[0] + x * scale_x, crop_box[1] + y * scale_y
            around = (boxes[:, :2] <= (left + 1e-6, top + 1e-6)) & (
                boxes[:, 2:] >= (left + scale_x - 1e-6, top + scale_y - 1e-6)
            )
            assert around.all(axis=1).any()

    def test_edges_on_pixels_take_no_further_ones(self):
        """0.7 is no float: edges such as 30 * 0.7 come out a hair off whole pixels."""
        for first in range(0, 300, 10):
            anomaly_map = np.zeros((300, 300), np.float32)
            anomaly_map[first : first + 10, first : first + 10] = 1
            (region,) = find_regions(anomaly_map, 1, crop_box=(0, 0, 210, 210))
            low, high = first * 7 // 10, (first + 10) * 7 // 10
            assert region.box == (low, low, high, high)

    def test_no_mark_and_all_marked(self):
        anomaly_map = np.full((5, 7), 2, np.float32)
        assert find_regions(anomaly_map, 2.1, crop_box=(0, 0, 7, 5)) == []
        assert find_regions(anomaly_map, 2, crop_box=(1, 2, 15, 12)) == [
            Region((1, 2, 15, 12), 140, 2.0)
        ]

    def test_undefined_pixels_are_no_region(self):
        anomaly_map = np.array([[np.nan, 3, np.nan]], np.float32)
        assert find_regions(anomaly_map, 2, crop_box=(0, 0, 3, 1)) == [Region((1, 0, 2, 1), 1, 3.0)]


@pytest.mark.parametrize(
    ("shape", "size", "crop_box"),
    [
        ((4, 10), (30, 40), (-6, -9, 44, 35)),
        ((5, 5), (40, 30), (-5, -5, 45, 45)),  # with centres on the borders of the image
    ],
)
def test_pixels_of_a_map_outside_the_image_are_no_region(shape, size, crop_box):
    """A crop larger than the image extends its border pixels."""
    left, top, right, bottom = crop_box
    height, width = (bottom - top) / shape[0], (right - left) / shape[1]
    for row, column in np.ndindex(shape):
        anomaly_map = np.zeros(shape, np.float32)
        anomaly_map[row, column] = 1
        found = find_regions(anomaly_map, 1, crop_box=crop_box, size=size)
        y, x = top + (row + 0.5) * height, left + (column + 0.5) * width
        assert len(found) == (0 <= y < size[0] and 0 <= x < size[1])
        for region in found:
            assert region.box == (
                max(x - width / 2, 0),
                max(y - height / 2, 0),
                min(x + width / 2, size[1]),
                min(y + height / 2, size[0]),
            )


class TestResizeMapToImage:
    @settings(max_examples=80, deadline=None)
    @given(
        size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
        size_resize=st.tuples(st.integers(8, 40), st.integers(8, 40)),
        cut=st.tuples(st.integers(0, 6), st.integers(0, 6)),
        slope=st.tuples(st.integers(-3, 3), st.integers(-3, 3)),
    )
    def test_a_slope_comes_out_at_the_centres_of_the_images_pixels(
        self, size, size_resize, cut, slope
    ):
        """A map that tells its own place: each pixel says where in the image its centre lies."""
        shape = size_resize[0] - cut[0], size_resize[1] - cut[1]
        left, top, right, bottom = box = Preprocess(size_resize, shape).crop_box(size)
        y = top + (np.arange(shape[0]) + 0.5) * (bottom - top) / shape[0]
        x = left + (np.arange(shape[1]) + 0.5) * (right - left) / shape[1]
        anomaly_map = (slope[0] * y[:, None] + slope[1] * x + 1000).astype(np.float32)
        resized = resize_map_to_image(anomaly_map, size, crop_box=box)
        rows, columns = np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5
        # Beyond the outermost centres of the map, within its edge, its border goes on.
        expected = slope[0] * rows.clip(y[0], y[-1])[:, None] + slope[1] * columns.clip(x[0], x[-1])
        inside = (
            ((rows >= top) & (rows <= bottom))[:, None] & (columns >= left) & (columns <= right)
        )
        assert resized.shape == size
        assert resized.dtype == np.float32
        np.testing.assert_allclose(resized, np.where(inside, expected + 1000, 0), atol=0.01)

    def test_at_its_own_size_it_stays_to_the_last_bit(self):
        anomaly_map = np.random.default_rng(0).random((24, 31), np.float32)
        found = resize_map_to_image(anomaly_map, (24, 31), crop_box=(0, 0, 31, 24))
        np.testing.assert_array_equal(found, anomaly_map)
        placed = resize_map_to_image(anomaly_map, (30, 40), crop_box=(5, 2, 36, 26))
        np.testing.assert_array_equal(placed[2:26, 5:36], anomaly_map)
        assert np.count_nonzero(placed) == np.count_nonzero(anomaly_map)

    @given(MAPS, st.tuples(st.integers(1, 40), st.integers(1, 40)))
    def test_no_value_is_higher_or_lower_than_the_maps(self, anomaly_map, size):
        resized = resize_map_to_image(anomaly_map, size, crop_box=(0, 0, size[1], size[0]))
        assert resized.max() <= anomaly_map.max() + 1e-5
        assert resized.min() >= anomaly_map.min() - 1e-5

    def test_pictures_of_line_cameras_are_longer_than_short_integers_count(self):
        anomaly_map = np.tile(np.arange(20, dtype=np.float32), (4, 1))
        resized = resize_map_to_image(anomaly_map, (3, 40_000), crop_box=(0, 0, 40_000, 3))
        assert (np.diff(resized[1]) >= 0).all()
        assert resized[1, [0, 21_000, -1]].tolist() == pytest.approx([0, 10.00025, 19])


@pytest.mark.parametrize("size", [(40, 60), (37, 91)])
def test_a_mask_is_resized_to_the_nearest_pixel(size):
    """Each pixel of the image has the value at its centre; outside of the crop it is False."""
    preprocess = Preprocess((20, 30), (16, 24))
    mask = np.random.default_rng(0).random((16, 24)) < 0.4
    box = preprocess.crop_box(size)
    found = resize_mask_to_image(mask, size, crop_box=box)
    left, top, right, bottom = box
    expected = np.zeros(size, bool)
    for row, column in np.ndindex(size):
        y, x = (row + 0.5 - top) / (bottom - top) * 16, (column + 0.5 - left) / (right - left) * 24
        if 0 <= y < 16 and 0 <= x < 24:
            expected[row, column] = mask[int(y), int(x)]
    np.testing.assert_array_equal(found, expected)


def test_a_mask_begins_at_its_first_edge_and_ends_before_its_last():
    """The centres of pixels 0 and 10 are on the edges of the crop."""
    found = resize_mask_to_image(np.ones((5, 5), bool), (12, 12), crop_box=(0.5, 0.5, 10.5, 10.5))
    expected = np.zeros((12, 12), bool)
    expected[:10, :10] = True
    np.testing.assert_array_equal(found, expected)


def test_regions_beyond_the_image_are_left_out_and_boxes_end_at_its_border():
    anomaly_map = np.zeros((10, 10), np.float32)
    anomaly_map[0, :] = 2  # the map begins two of its pixels above the image
    anomaly_map[1:4, 8:] = 3
    box = (0.0, -20.0, 100.0, 80.0)
    (region,) = find_regions(anomaly_map, 1, crop_box=box, size=(80, 97))
    assert region.box == (80, 0, 97, 20)
    assert region.score == 3
    box = (-25.0, 0.0, 75.0, 100.0)  # and here two and a half of them to the left
    (region,) = find_regions(anomaly_map.T[::-1], 1, crop_box=box, size=(97, 60))
    assert region.box == (0, 0, 15, 20)
