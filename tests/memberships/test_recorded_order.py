"""A change of a user records the leaves of expired memberships first; workers keep the order."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from typing import Final

import pytest
from sqlalchemy import text

from segmentql.adapters.database import Database
from segmentql.adapters.sessions import WriteSession
from segmentql.imports.removals import (
    PlannedRemoval,
    remove_as_planned,
    remove_without_exclusion,
)
from segmentql.memberships import actors, expiry
from segmentql.memberships.bulk_locks import lock_users
from segmentql.memberships.records import MemberLists
from segmentql.memberships.segment_members import update_segment_members
from segmentql.memberships.service import update_user_segments
from segmentql.principal import NO_ACTOR
from segmentql.rollouts.actors import advance_rollout
from segmentql.users.service import delete_user
from tests.conftest import Sql
from tests.rollouts.helpers import set_plan
from tests.timeline import (
    HOUR,
    MICROSECOND,
    SECOND,
    add_membership,
    database_now,
    entries_out_of_order,
    history_entries,
    history_inconsistencies,
    make_segment,
    mark_deleted,
)

Change = Callable[[Database, int], Awaitable[None]]
"""Changes the membership of the user 7 in the segment "CHANGED" with the given id."""

USER: Final = 7
MEMBERSHIP: Final = text("SELECT id, updated_at FROM memberships WHERE segment_id = :segment_id")


async def add_by_hand(database: Database, _: int) -> None:
    await database.transaction(
        partial(update_user_segments, user_id=USER, add=["CHANGED"], remove=[], actor=NO_ACTOR)
    )


async def remove_by_hand(database: Database, _: int) -> None:
    await database.transaction(
        partial(update_user_segments, user_id=USER, add=[], remove=["CHANGED"], actor=NO_ACTOR)
    )


async def rejoin_expired(database: Database, _: int) -> None:
    """Rejoin a segment whose membership has expired, and leave another one."""
    await database.transaction(
        partial(
            update_user_segments,
            user_id=USER,
            add=["EXPIRED-1"],
            remove=["CHANGED"],
            actor=NO_ACTOR,
        )
    )


async def remove_expired(database: Database, _: int) -> None:
    await database.transaction(
        partial(
            update_user_segments,
            user_id=USER,
            add=["CHANGED"],
            remove=["EXPIRED-2"],
            actor=NO_ACTOR,
        )
    )


async def add_in_bulk(database: Database, _: int) -> None:
    lists = MemberLists(add=[USER, 8])
    await database.transaction(partial(update_segment_members, slug="CHANGED", lists=lists))


async def remove_in_bulk(database: Database, _: int) -> None:
    lists = MemberLists(add=[8], remove=[USER])
    await database.transaction(partial(update_segment_members, slug="CHANGED", lists=lists))


async def remove_by_import(database: Database, segment_id: int) -> None:
    await database.transaction(
        partial(
            remove_without_exclusion,
            segment_id=segment_id,
            user_ids=[USER],
            actor=NO_ACTOR,
            import_id=1,
        )
    )


async def replace_by_import(database: Database, segment_id: int) -> None:
    async def work(session: WriteSession) -> None:
        row = (await session.execute(MEMBERSHIP, {"segment_id": segment_id})).one()
        await remove_as_planned(
            session,
            segment_id=segment_id,
            planned=[PlannedRemoval(USER, row.id, row.updated_at)],
            actor=NO_ACTOR,
            import_id=1,
        )

    await database.transaction(work)


async def roll_out(database: Database, segment_id: int) -> None:
    await set_plan(database, "CHANGED", 100)
    await advance_rollout(database, segment_id)


async def delete(database: Database, _: int) -> None:
    await database.transaction(partial(delete_user, user_id=USER, actor=NO_ACTOR))


JOINS: Final = (add_by_hand, remove_expired, add_in_bulk, roll_out)
LEAVES: Final = (
    remove_by_hand,
    rejoin_expired,
    remove_in_bulk,
    remove_by_import,
    replace_by_import,
    delete,
)


@pytest.mark.parametrize("change", [*JOINS, *LEAVES])
async def test_change_first_records_leaves_of_its_user(
    sql: Sql, database: Database, change: Change
) -> None:
    """No worker has recorded two leaves, and one leave of a deleted segment."""
    segment_id = await make_segment(sql, "CHANGED")
    await add_membership(sql, USER, await make_segment(sql, "ACTIVE"), joined_ago=4 * HOUR)
    if change in LEAVES:
        await add_membership(sql, USER, segment_id, joined_ago=3 * HOUR)
    expired = [await make_segment(sql, slug) for slug in ("EXPIRED-1", "EXPIRED-2", "DELETED")]
    for number, expired_id in enumerate(expired):
        await add_membership(sql, USER, expired_id, ends_in=-HOUR + number * timedelta(minutes=1))
    await mark_deleted(sql, expired[2], ago=timedelta(minutes=1))

    await change(database, segment_id)
    leaves = await sql.fetch("SELECT segment_id FROM history WHERE cause = 'TTL' ORDER BY position")
    assert [row["segment_id"] for row in leaves] == expired
    assert await database.transaction(expiry.expire_due) == 0
    await actors.record_segment_leaves(database, expired[2])
    assert await entries_out_of_order(sql) == []
    assert await history_inconsistencies(sql) == {}
    newest = await sql.fetchrow("SELECT * FROM history ORDER BY position DESC LIMIT 1")
    assert newest is not None
    assert newest["cause"] != "TTL"


async def test_leaves_of_other_users_are_left_to_workers(sql: Sql, database: Database) -> None:
    await make_segment(sql, "CHANGED")
    await add_membership(sql, 8, await make_segment(sql, "A"), ends_in=-HOUR)
    await add_by_hand(database, 0)
    assert await sql.fetchval("SELECT count(*) FROM history WHERE cause = 'TTL'") == 0
    assert await database.transaction(expiry.expire_due) == 1


async def test_leaf_that_expires_at_the_time_of_the_change_is_recorded_first(
    sql: Sql, database: Database
) -> None:
    """The clock was set back, so that the change comes a microsecond after the newest entry."""
    await make_segment(sql, "CHANGED")
    ahead = await database_now(sql) + HOUR
    other, expiring = await make_segment(sql, "A"), await make_segment(sql, "B")
    await add_membership(sql, USER, other, joined_ago=-HOUR)
    newest = await sql.fetchval("SELECT max(at) FROM history")
    assert newest > ahead
    row = await add_membership(sql, USER, expiring)
    end = newest + MICROSECOND
    await sql.execute("UPDATE memberships SET expires_at = $1 WHERE id = $2", end, row["id"])

    await add_by_hand(database, 0)
    entries = await sql.fetch("SELECT * FROM history ORDER BY position DESC LIMIT 2")
    assert [(entry["operation"], entry["at"]) for entry in entries] == [
        ("JOINED", end + MICROSECOND),
        ("LEFT", end),
    ]


async def test_worker_records_leaves_of_a_user_in_order_of_time(
    sql: Sql, database: Database
) -> None:
    for number in range(6):
        segment_id = await make_segment(sql, f"S{number}")
        ends_in = -HOUR + (number * 5 % 6) * SECOND
        await add_membership(sql, USER, segment_id, ends_in=ends_in)
    for _ in range(3):
        assert await database.transaction(partial(expiry.expire_due, rows=2)) == 2
    assert await entries_out_of_order(sql) == []


async def test_worker_skips_a_user_whose_leaves_another_worker_records(
    sql: Sql, database: Database
) -> None:
    for number in range(2):
        await add_membership(
            sql, USER, await make_segment(sql, f"S{number}"), ends_in=-HOUR + number * SECOND
        )
    recorded, finish = asyncio.Event(), asyncio.Event()

    async def record_slowly(session: WriteSession) -> None:
        assert await expiry.expire_due(session, rows=1) == 1
        recorded.set()
        await finish.wait()

    first = asyncio.create_task(database.transaction(record_slowly))
    await recorded.wait()
    try:
        assert await database.transaction(expiry.expire_due) == 0
    finally:
        finish.set()
        await first
    assert await database.transaction(expiry.expire_due) == 1
    assert await entries_out_of_order(sql) == []


async def test_leaves_by_ttl_of_a_deleted_segment_are_in_order(
    sql: Sql, database: Database
) -> None:
    """The membership in the deleted segment expired before the deletion, and after another one."""
    first, deleted = await make_segment(sql, "FIRST"), await make_segment(sql, "DELETED")
    await add_membership(sql, USER, first, joined_ago=3 * HOUR, ends_in=-2 * HOUR)
    await add_membership(sql, USER, deleted, joined_ago=3 * HOUR, ends_in=-HOUR)
    await mark_deleted(sql, deleted)
    await actors.record_segment_leaves(database, deleted)
    assert [entry.segment_id for entry in await history_entries(sql)][2:] == [first, deleted]
    assert await entries_out_of_order(sql) == []


async def test_segment_is_finished_later_if_its_last_member_is_locked(
    sql: Sql, database: Database
) -> None:
    deleted = await make_segment(sql, "DELETED")
    await add_membership(sql, USER, deleted, ends_in=-HOUR)
    await mark_deleted(sql, deleted)
    locked, finish = asyncio.Event(), asyncio.Event()

    async def lock(session: WriteSession) -> None:
        await lock_users(session, find_ids=[USER])
        locked.set()
        await finish.wait()

    holder = asyncio.create_task(database.transaction(lock))
    await locked.wait()
    try:
        await actors.record_segment_leaves(database, deleted)
        async with database.read() as session:
            assert await expiry.segments_with_unrecorded_leaves(session) == [deleted]
    finally:
        finish.set()
        await holder
    await actors.record_segment_leaves(database, deleted)
    async with database.read() as session:
        assert await expiry.segments_with_unrecorded_leaves(session) == []
    assert [entry.cause for entry in await history_entries(sql)] == ["MANUAL", "TTL"]
