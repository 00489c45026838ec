"""Workers record the leaves of deleted segments, in chunks and once."""

import asyncio
from functools import partial

import pytest

from segmentql.adapters.database import Database
from segmentql.adapters.jobs import Message
from segmentql.memberships import actors, expiry
from segmentql.principal import NO_ACTOR, Actor
from segmentql.rollouts.service import delete_segment_with_rollout as delete_segment
from segmentql.segments.jobs import RECORD_SEGMENT_LEAVES
from segmentql.users.service import delete_user
from tests.conftest import Sql, until
from tests.memberships.expiry_helpers import (
    MINUTE,
    has_expired,
    has_lock_waiter,
    is_waiting_or_done,
    members,
    record_leaves,
)
from tests.timeline import (
    SECOND,
    add_members,
    add_membership,
    history_entries,
    history_inconsistencies,
    make_segment,
    mark_deleted,
)


async def test_leaves_of_a_deleted_segment_are_recorded_in_chunks(
    sql: Sql, database: Database
) -> None:
    deleted_segment, stays = await make_segment(sql, "A"), await make_segment(sql, "B")
    await add_members(sql, deleted_segment, 7)
    await add_members(sql, stays, 2)
    for user_id in (1, 2, 3, 4):
        await sql.execute("INSERT INTO exclusions VALUES ($1, $2, now())", user_id, deleted_segment)
    await sql.execute("INSERT INTO exclusions VALUES (3, $1, now())", stays)
    deleted_at = await mark_deleted(sql, deleted_segment, ago=MINUTE, by="ada")

    async def left() -> list[int]:
        rows = await sql.fetch("SELECT * FROM history WHERE operation = 'LEFT' ORDER BY user_id")
        assert {(row["at"], row["cause"], row["actor"]) for row in rows} == {
            (deleted_at, "SEGMENT_DELETED", "ada")
        }
        return [row["user_id"] for row in rows]

    async def rest() -> tuple[int, bool]:
        row = await sql.fetchrow(
            "SELECT (SELECT count(*) FROM exclusions WHERE segment_id = $1),"
            " leaves_recorded_at IS NULL FROM segments WHERE id = $1",
            deleted_segment,
        )
        assert row is not None
        return row[0], row[1]

    step = record_leaves(deleted_segment, 3)
    assert await database.transaction(step) is True
    assert (await left(), await rest()) == ([1, 2, 3], (4, True))
    assert await database.transaction(step) is True
    assert (await left(), await rest()) == ([1, 2, 3, 4, 5, 6], (4, True))
    assert await database.transaction(step) is True
    assert (await left(), await rest()) == ([1, 2, 3, 4, 5, 6, 7], (4, True))
    assert await database.transaction(step) is True
    assert (await rest()) == (1, True)
    assert await database.transaction(step) is True
    assert (await rest()) == (0, True)
    assert await database.transaction(step) is False
    assert (await rest()) == (0, False)
    assert await members(sql) == [1, 2]
    assert await sql.fetchval("SELECT user_id FROM exclusions") == 3
    assert await history_inconsistencies(sql) == {}


async def test_recording_is_idempotent(sql: Sql, database: Database) -> None:
    deleted_segment = await make_segment(sql, "A")
    await add_members(sql, deleted_segment, 2)
    await mark_deleted(sql, deleted_segment)
    await actors.record_segment_leaves(database, deleted_segment)
    before = await history_entries(sql), await sql.fetch("SELECT * FROM segments")
    await actors.record_segment_leaves(database, deleted_segment)
    assert (await history_entries(sql), await sql.fetch("SELECT * FROM segments")) == before


@pytest.mark.parametrize("segment_id", [1, 404])
async def test_active_or_unknown_segment_is_not_changed(
    sql: Sql, database: Database, segment_id: int
) -> None:
    assert await make_segment(sql, "A") == 1
    await add_members(sql, 1, 2)
    await sql.execute("INSERT INTO exclusions SELECT 1, 1, now()")
    before = await sql.fetch("SELECT * FROM segments")
    await actors.record_segment_leaves(database, segment_id)
    assert await members(sql) == [1, 2]
    assert await sql.fetchval("SELECT count(*) FROM exclusions") == 1
    assert await sql.fetch("SELECT * FROM segments") == before


