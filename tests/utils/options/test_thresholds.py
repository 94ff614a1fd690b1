import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.errors import UsageError
from utils.options.thresholds import METHODS, read_threshold


@pytest.mark.parametrize("word", METHODS)
def test_a_methods_word_stays(word):
    assert read_threshold(word, "threshold") == word


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_is_read_to_the_last_bit(number):
    assert read_threshold(repr(number), "threshold") == number


@pytest.mark.parametrize(
    "text", ["", "nan", "inf", "-inf", "1e999", "f1", "F1_MAX", "1,5", "trained"]
)
def test_anything_else_is_told_with_the_flag_and_what_it_may_be(text):
    with pytest.raises(UsageError) as error:
        read_threshold(text, "threshold_pixel")
    expected = "expected --threshold_pixel train_quantile, f1_max or a number, found "
    hint = ". Did you mean f1_max?" if text == "F1_MAX" else ""
    assert str(error.value) == expected + repr(text) + hint


def test_a_command_may_know_other_words():
    assert read_threshold("trained", "threshold", ("trained",)) == "trained"
    with pytest.raises(UsageError, match="--threshold trained or a number, found 'f1_max'"):
        read_threshold("f1_max", "threshold", ("trained",))
