"""Workers record the leaves of memberships that expired, in order and once."""

import asyncio
from functools import partial

from segmentql.adapters.database import Database
from segmentql.adapters.jobs import Message
from segmentql.memberships import actors, expiry
from segmentql.memberships.jobs import EXPIRE_DUE_MEMBERSHIPS
from segmentql.memberships.records import OnExisting
from tests.conftest import Sql, until
from tests.memberships.expiry_helpers import (
    MINUTE,
    expire_due,
    has_expired,
    has_lock_waiter,
    members,
    update_user_segments,
)
from tests.timeline import (
    HOUR,
    SECOND,
    add_members,
    add_membership,
    history_entries,
    history_inconsistencies,
    make_segment,
)


async def test_due_memberships_end_at_their_expiry(sql: Sql, database: Database) -> None:
    segment_id = await make_segment(sql, "A")
    await add_membership(sql, 1, segment_id)
    await add_membership(sql, 2, segment_id, ends_in=MINUTE)
    due = await add_membership(sql, 3, segment_id, ends_in=-SECOND)
    assert await database.transaction(expiry.expire_due) == 1
    assert await members(sql) == [1, 2]
    assert [
        (e.at, e.user_id, e.membership_id, e.cause) for e in (await history_entries(sql))[-1:]
    ] == [(due["expires_at"], 3, due["id"], "TTL")]
    assert await database.transaction(expiry.expire_due) == 0


async def test_due_memberships_are_recorded_in_batches_oldest_first(
    sql: Sql, database: Database
) -> None:
    segment_id = await make_segment(sql, "A")
    for user_id in range(1, 8):
        await add_membership(sql, user_id, segment_id, ends_in=-user_id * MINUTE)
    assert await database.transaction(expire_due(3)) == 3
    assert await members(sql) == [1, 2, 3, 4]
    assert await database.transaction(expire_due(3)) == 3
    assert await database.transaction(expire_due(3)) == 1
    assert await members(sql) == []
    assert await history_inconsistencies(sql) == {}


async def test_actor_runs_until_no_membership_is_due(sql: Sql, database: Database) -> None:
    segment_id = await make_segment(sql, "A")
    await add_members(sql, segment_id, expiry.BATCH_ROWS + 10)
    await sql.execute("UPDATE memberships SET expires_at = joined_at + interval '1 minute'")
    await actors.expire_due_memberships(database)
    assert await members(sql) == []
    assert await sql.fetchval("SELECT count(*) FROM history") == 2 * (expiry.BATCH_ROWS + 10)
    assert await history_inconsistencies(sql) == {}


async def test_locked_row_is_skipped(sql: Sql, database: Database, other: Sql) -> None:
    segment_id = await make_segment(sql, "A")
    for user_id in (1, 2, 3):
        await add_membership(sql, user_id, segment_id, ends_in=-SECOND)
    async with other.transaction():
        await other.execute("SELECT FROM memberships WHERE user_id = 2 FOR UPDATE")
        assert await database.transaction(expiry.expire_due) == 2
        assert await members(sql) == [2]
    assert await database.transaction(expiry.expire_due) == 1


async def test_concurrent_workers_end_each_membership_once(sql: Sql, database: Database) -> None:
    segment_id = await make_segment(sql, "A")
    await add_members(sql, segment_id, 400)
    await sql.execute("UPDATE memberships SET expires_at = joined_at + interval '1 minute'")

    async def work() -> int:
        total = 0
        while ended := await database.transaction(expire_due(20)):
            total += ended
        return total

    assert sum(await asyncio.gather(*(work() for _ in range(6)))) == 400
    assert await sql.fetchval("SELECT count(*) FROM history WHERE operation = 'LEFT'") == 400
    assert await history_inconsistencies(sql) == {}