async def test_recording_of_a_segment_waits_for_a_locked_row(
    sql: Sql, database: Database, other: Sql
) -> None:
    deleted_segment = await make_segment(sql, "A")
    await add_members(sql, deleted_segment, 2)
    await mark_deleted(sql, deleted_segment)
    async with asyncio.TaskGroup() as tasks, other.transaction():
        await other.execute("SELECT FROM memberships WHERE user_id = 2 FOR UPDATE")
        tasks.create_task(actors.record_segment_leaves(database, deleted_segment))
        await until(partial(has_lock_waiter, sql))
        assert await sql.fetchval("SELECT leaves_recorded_at FROM segments") is None
        assert await actors.find_due(database) == [
            Message(RECORD_SEGMENT_LEAVES, (deleted_segment,))
        ]
    assert await members(sql) == []
    assert await actors.find_due(database) == []
    assert await history_inconsistencies(sql) == {}


async def test_segment_of_another_worker_is_skipped(
    sql: Sql, database: Database, other: Sql
) -> None:
    deleted_segment = await make_segment(sql, "A")
    await add_members(sql, deleted_segment, 2)
    await mark_deleted(sql, deleted_segment)
    async with other.transaction():
        await other.execute("SELECT FROM segments WHERE id = $1 FOR NO KEY UPDATE", deleted_segment)
        await actors.record_segment_leaves(database, deleted_segment)
        assert await members(sql) == [1, 2]
    await actors.record_segment_leaves(database, deleted_segment)
    assert await members(sql) == []


async def test_concurrent_workers_record_each_leave_once(sql: Sql, database: Database) -> None:
    deleted_segment = await make_segment(sql, "A")
    await add_members(sql, deleted_segment, 200)
    await mark_deleted(sql, deleted_segment)

    async def work() -> None:
        while await remaining_count():
            await database.transaction(record_leaves(deleted_segment, 10))

    async def remaining_count() -> bool:
        async with database.read() as session:
            return bool(await expiry.segments_with_unrecorded_leaves(session))

    await asyncio.gather(*(work() for _ in range(4)))
    assert await sql.fetchval("SELECT count(*) FROM history WHERE operation = 'LEFT'") == 200
    assert await history_inconsistencies(sql) == {}


async def test_deleting_a_segment_and_its_member_keeps_history_in_order(
    sql: Sql, database: Database, other: Sql
) -> None:
    segment_id = await make_segment(sql, "A")
    await add_membership(sql, 7, segment_id)
    async with asyncio.TaskGroup() as tasks, other.transaction():
        # These are the steps of deleteSegment between reading the clock and its commit.
        await other.execute("SELECT FROM segments WHERE id = $1 FOR UPDATE", segment_id)
        deleted_at = await mark_deleted(other, segment_id)
        task = tasks.create_task(
            database.transaction(partial(delete_user, user_id=7, actor=Actor("ada")))
        )
        await until(partial(is_waiting_or_done, sql, task))
    left = (await history_entries(sql))[-1]
    assert (left.operation, left.cause, left.at) == ("LEFT", "SEGMENT_DELETED", deleted_at)
    assert await history_inconsistencies(sql) == {}


async def test_segment_deleted_just_before_an_expiry_keeps_the_order(
    sql: Sql, database: Database, other: Sql
) -> None:
    segment_id = await make_segment(sql, "A")
    membership = await add_membership(sql, 7, segment_id, ends_in=SECOND / 4)
    async with asyncio.TaskGroup() as tasks, other.transaction():
        await other.execute("SELECT FROM segments WHERE id = $1 FOR UPDATE", segment_id)
        deleted_at = await mark_deleted(other, segment_id)
        assert deleted_at < membership["expires_at"]
        await until(partial(has_expired, sql, membership["expires_at"]))
        task = tasks.create_task(database.transaction(expiry.expire_due))
        await until(partial(is_waiting_or_done, sql, task))
    await actors.record_segment_leaves(database, segment_id)
    left = (await history_entries(sql))[-1]
    assert (left.operation, left.cause, left.at) == ("LEFT", "SEGMENT_DELETED", deleted_at)
    assert await history_inconsistencies(sql) == {}


async def test_deleting_a_segment_sends_a_message_to_record_leaves(
    sql: Sql, database: Database, sent: list[Message]
) -> None:
    segment_id = await make_segment(sql, "A")
    await database.transaction(
        partial(delete_segment, slug="A", expected_version=None, actor=NO_ACTOR)
    )
    assert sent == [Message(RECORD_SEGMENT_LEAVES, (segment_id,))]
