import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchcore import PatchCoreError, mosaic
from patchcore.mosaic import decode_mosaic, encode_mosaic


def smooth(count, height, width, seed=0):
    """Return tiles of a colour each with a gentle slope, as patches of pictures are."""
    rng = np.random.default_rng(seed)
    colours = rng.integers(40, 200, (count, 1, 1, 3))
    y, x = np.mgrid[:height, :width]
    return np.clip(colours + (y + 2 * x)[None, :, :, None], 0, 255).astype(np.uint8)


def there_and_back(tiles):
    return decode_mosaic(encode_mosaic(tiles), len(tiles), tiles.shape[1:3])


def side_of(data):
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape[:2]


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 300),
    height=st.integers(1, 21),
    width=st.integers(1, 21),
    seed=st.integers(0, 9),
)
def test_tiles_of_any_size_and_number_come_back_nearly_as_they_were(count, height, width, seed):
    tiles = smooth(count, height, width, seed)
    found = there_and_back(tiles)
    assert found.shape == tiles.shape
    assert found.dtype == np.uint8
    assert found.flags.c_contiguous
    assert np.abs(found.astype(int) - tiles).max() <= 12


@pytest.mark.parametrize("side", [(8, 8), (5, 13), (16, 16)])
def test_neighbouring_tiles_do_not_mix(side):
    """Black and white ones, and red and blue ones, side by side: blocks would bleed."""
    colours = np.array([(0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 0, 255)], np.uint8)
    tiles = np.tile(colours[np.arange(50) % 4][:, None, None], (1, *side, 1))
    assert np.abs(there_and_back(tiles).astype(int) - tiles).max() <= 2


def test_channels_and_axes_keep_their_order():
    tile = np.zeros((1, 16, 8, 3), np.uint8)
    tile[:, :8], tile[:, 8:] = (200, 30, 90), (10, 180, 60)
    assert np.abs(there_and_back(tile).astype(int) - tile).max() <= 4


@pytest.mark.parametrize(
    ("count", "side"), [(1, (3, 300)), (128, (8, 1000)), (129, (1000, 8)), (30_000, (1, 1))]
)
def test_a_mosaic_is_about_a_square(count, side):
    """JPEG knows no side of more than 65500 pixels."""
    height, width = side_of(encode_mosaic(np.zeros((count, *side, 3), np.uint8)))
    cell = [-(-length // 8) * 8 for length in side]
    assert max(height, width) <= 2 * (count * cell[0] * cell[1]) ** 0.5 + max(cell)


def test_many_tiles_are_kept_smaller(monkeypatch):
    monkeypatch.setattr(mosaic, "MOST_BYTES", 3 * 100 * 8 * 8)
    tiles = smooth(100, 16, 16)
    data = encode_mosaic(tiles)
    assert side_of(data) == (80, 80)
    assert np.abs(decode_mosaic(data, 100, (16, 16)).astype(int) - tiles).max() <= 12


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(1, 40),
    size=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    most=st.integers(1, 20_000),
)
def test_however_few_bytes_there_are_tiles_come_back_in_their_size(count, size, most):
    tiles = np.broadcast_to(smooth(count, 1, 1), (count, *size, 3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mosaic, "MOST_BYTES", most)
        found = there_and_back(tiles)
        assert mosaic._lay_out(count, size).side <= size
    assert found.shape == tiles.shape
    assert np.abs(found.astype(int) - tiles).max() <= 12


def test_a_list_is_a_size_too():
    """As a record in JSON has it."""
    tiles = smooth(3, 5, 7)
    np.testing.assert_array_equal(
        decode_mosaic(encode_mosaic(tiles), 3, [5, 7]), there_and_back(tiles)
    )


@pytest.mark.parametrize(
    "data", [b"", b"no picture", encode_mosaic(smooth(4, 8, 8))[:40]], ids=["none", "text", "cut"]
)
def test_what_is_no_picture_is_told(data):
    with pytest.raises(PatchCoreError, match="a mosaic of 4 patches, found a damaged file"):
        decode_mosaic(data, 4, (8, 8))


@pytest.mark.parametrize(("count", "size"), [(5, (8, 8)), (4, (9, 8)), (4, (8, 17))])
def test_another_mosaic_is_told(count, size):
    data = encode_mosaic(smooth(4, 8, 8))
    with pytest.raises(
        PatchCoreError, match=rf"of {count} patches, found a picture of \(16, 16, 3"
    ):
        decode_mosaic(data, count, size)


def test_more_than_a_picture_can_hold_is_told(monkeypatch):
    monkeypatch.setattr(cv2, "imencode", lambda *_: (False, ()))
    with pytest.raises(PatchCoreError, match="pictures of 4 patches: they are too many"):
        encode_mosaic(smooth(4, 8, 8))
