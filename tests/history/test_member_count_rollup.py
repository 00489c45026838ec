"""Workers roll up history into sums per segment and hour, and each entry counts once."""

import asyncio
from datetime import timedelta
from functools import partial

from segmentql.adapters.database import Database
from segmentql.adapters.jobs import Message
from segmentql.history.actors import find_new_history, roll_up_member_counts
from segmentql.history.jobs import ROLL_UP_MEMBER_COUNTS
from segmentql.history.member_counts import roll_up
from tests.back_dating import HOUR, NOON, insert_membership, insert_past_membership
from tests.conftest import Api, Sql, recorded_statements, until
from tests.history.count_queries import count, counts, series
from tests.operations import make_segments, update_user_segments

MINUTE = timedelta(minutes=1)


async def sums(sql: Sql) -> list[tuple[int, int, int, int]]:
    """Return the sums of hours as (segment id, hours after noon, joins, leaves)."""
    return [
        (row["segment_id"], (row["hour"] - NOON) // HOUR, row["joins"], row["leaves"])
        for row in await sql.fetch("SELECT * FROM member_count_hours ORDER BY segment_id, hour")
    ]


async def last_position(sql: Sql) -> int:
    """Return the highest position in history. It is settled, because nothing writes now."""
    position: int = await sql.fetchval("SELECT max(position) FROM history")
    return position


async def sums_of_seconds(sql: Sql) -> list[tuple[int, timedelta, int, int]]:
    """Return the sums of seconds as (segment id, time after noon, joins, leaves)."""
    return [
        (row["segment_id"], row["second"] - NOON, row["joins"], row["leaves"])
        for row in await sql.fetch("SELECT * FROM member_count_seconds ORDER BY segment_id, second")
    ]


async def insert_three_memberships(api: Api, sql: Sql) -> None:
    """Insert the history of three memberships: six entries."""
    await make_segments(api, "A", "B")
    await insert_past_membership(sql, 1, "A", joined_at=NOON, left_at=NOON + HOUR)
    await insert_past_membership(sql, 2, "A", joined_at=NOON + MINUTE, left_at=NOON + 59 * MINUTE)
    await insert_past_membership(sql, 1, "B", joined_at=NOON - MINUTE, left_at=NOON + HOUR)


ALL_SUMS = [(1, 0, 2, 1), (1, 1, 0, 1), (2, -1, 1, 0), (2, 1, 0, 1)]


async def test_sums_have_the_joins_and_leaves_of_each_segment_and_hour(
    api: Api, sql: Sql, database: Database
) -> None:
    await insert_three_memberships(api, sql)
    assert await find_new_history(database) == [Message(ROLL_UP_MEMBER_COUNTS)]
    await roll_up_member_counts(database)
    assert await sums(sql) == ALL_SUMS
    assert await find_new_history(database) == []
    await roll_up_member_counts(database)
    assert await sums(sql) == ALL_SUMS


async def test_chunks_add_each_entry_once(api: Api, sql: Sql, database: Database) -> None:
    await insert_three_memberships(api, sql)
    settled = await last_position(sql)
    more = [await database.transaction(partial(roll_up, settled=settled, rows=4)) for _ in range(3)]
    assert more == [True, False, False]
    assert await sums(sql) == ALL_SUMS


async def test_entries_after_the_settled_position_are_not_added(
    api: Api, sql: Sql, database: Database
) -> None:
    await insert_three_memberships(api, sql)
    first = await sql.fetchval("SELECT min(position) FROM history")
    assert await database.transaction(partial(roll_up, settled=first)) is False
    assert await sums(sql) == [(1, 0, 1, 0)]
    assert await sql.fetchval("SELECT position FROM member_count_rollup") == first


async def test_lower_settled_position_changes_nothing(
    api: Api, sql: Sql, database: Database
) -> None:
    await insert_three_memberships(api, sql)
    await roll_up_member_counts(database)
    position = await sql.fetchval("SELECT position FROM member_count_rollup")
    assert await database.transaction(partial(roll_up, settled=position - 3)) is False
    assert await sql.fetchval("SELECT position FROM member_count_rollup") == position
    assert await sums(sql) == ALL_SUMS


async def test_concurrent_roll_ups_add_each_entry_once(
    api: Api, sql: Sql, database: Database
) -> None:
    await insert_three_memberships(api, sql)
    await asyncio.gather(*(roll_up_member_counts(database) for _ in range(4)))
    await roll_up_member_counts(database)  # The others may have left the work to one of them.
    assert await sums(sql) == ALL_SUMS


async def test_late_entries_of_a_past_hour_are_added(
    api: Api, sql: Sql, database: Database
) -> None:
    await insert_three_memberships(api, sql)
    await roll_up_member_counts(database)
    await insert_past_membership(sql, 3, "A", joined_at=NOON, left_at=NOON + 3 * HOUR)
    assert counts(await series(api, NOON, NOON + 3 * HOUR, points=4)) == [2, 1, 1, 0]
    await roll_up_member_counts(database)
    assert await sums(sql) == [(1, 0, 3, 1), (1, 1, 0, 1), (1, 3, 0, 1), *ALL_SUMS[2:]]
    assert counts(await series(api, NOON, NOON + 3 * HOUR, points=4)) == [2, 1, 1, 0]


async def test_counts_at_full_hours_survive_a_dropped_partition(
    api: Api, sql: Sql, database: Database
) -> None:
    await make_segments(api, "A")
    await insert_past_membership(sql, 1, "A", joined_at=NOON, left_at=NOON + 3 * HOUR)
    await insert_membership(sql, 2, "A", joined_at=NOON)
    await roll_up_member_counts(database)
    await sql.execute("SET session_replication_role = replica")
    await sql.execute("DELETE FROM history WHERE at < $1", NOON + HOUR)
    await sql.execute("SET session_replication_role = DEFAULT")
    found = await series(api, NOON + HOUR, NOON + 4 * HOUR, points=4)
    assert counts(found) == [2, 2, 1, 1]


async def test_hour_with_many_entries_has_the_sums_of_its_seconds(
    api: Api, sql: Sql, database: Database
) -> None:
    await insert_three_memberships(api, sql)
    limit = partial(roll_up, max_entries_of_hour=3)
    settled = await last_position(sql)
    await database.transaction(partial(limit, settled=settled))
    assert await sums_of_seconds(sql) == []
    second = timedelta(seconds=1)
    for user_id in (3, 4):
        left_at = NOON + MINUTE + user_id * second
        await insert_past_membership(sql, user_id, "A", joined_at=NOON, left_at=left_at)
        settled = await last_position(sql)
        # The first one exceeds the limit, the second one is added to the sums that exist then.
        await database.transaction(partial(limit, settled=settled))
        assert await sums(sql) == [(1, 0, user_id, user_id - 1), *ALL_SUMS[1:]]
        assert await sums_of_seconds(sql) == [
            (1, timedelta(0), user_id - 1, 0),
            (1, MINUTE, 1, 0),
            *((1, MINUTE + leaver * second, 0, 1) for leaver in range(3, user_id + 1)),
            (1, 59 * MINUTE, 0, 1),
        ]


async def test_roll_up_waits_for_transactions_that_write_history(
    api: Api, sql: Sql, database: Database
) -> None:
    await make_segments(api, "A")
    async with sql.transaction():
        await insert_membership(sql, 1, "A", joined_at=NOON)
        await update_user_segments(api, 2, add=["A"])
        with recorded_statements() as statements:
            rolling_up = asyncio.create_task(roll_up_member_counts(database))

            async def has_polled_twice() -> bool:
                return len([text for text in statements if "pg_locks" in text]) > 2

            await until(has_polled_twice)
        assert not rolling_up.done()
        assert await sums(sql) == []
    await rolling_up
    assert await sql.fetchval("SELECT sum(joins)::int FROM member_count_hours") == 2


async def test_rolled_back_entries_count_nothing(api: Api, sql: Sql, database: Database) -> None:
    await make_segments(api, "A")
    transaction = sql.transaction()
    await transaction.start()
    await insert_membership(sql, 1, "A", joined_at=NOON)
    await transaction.rollback()
    await insert_membership(sql, 2, "A", joined_at=NOON)
    await roll_up_member_counts(database)
    assert await sums(sql) == [(1, 0, 1, 0)]
    assert await count(api, NOON + HOUR) == 1
