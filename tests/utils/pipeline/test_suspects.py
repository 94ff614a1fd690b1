"""The figure of the training images that are least like the others."""

import numpy as np
import pytest

from utils.pipeline.suspects import SIDE, _fitted


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((10, 20), (SIDE // 2, SIDE)),
        ((20, 10), (SIDE, SIDE // 2)),
        ((4 * SIDE, 2 * SIDE), (SIDE, SIDE // 2)),
        ((1, 1), (SIDE, SIDE)),
        ((SIDE, SIDE), (SIDE, SIDE)),
        ((5000, 1), (SIDE, 1)),
    ],
)
def test_an_image_fills_a_square_and_keeps_its_aspect(size, expected):
    canvas = _fitted(np.full((*size, 3), 50, np.uint8))
    assert canvas.shape == (SIDE, SIDE, 3)
    height, width = expected
    assert (canvas[:height, :width] == 50).all()
    assert (canvas == 50).sum() == height * width * 3
    assert (canvas == 255).sum() == (SIDE**2 - height * width) * 3
