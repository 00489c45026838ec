"""The forecast of a dry run equals what happens when the plan or the withdrawal is carried out."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import asyncpg
import pytest

from segmentql.adapters.database import Database
from segmentql.local import LocalServers, with_database
from segmentql.rollouts.forecast import CONCURRENT_FORECASTS, RolloutForecast, RolloutForecaster
from segmentql.rollouts.plan import Plan
from tests.conftest import PATIENCE_SECONDS, Sql, until
from tests.rollouts.commands import STEP_SECONDS
from tests.rollouts.forecasts import counts_of, dry_run_plan, start_all_stages
from tests.rollouts.helpers import (
    finish_rollout,
    members,
    set_plan,
    stage,
    store_users,
    update_manually,
)
from tests.timeline import HOUR, add_membership, database_now, make_segment


async def forecast_plan(database: Database, *percents: float) -> tuple[int, int]:
    """Return the forecast (joining, leaving) of a plan of segment A with a stage each hour."""
    stages = [
        stage(percent, after=timedelta(hours=position)) for position, percent in enumerate(percents)
    ]
    rollout = await dry_run_plan(database, "A", Plan(stages))
    return counts_of(await RolloutForecaster(database).forecast(rollout))


async def test_forecast_of_one_stage(sql: Sql, database: Database) -> None:
    await store_users(sql, 100)
    await make_segment(sql, "A")
    assert await forecast_plan(database, 10) == (10, 0)
    assert await forecast_plan(database, 0) == (0, 0)
    assert await forecast_plan(database, 0.499) == (0, 0)
    assert await forecast_plan(database, 0.5) == (1, 0)  # half a user is rounded up
    await set_plan(database, "A", 40)
    assert await forecast_plan(database, 10) == (10, 0)  # the plan before has not begun
    await finish_rollout(database, 1)
    assert await forecast_plan(database, 40) == (0, 0)
    assert await forecast_plan(database, 100) == (60, 0)
    assert await forecast_plan(database, 15) == (0, 25)
    assert await forecast_plan(database, 0) == (0, 40)


async def test_forecast_skips_members_by_hand_and_excluded_users(
    sql: Sql, database: Database
) -> None:
    await store_users(sql, 10)
    await make_segment(sql, "A")
    for user_id in (1, 2):
        await update_manually(database, user_id, add=["A"])
    for user_id in (3, 4, 5):
        await update_manually(database, user_id, remove=["A"])
    assert await forecast_plan(database, 100) == (5, 0)
    await add_membership(sql, 10, 1, ends_in=-HOUR)  # expired, so the user joins again
    assert await forecast_plan(database, 100) == (5, 0)
    await set_plan(database, "A", 100)
    await finish_rollout(database, 1)
    assert await forecast_plan(database, 0) == (0, 5)
    await update_manually(database, 10, add=["A"])
    assert await forecast_plan(database, 0) == (0, 4)


async def test_forecast_of_several_stages(sql: Sql, database: Database) -> None:
    await store_users(sql, 100)
    await make_segment(sql, "A")
    assert await forecast_plan(database, 10, 50) == (50, 0)
    assert await forecast_plan(database, 100, 10) == (10, 0)
    await set_plan(database, "A", 40)
    await finish_rollout(database, 1)
    # 30 members leave in the first stage and join again in the last one
    assert await forecast_plan(database, 10, 60) == (50, 30)
    assert await forecast_plan(database, 0, 60) == (60, 40)
    assert await forecast_plan(database, 60, 20, 30) == (10, 20)
    # 20 users join in the first stage and leave in the last one
    assert await forecast_plan(database, 60, 30) == (0, 10)


async def test_all_members_leave_before_a_first_stage_of_the_future(
    sql: Sql, database: Database
) -> None:
    await store_users(sql, 100)
    await make_segment(sql, "A")
    await set_plan(database, "A", 20)
    await finish_rollout(database, 1)
    first_stage = stage(20, after=HOUR)
    rollout = await dry_run_plan(database, "A", Plan([first_stage]))
    assert counts_of(await RolloutForecaster(database).forecast(rollout)) == (20, 20)
    await set_plan(database, "A", first_stage)
    await finish_rollout(database, 1)
    assert await members(sql, 1) == {}


async def halve_users(sql: Sql, database: Database) -> None:
    """Store 50 users, who were all added by a rollout of segment A at 50 %.

    The other users were deleted, so that a higher percent has a smaller sample.
    """
    await store_users(sql, 100)
    await make_segment(sql, "A")
    await set_plan(database, "A", 50)
    await finish_rollout(database, 1)
    await sql.execute(
        "DELETE FROM users u WHERE NOT EXISTS (SELECT FROM memberships m WHERE m.user_id = u.id)"
    )


async def test_raising_the_percent_keeps_members_beyond_the_sample(
    sql: Sql, database: Database
) -> None:
    await halve_users(sql, database)
    assert await forecast_plan(database, 60) == (0, 0)
    assert await forecast_plan(database, 50) == (0, 25)
    rollout = await dry_run_plan(database, "A", Plan([stage(60, after=HOUR)]))
    # before the first stage, the members of the plan before are removed
    assert counts_of(await RolloutForecaster(database).forecast(rollout)) == (30, 50)
    # the first stage also removes the members beyond the sample of the last one
    assert await forecast_plan(database, 40, 60) == (10, 30)
    await set_plan(database, "A", 40, stage(60, after=timedelta(seconds=STEP_SECONDS)))
    await start_all_stages(sql, database, 1)
    assert len(await members(sql, 1)) == 30


@pytest.mark.parametrize(("skipped", "leaving"), [(55, 0), (80, 20)])
async def test_stage_of_the_past_counts_as_an_earlier_percent(
    sql: Sql, database: Database, skipped: int, leaving: int
) -> None:
    """It has no pass, because another stage is in force when the plan is set."""
    await halve_users(sql, database)
    now = await database_now(sql)
    stages = [stage(skipped, starts_at=now - 2 * HOUR), stage(60, starts_at=now - HOUR)]
    rollout = await dry_run_plan(database, "A", Plan(stages))
    assert counts_of(await RolloutForecaster(database).forecast(rollout)) == (0, leaving)
    await set_plan(database, "A", *stages)
    await finish_rollout(database, 1)
    assert len(await members(sql, 1)) == 50 - leaving


# --- The forecast is limited and blocks nothing ---------------------------------------------------


@pytest.fixture
async def blocker(servers: LocalServers, sql: Sql) -> AsyncIterator[Sql]:
    """Connect as a superuser, for locks that are held until the transaction ends."""
    connection = await asyncpg.connect(with_database(servers.superuser_url, "run"))
    yield connection
    await connection.close()


async def test_forecast_beyond_the_time_limit_is_none(
    sql: Sql, database: Database, blocker: Sql
) -> None:
    await make_segment(sql, "A")
    rollout = await dry_run_plan(database, "A", Plan([stage(50)]))
    forecaster = RolloutForecaster(database, seconds=0.2)
    async with blocker.transaction():
        await blocker.execute("LOCK TABLE memberships IN ACCESS EXCLUSIVE MODE")
        # as many again wait for a slot
        forecasts = [forecaster.forecast(rollout) for _ in range(2 * CONCURRENT_FORECASTS)]
        assert await asyncio.gather(*forecasts) == [None] * 2 * CONCURRENT_FORECASTS
    await until(lambda: is_idle(sql))
    forecaster = RolloutForecaster(database)
    assert await forecaster.forecast(rollout) == RolloutForecast(joining=0, leaving=0)


async def test_waiting_forecast_locks_no_rows_and_few_connections(
    sql: Sql, database: Database, blocker: Sql
) -> None:
    await store_users(sql, 10)
    await make_segment(sql, "A")
    await set_plan(database, "A", 10)
    rollout = await dry_run_plan(database, "A", Plan([stage(50)]))
    forecaster = RolloutForecaster(database, seconds=PATIENCE_SECONDS)
    async with blocker.transaction():
        await blocker.execute("LOCK TABLE memberships IN ACCESS EXCLUSIVE MODE")
        forecasts = [
            asyncio.create_task(forecaster.forecast(rollout))
            for _ in range(CONCURRENT_FORECASTS + 1)
        ]
        await until(lambda: are_waiting(sql, CONCURRENT_FORECASTS))
        async with sql.transaction():
            await sql.execute("SELECT FROM segments FOR UPDATE NOWAIT")
            await sql.execute("SELECT FROM rollouts FOR UPDATE NOWAIT")
            await sql.execute("SELECT FROM users FOR UPDATE NOWAIT")
        assert await are_waiting(sql, CONCURRENT_FORECASTS)
    for forecast in forecasts:
        assert await forecast == RolloutForecast(joining=5, leaving=0)


async def test_one_key_has_one_running_forecast(sql: Sql, database: Database, blocker: Sql) -> None:
    """Other forecasts of the key wait, and leave the second slot to other keys."""
    await store_users(sql, 10)
    await make_segment(sql, "A")
    rollout = await dry_run_plan(database, "A", Plan([stage(50)]))
    forecaster = RolloutForecaster(database, seconds=PATIENCE_SECONDS)

    def start(key_id: str) -> asyncio.Task[RolloutForecast | None]:
        return asyncio.create_task(forecaster.forecast(rollout, key_id=key_id))

    async with blocker.transaction():
        await blocker.execute("LOCK TABLE memberships IN ACCESS EXCLUSIVE MODE")
        same_key = [start("one") for _ in range(CONCURRENT_FORECASTS + 1)]
        await until(lambda: are_waiting(sql, 1))
        await asyncio.sleep(0.1)  # in which a second forecast of the key could start
        assert await are_waiting(sql, 1)
        other_key = start("two")
        await until(lambda: are_waiting(sql, 2))
    for forecast in [*same_key, other_key]:
        assert await forecast == RolloutForecast(joining=5, leaving=0)
    assert not forecaster._key_locks


async def are_waiting(sql: Sql, forecasts: int) -> bool:
    """Return whether this many forecasts run, and wait for a lock."""
    waiting = await sql.fetch(
        """
        SELECT wait_event_type FROM pg_stat_activity
        WHERE application_name = 'tests long' AND datname = current_database() AND state <> 'idle'
        """
    )
    return [row["wait_event_type"] for row in waiting] == ["Lock"] * forecasts


async def is_idle(sql: Sql) -> bool:
    return await are_waiting(sql, 0)
