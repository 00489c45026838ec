"""Percents are exact decimals, and percents and seconds before a stage have limits."""

import math
from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segmentql import validators
from segmentql.errors import BadValue
from segmentql.validators import MAX_TTL_SECONDS, PERCENT_ALLOWED, STAGE_DELAY_ALLOWED


@pytest.mark.parametrize(
    ("number", "exact"),
    [
        (0.0, "0"),
        (-0.0, "0"),
        (0, "0"),
        (100, "100"),
        (100.0, "100"),
        (0.001, "0.001"),
        (99.999, "99.999"),
        (33.333, "33.333"),
        (0.1, "0.1"),
        (12.50, "12.5"),
    ],
)
def test_percent_is_the_decimal_that_was_written(number: float, exact: str) -> None:
    assert validators.percent(number) == Decimal(exact)


@given(thousandths=st.integers(0, 100_000))
def test_every_thousandth_from_0_to_100_is_exact(thousandths: int) -> None:
    percent = validators.percent(thousandths / 1000)
    assert percent * 1000 == thousandths
    assert percent.as_tuple().exponent == -3


@pytest.mark.parametrize(
    ("number", "percent"),
    [
        (0.1 + 0.2, "0.300"),
        (5e-324, "0.000"),
        (math.nextafter(0, -1), "0.000"),
        (math.nextafter(100, 101), "100.000"),
    ],
)
def test_percent_within_1e_9_of_a_thousandth_is_rounded(number: float, percent: str) -> None:
    assert str(validators.percent(number)) == percent


@pytest.mark.parametrize(
    ("number", "problem"),
    [
        (-1.0, "-1.0 percent is out of range"),
        (-0.001, "-0.001 percent is out of range"),
        (100.001, "100.001 percent is out of range"),
        (1e300, "1e+300 percent is out of range"),
        (math.nan, "nan percent is out of range"),
        (math.inf, "inf percent is out of range"),
        (-math.inf, "-inf percent is out of range"),
        (33.3333, "33.3333 has more than 3 decimals"),
        (1e-4, "0.0001 has more than 3 decimals"),
        (99.9999, "99.9999 has more than 3 decimals"),
    ],
)
def test_invalid_percent_is_rejected(number: float, problem: str) -> None:
    with pytest.raises(BadValue) as bad:
        validators.percent(number)
    assert (bad.value.problem, bad.value.allowed) == (problem, PERCENT_ALLOWED)


@pytest.mark.parametrize("seconds", [0, 1, MAX_TTL_SECONDS])
def test_after_seconds_may_be_up_to_ten_years(seconds: int) -> None:
    assert validators.stage_delay(seconds) == timedelta(seconds=seconds)


@pytest.mark.parametrize("seconds", [-1, MAX_TTL_SECONDS + 1, 2**31 - 1, -(2**31)])
def test_after_seconds_out_of_range_is_rejected(seconds: int) -> None:
    with pytest.raises(BadValue) as bad:
        validators.stage_delay(seconds)
    assert (bad.value.problem, bad.value.allowed) == (
        f"{seconds} seconds is out of range",
        STAGE_DELAY_ALLOWED,
    )
