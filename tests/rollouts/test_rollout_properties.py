"""Random sequences of commands give the same state in the database and in the reference model.

Time passes by back-dating every row, which looks like a clock that was set forward.
"""

import math
from datetime import datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings

from segmentql.adapters.database import Database
from segmentql.memberships.actors import expire_due_memberships
from tests.conftest import Sql, empty_tables
from tests.rollouts.commands import (
    SLUGS,
    STEP_SECONDS,
    USERS,
    Cancel,
    Command,
    CreateUser,
    DeleteUser,
    FinishWork,
    InsertUsers,
    PassTime,
    RunStep,
    ServiceUnderTest,
    SetPlan,
)
from tests.rollouts.helpers import excluded, read_rollout
from tests.rollouts.reference_model import Model, Segment
from tests.rollouts.strategies import command_lists
from tests.timeline import database_now, history_entries, history_inconsistencies, make_segment

INTERRUPTED_LOWERING: list[Command] = [
    InsertUsers(1, 20),
    SetPlan("A", (("100", 0),)),
    FinishWork("A"),
    SetPlan("A", (("10", 0),)),
    RunStep("A"),
    RunStep("A"),
    InsertUsers(21, 5),
    SetPlan("A", (("50", 0), ("100", 1), ("33.333", 1))),
    InsertUsers(26, 5),
    PassTime(2),
    FinishWork("A"),
    Cancel("A", withdraw=True),
    CreateUser(3),
    DeleteUser(3),
    FinishWork("A"),
]
"""A lowering is interrupted by a smaller raise, and new users join during both."""


def seconds_left(end: datetime | None, now: datetime) -> int | None:
    """Return the seconds until an expiry, rounded up to whole steps."""
    if end is None:
        return None
    return math.ceil((end - now).total_seconds() / STEP_SECONDS) * STEP_SECONDS


async def assert_same_state(model: Model, real: ServiceUnderTest) -> None:
    """Check that memberships, exclusions, status and percent equal those of the model."""
    now = await database_now(real.sql)
    for segment in model.segments.values():
        rows: list[Any] = await real.sql.fetch(
            """
            SELECT user_id, cause::text, expires_at FROM memberships
            WHERE segment_id = $1 AND (expires_at IS NULL OR expires_at > clock_timestamp())
            """,
            segment.segment_id,
        )
        assert {
            row["user_id"]: (row["cause"], seconds_left(row["expires_at"], now)) for row in rows
        } == {
            membership.user_id: (
                membership.cause,
                None if membership.end is None else membership.end[0] - model.now[0],
            )
            for membership in segment.active(model.now)
        }
        assert await excluded(real.sql, segment.segment_id) == segment.excluded
        if segment.rollout is not None:
            rollout = await read_rollout(real.database, segment.segment_id)
            assert (rollout.status, rollout.percent) == (
                segment.rollout.status(model.now),
                segment.rollout.percent_in_force(model.now),
            )


async def assert_same_history(model: Model, real: ServiceUnderTest) -> None:
    """Check that the history of every user equals that of the model."""
    await expire_due_memberships(real.database)
    entries = await history_entries(real.sql)
    for segment in model.segments.values():
        for user_id in USERS:
            assert [
                (entry.operation, entry.cause)
                for entry in entries
                if (entry.user_id, entry.segment_id) == (user_id, segment.segment_id)
            ] == segment.entries(user_id, model.now)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(commands=command_lists())
@example(commands=INTERRUPTED_LOWERING)
@pytest.mark.slow
async def test_service_agrees_with_the_reference_model(
    sql: Sql, database: Database, commands: list[Command]
) -> None:
    await empty_tables(sql)
    model = Model({slug: Segment(await make_segment(sql, slug)) for slug in SLUGS})
    real = ServiceUnderTest(database, sql)
    for number, command in enumerate(commands):
        model.now = (model.now[0], number)
        await command.run(model, real)
        await assert_same_state(model, real)
        assert await history_inconsistencies(sql) == {}
    await assert_same_history(model, real)
    await assert_same_state(model, real)
