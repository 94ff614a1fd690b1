"""Which rows of a bank a search area leaves; searches are compared with twins in test_family."""

import numpy as np
import pytest
import torch

from patchcore.nearby import Places, SearchArea

GRID = (2, 5)


@pytest.mark.parametrize(
    ("radius", "k", "expected"),
    [
        (-1, 2, 0),  # no limit
        (0, 1, 8),  # all but the two positions themselves
        (1, 1, 2),  # column 2 of both rows
        (1, 2, 10),
        (2, 1, 0),
        (2, 2, 8),  # all but column 2, which is just near enough to both
        (4, 2, 0),
    ],
)
def test_positions_with_fewer_than_k_rows_within_the_radius_are_counted(radius, k, expected):
    """The bank has one patch at each end of the grid's first row."""
    places = Places.of_patches(np.array([0, 4]), GRID, torch.device("cpu"))
    assert SearchArea(places, radius, 0).num_widened(GRID, k) == expected
