"""Where a pass begins: every user is of its N or a later one; none is both or neither."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from functools import partial

import asyncpg
import pytest

from segmentql.adapters.database import Database, WriteSession
from segmentql.local import LocalServers, named
from segmentql.rollouts.actors import advance_rollout
from segmentql.rollouts.passes import find_due_rollouts
from segmentql.users.service import create_user
from tests.conftest import Sql, until
from tests.rollouts.helpers import (
    by_hand,
    finish,
    in_range,
    members,
    rollout_of,
    sample_of,
    set_plan,
    store_users,
    stored_users,
    written,
)
from tests.timeline import lies_of_history, make_segment


@pytest.fixture
async def other(servers: LocalServers, sql: Sql) -> AsyncIterator[Sql]:
    """Another session, for what is not committed yet."""
    connection = await asyncpg.connect(named(servers.superuser_url, "run"))
    yield connection
    await connection.close()


@pytest.fixture
async def third(servers: LocalServers, sql: Sql) -> AsyncIterator[Sql]:
    connection = await asyncpg.connect(named(servers.superuser_url, "run"))
    yield connection
    await connection.close()


async def polls(sql: Sql, times: int) -> None:
    """Wait until a pass has asked so many times whether those who were storing users are done."""
    seen = set()

    async def enough() -> bool:
        asked = await sql.fetchval(
            """
            SELECT query_start FROM pg_stat_activity
            WHERE application_name = 'tests long reads' AND query LIKE '%FROM pg_locks%'
            """
        )
        seen.add(asked)
        return len(seen - {None}) >= times

    await until(enough)


async def test_who_was_being_stored_when_a_pass_began_is_waited_for_and_later_ones_are_not(
    sql: Sql, database: Database, other: Sql, third: Sql
) -> None:
    segment_id = await make_segment(sql, "A")
    before, after = other.transaction(), third.transaction()
    await before.start()
    await store_users(other, 2)  # nobody has a plan yet, so that the trigger puts in nobody
    await set_plan(database, "A", 100)
    await store_users(sql, 1, first=3)  # at once
    working = asyncio.create_task(advance_rollout(database, segment_id))
    await polls(sql, 3)
    await after.start()
    await store_users(third, 1, first=4)
    await polls(sql, 3)
    assert await written(sql, segment_id) == {("JOINED", "ROLLOUT"): 1}
    assert not working.done()
    await before.commit()
    await working
    assert set(await members(sql, segment_id)) == {1, 2, 3}
    rollout = await rollout_of(database, segment_id)
    assert (rollout.status, rollout.users_total) == ("COMPLETED", 3)
    await after.commit()
    assert set(await members(sql, segment_id)) == {1, 2, 3, 4}
    assert await written(sql, segment_id) == {("JOINED", "ROLLOUT"): 4}
    assert await lies_of_history(sql) == {}


async def test_who_was_being_stored_and_is_not_after_all_is_not_counted(
    sql: Sql, database: Database, other: Sql
) -> None:
    segment_id = await make_segment(sql, "A")
    await store_users(sql, 1)
    storing = other.transaction()
    await storing.start()
    await store_users(other, 9, first=2)
    await set_plan(database, "A", 50)
    working = asyncio.create_task(advance_rollout(database, segment_id))
    await polls(sql, 2)
    await storing.rollback()
    await working
    assert set(await members(sql, segment_id)) == {1}
    assert (await rollout_of(database, segment_id)).users_total == 1


@pytest.mark.e2e  # for the half minute that it takes
async def test_a_pass_that_cannot_begin_for_long_is_left_to_the_scheduler_and_has_not_failed(
    sql: Sql, database: Database, other: Sql
) -> None:
    segment_id = await make_segment(sql, "A")
    storing = other.transaction()
    await storing.start()
    await store_users(other, 2)
    await set_plan(database, "A", 100)
    await advance_rollout(database, segment_id)
    assert await members(sql, segment_id) == {}
    waiting = await sql.fetchrow("SELECT phase::text, state::text, failures FROM rollouts")
    assert waiting is not None
    assert tuple(waiting) == ("SAMPLING", "ACTIVE", 0)
    async with database.read() as session:
        assert await find_due_rollouts(session) == [segment_id]
    await storing.commit()
    await advance_rollout(database, segment_id)
    assert set(await members(sql, segment_id)) == {1, 2}


@pytest.mark.parametrize("percent", [100, 30])
async def test_users_stored_while_passes_begin_and_end_are_each_met_exactly_once(
    sql: Sql, database: Database, percent: int
) -> None:
    segment_id = await make_segment(sql, "A")
    await set_plan(database, "A", percent)
    numbers = itertools.count(1)
    passes_over = asyncio.Event()

    async def several(session: WriteSession, user_ids: list[int]) -> None:
        for user_id in user_ids:  # statement by statement, so that it takes its time
            await create_user(session, user_id)

    async def storing() -> None:
        last_round = False
        while not last_round:
            last_round = passes_over.is_set()
            await by_hand(database, next(numbers))
            user_ids = [next(numbers) for _ in range(3)]
            await database.transaction(partial(several, user_ids=user_ids))

    async def work() -> None:
        for _ in range(15):
            await set_plan(database, "A", percent)
            await finish(database, segment_id)
        passes_over.set()

    await asyncio.gather(work(), *(storing() for _ in range(5)))
    users = await stored_users(sql)
    last_arrival = await sql.fetchval("SELECT last_arrival FROM rollouts")
    earlier = {user_id for user_id, arrival in users.items() if arrival <= last_arrival}
    later = users.keys() - earlier
    assert len(later) >= 5 * 4
    assert set(await members(sql, segment_id)) == (
        sample_of(segment_id, earlier, percent)
        | {user_id for user_id in later if in_range(segment_id, user_id, percent)}
    )
    if percent == 100:
        assert await written(sql, segment_id) == {("JOINED", "ROLLOUT"): len(users)}
    assert await lies_of_history(sql) == {}
