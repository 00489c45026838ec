"""Validators check values of callers."""

import unicodedata
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segmentql import validators
from segmentql.errors import BadValue


@pytest.mark.parametrize(
    ("computed", "expected"),
    [
        (0.1 + 0.2, "0.300"),
        (100.0 - 0.1 * 3 + 0.3, "100.000"),
        (100.00000000000001, "100.000"),
        (0.3 - 0.1 * 3, "0.000"),  # below 0
        (33.333, "33.333"),
        (33.3330000009, "33.333"),
        (33.3329999991, "33.333"),
        (1e-300, "0.000"),
        (0.0, "0.000"),
        (-0.0, "0.000"),
        (7, "7.000"),
    ],
)
def test_float_percent_is_rounded_to_a_thousandth(computed: float, expected: str) -> None:
    assert str(validators.percent(computed)) == expected


@pytest.mark.parametrize(
    "percent",
    [33.333000001, 33.332999999, 33.3335, 1e-9, -1e-9, 100.000000001, -1, 100.001, 1e308],
)
def test_percent_that_is_a_billionth_off_is_rejected(percent: float) -> None:
    with pytest.raises(BadValue) as raised:
        validators.percent(percent)
    assert raised.value.allowed == validators.PERCENT_ALLOWED


@given(thousandths=st.integers(0, 100_000), parts=st.integers(1, 20))
def test_percent_computed_as_a_sum_is_exact(thousandths: int, parts: int) -> None:
    computed = sum([thousandths / 1000 / parts] * parts)
    assert validators.percent(computed) == Decimal(thousandths) / 1000


@pytest.mark.parametrize("percent", [float("nan"), float("inf"), float("-inf")])
def test_percent_must_be_a_finite_number(percent: float) -> None:
    with pytest.raises(BadValue):
        validators.percent(percent)


@given(st.text(st.characters(codec=None), min_size=1, max_size=255))
def test_key_of_a_user_has_no_control_character_and_no_surrogate(text: str) -> None:
    is_allowed = not {unicodedata.category(character) for character in text} & {"Cc", "Cs"}
    if is_allowed:
        assert validators.user_key(text) == text
    else:
        with pytest.raises(BadValue) as raised:
            validators.user_key(text)
        # Errors do not repeat a key, which may be personal data.
        assert raised.value.problem == (
            "the key contains a control character or an unpaired surrogate"
        )


@pytest.mark.parametrize("code_point", [0, 0x1F, 0x7F, 0x9F, 0xD800, 0xDFFF])
def test_bounds_of_the_rejected_characters_of_a_key(code_point: int) -> None:
    with pytest.raises(BadValue):
        validators.user_key(f"a{chr(code_point)}")


@pytest.mark.parametrize("code_point", [0x20, 0x7E, 0xA0, 0xD7FF, 0xE000, 0x10FFFF])
def test_characters_beside_the_rejected_ones_are_allowed_in_a_key(code_point: int) -> None:
    assert validators.user_key(chr(code_point) * 255) == chr(code_point) * 255


@pytest.mark.parametrize("length", [0, 256])
def test_key_of_a_user_has_1_to_255_characters(length: int) -> None:
    with pytest.raises(BadValue, match=f"the key has {length} characters"):
        validators.user_key("k" * length)
