"""The figure of the training images that are least like the others."""

import numpy as np
import pytest

from utils.pipeline.suspects import SIDE, _fitted


@pytest.mark.parametrize(
    ("size", "expected"),
    [((2 * SIDE, SIDE), (SIDE, SIDE // 2)), ((10, 20), (SIDE // 2, SIDE)), ((1, 1000), (1, SIDE))],
)
def test_an_image_keeps_its_shape_within_a_white_square(size, expected):
    fitted = _fitted(np.zeros((*size, 3), np.uint8))
    assert fitted.shape == (SIDE, SIDE, 3)
    height, width = expected
    assert not fitted[:height, :width].any()
    fitted[:height, :width] = 255
    assert (fitted == 255).all()
