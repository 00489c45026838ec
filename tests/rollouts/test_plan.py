"""A plan has start times of stages and a time of expiry, in order and within limits."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from segmentql.errors import InvalidInput, MutationRejected
from segmentql.rollouts.plan import ALLOWED_START, MAX_START_OFFSET, Plan, Stage, schedule
from segmentql.validators import MAX_TTL_SECONDS, TTL_ALLOWED
from tests.rollouts.helpers import stage

NOW = datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MICROSECOND = timedelta(microseconds=1)
HOUR = timedelta(hours=1)

OUT_OF_ORDER = (
    "the stage does not start after the previous stage",
    "a time after the start of the previous stage",
)
OUT_OF_RANGE = ("the start is out of range", ALLOWED_START)
EXPIRY_TOO_EARLY = (
    "the last stage does not start before this time",
    "a time after the last stage starts",
)


def at(moment: datetime) -> Stage:
    return stage(10, starts_at=moment)


def after(interval: timedelta) -> Stage:
    return stage(10, after=interval)


def reasons(*stages: Stage, expires_at: datetime | None = None) -> list[tuple[str, str, str]]:
    """Return the errors of a plan as (path, problem, allowed)."""
    with pytest.raises(MutationRejected) as raised:
        schedule(Plan(stages, expires_at=expires_at), NOW)
    invalid_inputs = [
        refusal for refusal in raised.value.reasons if isinstance(refusal, InvalidInput)
    ]
    assert len(invalid_inputs) == len(raised.value.reasons)
    return [
        (".".join(refusal.path), refusal.problem, refusal.allowed) for refusal in invalid_inputs
    ]


# --- When stages start --------------------------------------------------------------------------


def test_first_stage_without_a_time_starts_now() -> None:
    assert schedule(Plan([stage(10)]), NOW) == [NOW]


def test_first_stage_after_seconds_counts_from_now() -> None:
    assert schedule(Plan([after(timedelta(0))]), NOW) == [NOW]
    assert schedule(Plan([after(HOUR)]), NOW) == [NOW + HOUR]


def test_after_seconds_counts_from_the_previous_stage() -> None:
    plan = Plan([stage(1), after(HOUR), after(SECOND), at(NOW + 5 * HOUR), after(2 * HOUR)])
    assert schedule(plan, NOW) == [
        NOW,
        NOW + HOUR,
        NOW + HOUR + SECOND,
        NOW + 5 * HOUR,
        NOW + 7 * HOUR,
    ]


def test_stages_may_start_up_to_ten_years_ago() -> None:
    moments = [NOW - MAX_START_OFFSET, NOW - HOUR, NOW + HOUR]
    assert schedule(Plan([at(moment) for moment in moments]), NOW) == moments


def test_after_seconds_counts_from_a_past_first_stage() -> None:
    assert schedule(Plan([at(NOW - HOUR), after(SECOND)]), NOW) == [NOW - HOUR, NOW - HOUR + SECOND]


def test_percents_may_rise_fall_and_repeat() -> None:
    percents = ["10", "50", "50", "0", "100", "0.001"]
    plan = Plan([stage(percent, after=HOUR) for percent in percents])
    assert schedule(plan, NOW) == [NOW + number * HOUR for number in range(1, 7)]


@given(
    waits=st.lists(
        st.tuples(st.booleans(), st.integers(1, 6_307_200_000_000)), min_size=1, max_size=50
    ),
    first=st.none() | st.integers(-MAX_TTL_SECONDS, 0).map(lambda seconds: seconds * SECOND),
)
def test_starts_at_and_after_seconds_are_equivalent(
    waits: list[tuple[bool, int]], first: timedelta | None
) -> None:
    # Each delay is at most a fiftieth of ten years, so that fifty of them are in range.
    moments = [NOW if first is None else NOW + first]
    stages = [stage(10) if first is None else at(moments[0])]
    for says_after, microseconds in waits[1:]:
        wait = microseconds * MICROSECOND
        moments.append(moments[-1] + wait)
        stages.append(after(wait) if says_after else at(moments[-1]))
    assert schedule(Plan(stages), NOW) == moments
    assert moments == sorted(set(moments))


# --- Rejected stages ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stages", "path"),
    [
        ([stage(10), at(NOW)], "rollout.stages.1.startsAt"),
        ([stage(10), at(NOW - HOUR)], "rollout.stages.1.startsAt"),
        ([stage(10), after(timedelta(0))], "rollout.stages.1.afterSeconds"),
        ([at(NOW + HOUR), at(NOW + HOUR)], "rollout.stages.1.startsAt"),
        ([at(NOW + HOUR), at(NOW + HOUR - MICROSECOND)], "rollout.stages.1.startsAt"),
        ([at(NOW), after(2 * HOUR), at(NOW + HOUR)], "rollout.stages.2.startsAt"),
    ],
)
def test_stage_not_after_the_previous_one_is_rejected(stages: Sequence[Stage], path: str) -> None:
    assert reasons(*stages) == [(path, *OUT_OF_ORDER)]


def test_start_limit_is_exactly_ten_years_from_now() -> None:
    assert schedule(Plan([at(NOW + MAX_START_OFFSET)]), NOW) == [NOW + MAX_START_OFFSET]
    assert schedule(Plan([stage(1), after(MAX_START_OFFSET)]), NOW) == [NOW, NOW + MAX_START_OFFSET]
    assert reasons(at(NOW + MAX_START_OFFSET + MICROSECOND)) == [
        ("rollout.stages.0.startsAt", *OUT_OF_RANGE),
    ]
    assert reasons(after(MICROSECOND), after(MAX_START_OFFSET)) == [
        ("rollout.stages.1.afterSeconds", *OUT_OF_RANGE),
    ]
    assert reasons(at(NOW - MAX_START_OFFSET - MICROSECOND)) == [
        ("rollout.stages.0.startsAt", *OUT_OF_RANGE),
    ]


def test_minimum_and_maximum_datetime_are_out_of_range() -> None:
    first, last = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
    assert reasons(at(first)) == [("rollout.stages.0.startsAt", *OUT_OF_RANGE)]
    assert reasons(at(last)) == [("rollout.stages.0.startsAt", *OUT_OF_RANGE)]
    # No later datetime exists.
    assert reasons(at(last), after(SECOND)) == [
        ("rollout.stages.0.startsAt", *OUT_OF_RANGE),
        ("rollout.stages.1.afterSeconds", *OUT_OF_ORDER),
    ]
    almost = last - SECOND
    assert reasons(at(almost), after(HOUR)) == [
        ("rollout.stages.0.startsAt", *OUT_OF_RANGE),
        ("rollout.stages.1.afterSeconds", *OUT_OF_RANGE),
    ]


def test_all_problems_of_a_plan_are_reported_together() -> None:
    assert reasons(
        stage(10),
        at(NOW - HOUR),
        after(HOUR),  # this is now, which is later than the previous stage
        after(timedelta(0)),
        after(MAX_START_OFFSET),
        at(NOW + MAX_START_OFFSET + SECOND),
        expires_at=NOW - SECOND,
    ) == [
        ("rollout.stages.1.startsAt", *OUT_OF_ORDER),
        ("rollout.stages.3.afterSeconds", *OUT_OF_ORDER),
        ("rollout.stages.5.startsAt", *OUT_OF_RANGE),
        ("rollout.expiresAt", "-1.000000 seconds from now", TTL_ALLOWED),
    ]


@given(
    offsets=st.lists(
        st.integers(-MAX_TTL_SECONDS - 2, MAX_TTL_SECONDS + 2) | st.integers(-2, 2),
        min_size=1,
        max_size=8,
    )
)
@example(offsets=[0, 0, 0])
def test_exactly_stages_out_of_order_or_range_are_rejected(offsets: list[int]) -> None:
    moments = [NOW + offset * SECOND for offset in offsets]
    expected = [
        (
            f"rollout.stages.{number}.startsAt",
            *(OUT_OF_ORDER if number and offset <= offsets[number - 1] else OUT_OF_RANGE),
        )
        for number, offset in enumerate(offsets)
        if (number and offset <= offsets[number - 1]) or abs(offset) > MAX_TTL_SECONDS
    ]
    stages = [at(moment) for moment in moments]
    if expected:
        assert reasons(*stages) == expected
    else:
        assert schedule(Plan(stages), NOW) == moments


# --- Expiry -------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [NOW + SECOND, NOW + MAX_START_OFFSET])
def test_expiry_from_one_second_to_ten_years_is_accepted(end: datetime) -> None:
    assert schedule(Plan([stage(10)], expires_at=end), NOW) == [NOW]


@pytest.mark.parametrize(
    ("interval", "message"),
    [
        (SECOND - MICROSECOND, "0.999999"),
        (timedelta(0), "0.000000"),
        (-HOUR, "-3600.000000"),
        (MAX_START_OFFSET + MICROSECOND, "315360000.000001"),
    ],
)
def test_expiry_out_of_range_is_rejected(interval: timedelta, message: str) -> None:
    assert reasons(stage(10), expires_at=NOW + interval) == [
        ("rollout.expiresAt", f"{message} seconds from now", TTL_ALLOWED)
    ]


@pytest.mark.parametrize("early", [timedelta(0), MICROSECOND, HOUR])
def test_expiry_not_after_the_last_stage_is_rejected(early: timedelta) -> None:
    stages = [stage(10), after(HOUR), after(HOUR)]
    assert reasons(*stages, expires_at=NOW + 2 * HOUR - early) == [
        ("rollout.expiresAt", *EXPIRY_TOO_EARLY)
    ]
    assert (
        schedule(Plan(stages, expires_at=NOW + 2 * HOUR + MICROSECOND), NOW)[-1] == NOW + 2 * HOUR
    )


def test_expiry_is_compared_with_the_latest_stage() -> None:
    assert reasons(at(NOW + 2 * HOUR), at(NOW + HOUR), expires_at=NOW + 2 * HOUR) == [
        ("rollout.stages.1.startsAt", *OUT_OF_ORDER),
        ("rollout.expiresAt", *EXPIRY_TOO_EARLY),
    ]
