"""Names of output files say what is in them, and no two outputs share one."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.output_names import per_mille, setting_tag


@pytest.mark.parametrize(
    ("percentage", "k", "tag"),
    [
        (0.1, 1, "p0100_k01"),
        (0.25, 9, "p0250_k09"),
        (0.01, 1, "p0010_k01"),
        (1, 12, "p1000_k12"),
        (0.0675, 1, "p0067.5_k01"),  # unlike 0.067 and 0.068
        (0.00025, 1, "p0000.25_k01"),
        (0.07, 1, "p0070_k01"),  # 1000 * 0.07 is not 70 in floating point
    ],
)
def test_names_have_per_mille_and_k(percentage, k, tag):
    assert setting_tag(percentage, k) == tag


def test_the_number_of_shots_is_in_a_name_only_if_it_is_given():
    assert setting_tag(0.1, 1, None) == setting_tag(0.1, 1)
    assert setting_tag(0.1, 1, 4) == "p0100_k01_shots004"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.9912, "0991"), (1.0, "1000"), (0.0, "0000"), (0.067, "0067"), (math.nan, "none")],
)
def test_scores_in_names_are_per_mille(value, text):
    assert per_mille(value) == text


@given(st.floats(0, 1))
def test_per_mille_has_four_digits_and_is_as_near_as_they_allow(value):
    text = per_mille(value)
    assert len(text) == 4
    assert abs(int(text) / 1000 - value) <= 0.0005 + 1e-12
