"""The forecast equals the effect, after random changes of memberships, users and rollouts."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from typing import TypeAlias

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from segmentql.adapters.database import Database
from segmentql.adapters.sessions import WriteSession
from segmentql.errors import MutationRejected
from segmentql.principal import NO_ACTOR
from segmentql.rollouts import service
from segmentql.rollouts.forecast import RolloutForecaster
from segmentql.rollouts.plan import Plan
from segmentql.rollouts.records import RolloutRecord
from segmentql.segments.records import SegmentRecord
from tests.conftest import Sql, empty_tables
from tests.databases import every_row
from tests.rollouts.commands import (
    SLUGS,
    STEP_SECONDS,
    Cancel,
    Command,
    DeleteUser,
    FinishWork,
    InsertUsers,
    ServiceUnderTest,
    SetPlan,
    UpdateMemberships,
)
from tests.rollouts.forecasts import counts_of, start_all_stages
from tests.rollouts.helpers import members, stage
from tests.rollouts.reference_model import Model, Segment
from tests.rollouts.strategies import command_lists, plans
from tests.timeline import database_now, make_segment

Change: TypeAlias = Callable[[WriteSession], Awaitable[tuple[SegmentRecord, RolloutRecord]]]


async def change_of(command: SetPlan | Cancel, sql: Sql) -> Change:
    """Return the change of a command, which can run several times."""
    if isinstance(command, Cancel):
        return partial(
            service.cancel_rollout, slug=command.slug, withdraw=command.withdraw, actor=NO_ACTOR
        )
    end = None
    if command.expires_after is not None:
        steps = command.expires_after + sum(wait for _, wait in command.stages)
        end = await database_now(sql) + timedelta(seconds=steps * STEP_SECONDS)
    stages = [
        stage(percent, after=timedelta(seconds=wait * STEP_SECONDS))
        for percent, wait in command.stages
    ]
    return partial(
        service.set_rollout,
        slug=command.slug,
        plan=Plan(stages, command.enroll_new_users, end),
        expected_version=None,
        actor=NO_ACTOR,
    )


async def forecast_change(database: Database, change: Change) -> tuple[int, int] | None:
    """Return the forecast (joining, leaving) of a change; None if it is rejected."""
    try:
        _, rollout = await database.transaction(change, dry_run=True)
    except MutationRejected:
        return None
    return counts_of(await RolloutForecaster(database).forecast(rollout))


async def apply_change(
    database: Database, sql: Sql, segment_id: int, change: Change
) -> tuple[int, int] | None:
    """Carry out a change; return the numbers that its forecast has; None if it is rejected."""
    before = set(await members(sql, segment_id))
    try:
        await database.transaction(change)
    except MutationRejected:
        return None
    members_over_time = await start_all_stages(sql, database, segment_id)
    staying = before.intersection(*members_over_time)
    after = members_over_time[-1]
    joining, leaving = len(after - staying), len(before - staying)
    assert len(after) == len(before) - leaving + joining
    # `leaving` is not only a sum: so many members are missing at the lowest point.
    assert leaving == max(len(before - current) for current in members_over_time)
    return joining, leaving


def changes() -> st.SearchStrategy[list[SetPlan | Cancel]]:
    cancel = st.builds(Cancel, st.just("A"), st.booleans())
    return st.lists(plans("A") | plans("A") | cancel, min_size=1, max_size=3)


WITHOUT_SOME: list[Command] = [
    InsertUsers(1, 20),
    SetPlan("A", (("50", 0),)),
    FinishWork("A"),
    *(UpdateMemberships(user_id, ("A",), ()) for user_id in (1, 2, 3)),
    *(UpdateMemberships(user_id, (), ("A",)) for user_id in (4, 5, 6, 7)),
    *(UpdateMemberships(user_id, ("A",), (), ttl=1) for user_id in (8, 21, 22)),
    DeleteUser(9),
    InsertUsers(23, 8),
]
"""Members by hand, excluded users, memberships with an end, and users stored after the pass."""


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(commands=command_lists(), following=changes())
@example(commands=WITHOUT_SOME, following=[SetPlan("A", (("75", 0),)), Cancel("A", withdraw=True)])
@example(commands=WITHOUT_SOME, following=[SetPlan("A", (("33.333", 0),))])
@example(commands=WITHOUT_SOME, following=[SetPlan("A", (("10", 0), ("75", 1)))])
@example(commands=WITHOUT_SOME, following=[SetPlan("A", (("100", 0), ("75", 1)), expires_after=1)])
@example(commands=WITHOUT_SOME, following=[SetPlan("A", (("75", 1),))])
@example(commands=WITHOUT_SOME, following=[SetPlan("A", (("50", 1),)), SetPlan("A", (("10", 1),))])
@example(commands=WITHOUT_SOME, following=[SetPlan("A", (("0", 0), ("50", 1)))])
@example(
    commands=WITHOUT_SOME,
    following=[SetPlan("A", (("100", 0), ("33.333", 1), ("10", 1), ("75", 2)))],
)
@example(commands=WITHOUT_SOME, following=[Cancel("A", withdraw=False)])
@pytest.mark.slow
async def test_forecast_equals_the_effect(
    sql: Sql, database: Database, commands: list[Command], following: list[SetPlan | Cancel]
) -> None:
    await empty_tables(sql)
    model = Model({slug: Segment(await make_segment(sql, slug)) for slug in SLUGS})
    real = ServiceUnderTest(database, sql)
    for number, command in enumerate(commands):
        model.now = (model.now[0], number)
        await command.run(model, real)
    segment_id = model.segments["A"].segment_id
    for command in following:
        change = await change_of(command, sql)
        before = await every_row(sql)
        forecast = await forecast_change(database, change)
        assert await every_row(sql) == before
        assert forecast == await apply_change(database, sql, segment_id, change)
