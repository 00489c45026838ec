"""Rules for values that come from outside."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segmentql import validators
from segmentql.errors import BadValue


@pytest.mark.parametrize(
    ("computed", "meant"),
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
def test_a_percent_is_rounded_to_the_thousandth_that_floats_missed(
    computed: float, meant: str
) -> None:
    assert str(validators.percent(computed)) == meant


@pytest.mark.parametrize(
    "percent",
    [33.333000001, 33.332999999, 33.3335, 1e-9, -1e-9, 100.000000001, -1, 100.001, 1e308],
)
def test_a_percent_that_is_a_billionth_off_is_refused(percent: float) -> None:
    with pytest.raises(BadValue) as refused:
        validators.percent(percent)
    assert refused.value.allowed == validators.PERCENT_ALLOWED


@given(thousandths=st.integers(0, 100_000), parts=st.integers(1, 20))
def test_a_percent_computed_of_parts_is_the_one_that_is_meant(thousandths: int, parts: int) -> None:
    computed = sum([thousandths / 1000 / parts] * parts)
    assert validators.percent(computed) == Decimal(thousandths) / 1000


@pytest.mark.parametrize("percent", [float("nan"), float("inf"), float("-inf")])
def test_a_percent_is_a_number(percent: float) -> None:
    with pytest.raises(BadValue):
        validators.percent(percent)
