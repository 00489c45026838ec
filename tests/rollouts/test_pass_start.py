"""At the start of a pass, every user is either counted by it or a new user, never both."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from functools import partial

import asyncpg
import pytest

from segmentql.adapters.database import Database
from segmentql.adapters.sessions import WriteSession
from segmentql.local import LocalServers, with_database
from segmentql.principal import NO_ACTOR
from segmentql.rollouts.actors import advance_rollout
from segmentql.rollouts.passes import find_due_rollouts
from segmentql.users.service import create_user
from tests.conftest import Sql, until
from tests.rollouts.helpers import (
    expected_sample,
    finish_rollout,
    history_counts,
    joins_on_insert,
    members,
    read_rollout,
    set_plan,
    store_users,
    stored_users,
    update_manually,
)
from tests.timeline import history_inconsistencies, make_segment


@pytest.fixture
async def other(servers: LocalServers, sql: Sql) -> AsyncIterator[Sql]:
    """Another session, for uncommitted changes."""
    connection = await asyncpg.connect(with_database(servers.superuser_url, "run"))
    yield connection
    await connection.close()


@pytest.fixture
async def third(servers: LocalServers, sql: Sql) -> AsyncIterator[Sql]:
    connection = await asyncpg.connect(with_database(servers.superuser_url, "run"))
    yield connection
    await connection.close()


async def wait_for_polls(sql: Sql, times: int) -> None:
    """Wait until the pass has polled for in-flight inserts this many times."""
    poll_times = set()

    async def has_polled() -> bool:
        poll_time = await sql.fetchval(
            """
            SELECT query_start FROM pg_stat_activity
            WHERE application_name = 'tests long' AND query LIKE '%FROM pg_locks%'
            """
        )
        poll_times.add(poll_time)
        return len(poll_times - {None}) >= times

    await until(has_polled)


async def test_pass_waits_for_inflight_inserts_but_not_for_later_ones(
    sql: Sql, database: Database, other: Sql, third: Sql
) -> None:
    segment_id = await make_segment(sql, "A")
    before, after = other.transaction(), third.transaction()
    await before.start()
    await store_users(other, 2)  # no plan exists yet, so that the trigger adds no member
    await set_plan(database, "A", 100)
    await store_users(sql, 1, first=3)  # committed
    working = asyncio.create_task(advance_rollout(database, segment_id))
    await wait_for_polls(sql, 3)
    await after.start()
    await store_users(third, 1, first=4)
    await wait_for_polls(sql, 3)
    assert await history_counts(sql, segment_id) == {("JOINED", "ROLLOUT"): 1}
    assert not working.done()
    await before.commit()
    await working
    assert set(await members(sql, segment_id)) == {1, 2, 3}
    rollout = await read_rollout(database, segment_id)
    assert (rollout.status, rollout.users_total) == ("COMPLETED", 3)
    await after.commit()
    assert set(await members(sql, segment_id)) == {1, 2, 3, 4}
    assert await history_counts(sql, segment_id) == {("JOINED", "ROLLOUT"): 4}
    assert await history_inconsistencies(sql) == {}


async def test_rolled_back_inserts_are_not_counted(
    sql: Sql, database: Database, other: Sql
) -> None:
    segment_id = await make_segment(sql, "A")
    await store_users(sql, 1)
    store_in_loop = other.transaction()
    await store_in_loop.start()
    await store_users(other, 9, first=2)
    await set_plan(database, "A", 50)
    working = asyncio.create_task(advance_rollout(database, segment_id))
    await wait_for_polls(sql, 2)
    await store_in_loop.rollback()
    await working
    assert set(await members(sql, segment_id)) == {1}
    assert (await read_rollout(database, segment_id)).users_total == 1


@pytest.mark.e2e  # takes half a minute
async def test_long_inflight_insert_leaves_the_pass_to_the_scheduler(
    sql: Sql, database: Database, other: Sql
) -> None:
    segment_id = await make_segment(sql, "A")
    store_in_loop = other.transaction()
    await store_in_loop.start()
    await store_users(other, 2)
    await set_plan(database, "A", 100)
    await advance_rollout(database, segment_id)
    assert await members(sql, segment_id) == {}
    waiting = await sql.fetchrow("SELECT phase::text, state::text, failures FROM rollouts")
    assert waiting is not None
    assert tuple(waiting) == ("SAMPLING", "ACTIVE", 0)
    async with database.read() as session:
        assert await find_due_rollouts(session) == [segment_id]
    await store_in_loop.commit()
    await advance_rollout(database, segment_id)
    assert set(await members(sql, segment_id)) == {1, 2}


@pytest.mark.parametrize("percent", [100, 30])
async def test_users_stored_during_passes_are_decided_exactly_once(
    sql: Sql, database: Database, percent: int
) -> None:
    segment_id = await make_segment(sql, "A")
    await set_plan(database, "A", percent)
    numbers = itertools.count(1)
    passes_over = asyncio.Event()

    async def create_several(session: WriteSession, user_ids: list[int]) -> None:
        for user_id in user_ids:  # one statement each, so that the transaction takes longer
            await create_user(session, user_id, actor=NO_ACTOR)

    async def store_in_loop() -> None:
        last_round = False
        while not last_round:
            last_round = passes_over.is_set()
            await update_manually(database, next(numbers))
            user_ids = [next(numbers) for _ in range(3)]
            await database.transaction(partial(create_several, user_ids=user_ids))

    async def work() -> None:
        for _ in range(15):
            await set_plan(database, "A", percent)
            await finish_rollout(database, segment_id)
        passes_over.set()

    await asyncio.gather(work(), *(store_in_loop() for _ in range(5)))
    users = await stored_users(sql)
    last_insert_seq = await sql.fetchval("SELECT last_insert_seq FROM rollouts")
    earlier = {user_id for user_id, insert_seq in users.items() if insert_seq <= last_insert_seq}
    later = users.keys() - earlier
    assert len(later) >= 5 * 4
    assert set(await members(sql, segment_id)) == (
        expected_sample(segment_id, earlier, percent)
        | {user_id for user_id in later if joins_on_insert(segment_id, user_id, percent)}
    )
    if percent == 100:
        assert await history_counts(sql, segment_id) == {("JOINED", "ROLLOUT"): len(users)}
    assert await history_inconsistencies(sql) == {}
