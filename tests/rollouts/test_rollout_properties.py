"""Whatever people, clocks and workers do in whatever order: the database says what the model says.

Time passes by moving every row into the past, which is what a clock put forward would look like.
"""

import math
from datetime import datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from segmentql.adapters.database import Database
from segmentql.memberships.actors import end_due_memberships
from segmentql.memberships.service import OnExisting
from tests.conftest import Sql, empty_tables
from tests.rollouts.commands import (
    SLUGS,
    STEP_SECONDS,
    USERS,
    Cancel,
    Change,
    Create,
    Delete,
    Insert,
    Pause,
    Resume,
    Service,
    SetPlan,
    Step,
    StepOf,
    TidyEnds,
    Wait,
    Work,
)
from tests.rollouts.helpers import excluded, rollout_of
from tests.rollouts.reference_model import Model, Segment
from tests.timeline import clock, lies_of_history, make_segment, recorded


def plans() -> st.SearchStrategy[Step]:
    percent = st.sampled_from(["0", "5", "10", "33.333", "50", "75", "100"])
    stages = st.tuples(
        st.tuples(percent, st.sampled_from([0, 0, 0, 1])),
        st.lists(st.tuples(percent, st.integers(1, 2)), max_size=3),
    ).map(lambda found: (found[0], *found[1]))
    return st.builds(
        SetPlan,
        st.sampled_from(SLUGS),
        stages,
        st.sampled_from([True, True, True, False]),
        st.sampled_from([None, None, 1, 2]),
    )


def changes() -> st.SearchStrategy[Step]:
    return st.builds(
        lambda user_id, slugs, split, ttl, on_existing: Change(
            user_id, slugs[:split], slugs[split:], ttl, on_existing
        ),
        st.sampled_from(USERS),
        st.sampled_from([("A",), ("B",), ("A", "B"), ("B", "A"), ()]),
        st.integers(0, 2),
        st.none() | st.integers(1, 3),
        st.sampled_from(OnExisting),
    )


def step_lists() -> st.SearchStrategy[list[Step]]:
    slugs, users = st.sampled_from(SLUGS), st.sampled_from(USERS)
    # One integer to choose by, and not `one_of`, which would count each kind once.
    weighted: list[st.SearchStrategy[Step]] = [
        *[plans()] * 4,
        *[st.builds(StepOf, slugs)] * 6,
        *[st.builds(Work, slugs)] * 4,
        *[changes()] * 6,
        *[st.builds(Insert, users, st.integers(1, 20))] * 2,
        *[st.builds(Delete, users)] * 3,
        *[st.builds(Wait, st.integers(1, 2))] * 3,
        st.builds(Create, users),
        st.builds(Pause, slugs),
        *[st.builds(Resume, slugs)] * 2,
        st.builds(Cancel, slugs, st.booleans()),
        st.just(TidyEnds()),
    ]
    step = st.integers(0, len(weighted) - 1).flatmap(weighted.__getitem__)
    return st.lists(step, min_size=15, max_size=35).map(
        lambda rest: [Insert(1, 20), SetPlan("A", (("50", 0), ("10", 1), ("75", 2))), *rest]
    )


def whole_steps_left(end: datetime | None, now: datetime) -> int | None:
    """The seconds until an end, made good for the little that the example itself has taken."""
    if end is None:
        return None
    return math.ceil((end - now).total_seconds() / STEP_SECONDS) * STEP_SECONDS


async def assert_same(model: Model, real: Service) -> None:
    """Every read of what is so now says what the model says."""
    now = await clock(real.sql)
    for segment in model.segments.values():
        rows: list[Any] = await real.sql.fetch(
            """
            SELECT user_id, cause::text, expires_at FROM memberships
            WHERE segment_id = $1 AND (expires_at IS NULL OR expires_at > clock_timestamp())
            """,
            segment.number,
        )
        assert {
            row["user_id"]: (row["cause"], whole_steps_left(row["expires_at"], now)) for row in rows
        } == {
            stay.user_id: (stay.cause, None if stay.end is None else stay.end[0] - model.now[0])
            for stay in segment.active(model.now)
        }
        assert await excluded(real.sql, segment.number) == segment.excluded
        if segment.rollout is not None:
            rollout = await rollout_of(real.database, segment.number)
            assert (rollout.status, rollout.percent) == (
                segment.rollout.status(model.now),
                segment.rollout.in_force(model.now),
            )


async def assert_same_past(model: Model, real: Service) -> None:
    """History has, of every user, what the model says, once every end is recorded."""
    await end_due_memberships(real.database)
    entries = await recorded(real.sql)
    for segment in model.segments.values():
        for user_id in USERS:
            assert [
                (entry.operation, entry.cause)
                for entry in entries
                if (entry.user_id, entry.segment_id) == (user_id, segment.number)
            ] == segment.entries(user_id, model.now)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=step_lists())
@example(
    # A lowering is interrupted by a raise to less than there was, and users come for both.
    steps=[
        Insert(1, 20),
        SetPlan("A", (("100", 0),)),
        Work("A"),
        SetPlan("A", (("10", 0),)),
        StepOf("A"),
        StepOf("A"),
        Insert(21, 5),
        SetPlan("A", (("50", 0), ("100", 1), ("33.333", 1))),
        Insert(26, 5),
        Wait(2),
        Work("A"),
        Cancel("A", withdraw=True),
        Create(3),
        Delete(3),
        Work("A"),
    ]
)
@pytest.mark.slow
async def test_memberships_exclusions_statuses_and_history_agree_with_the_model(
    sql: Sql, database: Database, steps: list[Step]
) -> None:
    await empty_tables(sql)
    model = Model({slug: Segment(await make_segment(sql, slug)) for slug in SLUGS})
    real = Service(database, sql)
    for number, step in enumerate(steps):
        model.now = (model.now[0], number)
        await step.run(model, real)
        await assert_same(model, real)
        assert await lies_of_history(sql) == {}
    await assert_same_past(model, real)
    await assert_same(model, real)