async def test_old_message_does_not_end_a_renewed_membership(
    sql: Sql, database: Database, sent: list[Message]
) -> None:
    await make_segment(sql, "A")
    add = partial(update_user_segments, user_id=7, add=["A"], remove=[])
    await database.transaction(partial(add, ttl=3 * SECOND))
    assert sent == [Message(EXPIRE_DUE_MEMBERSHIPS, delay_seconds=3)]
    await database.transaction(partial(add, ttl=HOUR))
    await actors.expire_due_memberships(database)
    assert await members(sql) == [7]
    await database.transaction(partial(add, on_existing=OnExisting.REPLACE))
    await actors.expire_due_memberships(database)
    assert await members(sql) == [7]
    assert [entry.operation for entry in await history_entries(sql)] == ["JOINED"]


async def test_only_an_end_within_a_minute_sends_a_message(
    sql: Sql, database: Database, sent: list[Message]
) -> None:
    for slug in ("A", "B", "C"):
        await make_segment(sql, slug)
    for slug, ttl in (("A", 61 * SECOND), ("B", 60 * SECOND), ("C", None)):
        await database.transaction(
            partial(update_user_segments, user_id=7, add=[slug], remove=[], ttl=ttl)
        )
    assert sent == [Message(EXPIRE_DUE_MEMBERSHIPS, delay_seconds=60)]


async def test_rejoin_records_the_unrecorded_leave_first(sql: Sql, database: Database) -> None:
    segment_id = await make_segment(sql, "A")
    old = await add_membership(sql, 7, segment_id, ends_in=-SECOND)
    changed = await database.transaction(
        partial(update_user_segments, user_id=7, add=["A"], remove=[])
    )
    assert (changed.added, changed.extended) == (1, 0)
    await actors.expire_due_memberships(database)
    assert [
        (e.operation, e.cause, e.membership_id == old["id"]) for e in await history_entries(sql)
    ] == [
        ("JOINED", "MANUAL", True),
        ("LEFT", "TTL", True),
        ("JOINED", "MANUAL", False),
    ]
    assert (await history_entries(sql))[1].at == old["expires_at"]
    assert await history_inconsistencies(sql) == {}


async def test_expiry_during_a_change_is_recorded_in_order(
    sql: Sql, database: Database, other: Sql
) -> None:
    changed_segment, segment_id = await make_segment(sql, "A"), await make_segment(sql, "B")
    await add_membership(sql, 7, changed_segment, ends_in=HOUR)
    membership = await add_membership(sql, 7, segment_id, ends_in=SECOND / 2)
    add = partial(update_user_segments, user_id=7, add=["A", "B"], remove=[])
    async with asyncio.TaskGroup() as tasks, other.transaction():
        # The change has read the clock and waits for the first of its two rows ...
        await other.execute(
            "SELECT FROM memberships WHERE segment_id = $1 FOR UPDATE", changed_segment
        )
        tasks.create_task(database.transaction(add))
        await until(partial(has_lock_waiter, sql))
        # ... while the second membership expires, and a worker runs.
        await until(partial(has_expired, sql, membership["expires_at"]))
        await database.transaction(expiry.expire_due)
    assert await history_inconsistencies(sql) == {}
    # The change came before the end, so the membership continues.
    row = await sql.fetchrow("SELECT id, expires_at FROM memberships WHERE segment_id = 2")
    assert row is not None
    assert tuple(row) == (membership["id"], None)


async def test_expiry_of_a_locked_user_is_postponed(
    sql: Sql, database: Database, other: Sql
) -> None:
    segment_id = await make_segment(sql, "A")
    await add_membership(sql, 1, segment_id, ends_in=-SECOND)
    await add_membership(sql, 2, segment_id, ends_in=-SECOND)
    async with other.transaction():
        await other.execute("SELECT FROM users WHERE id = 1 FOR NO KEY UPDATE")
        assert await database.transaction(expiry.expire_due) == 1
        assert await members(sql) == [1]
    assert await database.transaction(expiry.expire_due) == 1
