"""Memberships expire: reads hide them at once, and workers record the leaves later."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import asyncpg
import pytest

from segmentql.adapters.database import Database
from segmentql.adapters.jobs import Message
from segmentql.adapters.sessions import WriteSession
from segmentql.local import LocalServers, with_database
from segmentql.memberships import actors, expiry, service
from segmentql.memberships.jobs import EXPIRE_DUE_MEMBERSHIPS
from segmentql.memberships.records import OnExisting
from segmentql.principal import NO_ACTOR, Actor
from segmentql.rollouts.service import delete_segment_with_rollout as delete_segment
from segmentql.segments.jobs import RECORD_SEGMENT_LEAVES
from segmentql.users.service import delete_user
from tests.conftest import Api, Sql, until
from tests.timeline import (
    HOUR,
    SECOND,
    add_members,
    add_membership,
    database_now,
    history_entries,
    history_inconsistencies,
    make_segment,
    make_users,
    mark_deleted,
)

MINUTE = timedelta(minutes=1)


update_user_segments = partial(service.update_user_segments, actor=NO_ACTOR)


@pytest.fixture
async def other(servers: LocalServers, sql: Sql) -> AsyncIterator[Sql]:
    """Open another session for conflicting locks."""
    connection = await asyncpg.connect(with_database(servers.superuser_url, "run"))
    yield connection
    await connection.close()


async def members(sql: Sql) -> list[int]:
    return [row["user_id"] for row in await sql.fetch("SELECT * FROM memberships ORDER BY 1, 2")]


def expire_due(rows: int) -> Callable[[WriteSession], Awaitable[int]]:
    return partial(expiry.expire_due, rows=rows)


def record_leaves(segment_id: int, rows: int) -> Callable[[WriteSession], Awaitable[bool]]:
    return partial(expiry.record_segment_leaves, segment_id=segment_id, rows=rows)


# --- Expiry by TTL --------------------------------------------------------------------------------


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


async def _has_lock_waiter(sql: Sql) -> bool:
    return bool(
        await sql.fetchval(
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE application_name = 'tests' AND wait_event_type = 'Lock'"
        )
    )


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
        await until(partial(_has_lock_waiter, sql))
        # ... while the second membership expires, and a worker runs.
        await until(partial(_has_expired, sql, membership["expires_at"]))
        await database.transaction(expiry.expire_due)
    assert await history_inconsistencies(sql) == {}
    # The change came before the end, so the membership continues.
    row = await sql.fetchrow("SELECT id, expires_at FROM memberships WHERE segment_id = 2")
    assert row is not None
    assert tuple(row) == (membership["id"], None)


async def _has_expired(sql: Sql, moment: datetime) -> bool:
    return moment < await database_now(sql)


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


# --- Leaves of deleted segments -------------------------------------------------------------------


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
        await until(partial(_has_lock_waiter, sql))
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
        await until(partial(_is_waiting_or_done, sql, task))
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
        await until(partial(_has_expired, sql, membership["expires_at"]))
        task = tasks.create_task(database.transaction(expiry.expire_due))
        await until(partial(_is_waiting_or_done, sql, task))
    await actors.record_segment_leaves(database, segment_id)
    left = (await history_entries(sql))[-1]
    assert (left.operation, left.cause, left.at) == ("LEFT", "SEGMENT_DELETED", deleted_at)
    assert await history_inconsistencies(sql) == {}


async def _is_waiting_or_done(sql: Sql, task: "asyncio.Task[Any]") -> bool:
    return task.done() or await _has_lock_waiter(sql)


# --- Scheduler checks and metrics -----------------------------------------------------------------


async def test_scheduler_gets_the_time_of_the_next_expiry(sql: Sql, database: Database) -> None:
    assert await actors.seconds_to_next(database) is None
    segment_id = await make_segment(sql, "A")
    await add_membership(sql, 1, segment_id)
    assert await actors.seconds_to_next(database) is None
    await add_membership(sql, 2, segment_id, ends_in=MINUTE)
    await add_membership(sql, 3, segment_id, ends_in=60 * MINUTE)
    seconds = await actors.seconds_to_next(database)
    assert seconds is not None
    assert 0 < seconds <= 60
    await add_membership(sql, 4, segment_id, ends_in=-SECOND)
    seconds = await actors.seconds_to_next(database)
    assert seconds is not None
    assert seconds < 0


async def test_check_finds_unrecorded_leaves(sql: Sql, database: Database) -> None:
    assert await actors.find_due(database) == []
    alive, deleted_segment = await make_segment(sql, "A"), await make_segment(sql, "B")
    await add_membership(sql, 1, alive)
    await add_membership(sql, 2, alive, ends_in=MINUTE)
    assert await actors.find_due(database) == []
    await add_membership(sql, 3, alive, ends_in=-SECOND)
    assert await actors.find_due(database) == [Message(EXPIRE_DUE_MEMBERSHIPS)]
    await add_membership(sql, 4, deleted_segment)
    await mark_deleted(sql, deleted_segment)
    assert await actors.find_due(database) == [
        Message(EXPIRE_DUE_MEMBERSHIPS),
        Message(RECORD_SEGMENT_LEAVES, (deleted_segment,)),
    ]
    async with database.read() as session:
        due = await expiry.unrecorded(session)
    assert (due.by_ttl, due.by_segment) == (1, 1)


async def test_deleting_a_segment_sends_a_message_to_record_leaves(
    sql: Sql, database: Database, sent: list[Message]
) -> None:
    segment_id = await make_segment(sql, "A")
    await database.transaction(
        partial(delete_segment, slug="A", expected_version=None, actor=NO_ACTOR)
    )
    assert sent == [Message(RECORD_SEGMENT_LEAVES, (segment_id,))]


# --- Reads ----------------------------------------------------------------------------------------

READ = """
query($asOf: DateTime) {
  user(id: 7) {
    segments { slug } past: segments(asOf: $asOf) { slug } memberships { id } isIn(slug: "A")
    membership(slug: "A") { id }
    history { nodes { id operation at recordedAt cause actor segment { slug deletedAt } } }
  }
  segment(slug: "A") { memberCount members { nodes { user { id } } } }
  history { nodes { id operation at recordedAt cause actor segment { slug } } }
}
"""


def alternative_documents(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def is_in_no_segment(body: Any) -> bool:
    user = body["user"]
    state = (user["segments"], user["memberships"], user["isIn"], user["membership"])
    return state == ([], [], False, None)


async def test_expired_membership_is_hidden_before_the_worker_runs(
    api: Api, sql: Sql, database: Database
) -> None:
    segment_id = await make_segment(sql, "A")
    membership = await add_membership(sql, 7, segment_id, ends_in=-SECOND / 1000)
    end = membership["expires_at"]
    just_before = alternative_documents(end - timedelta(microseconds=1))
    at_the_end = alternative_documents(end)

    before_end = await api(READ, asOf=just_before)
    assert is_in_no_segment(before_end)
    assert before_end["user"]["past"] == [{"slug": "A"}]
    assert before_end["segment"] == {"memberCount": 0, "members": {"nodes": []}}
    left, joined = before_end["user"]["history"]["nodes"]
    assert (left["operation"], left["at"], left["recordedAt"], left["cause"], left["actor"]) == (
        "LEFT",
        at_the_end,
        None,
        "TTL",
        None,
    )
    assert (joined["operation"], joined["at"]) == (
        "JOINED",
        alternative_documents(membership["joined_at"]),
    )
    assert (await api(READ, asOf=at_the_end))["user"]["past"] == []

    await actors.expire_due_memberships(database)
    after_end = await api(READ, asOf=just_before)
    recorded_at = await sql.fetchval("SELECT recorded_at FROM history WHERE operation = 'LEFT'")
    assert await sql.fetchval("SELECT at FROM history WHERE operation = 'LEFT'") == end
    for body in (before_end["user"], before_end):
        body["history"]["nodes"][0]["recordedAt"] = alternative_documents(recorded_at)
    assert after_end == before_end
    assert (await api(READ, asOf=at_the_end))["user"]["past"] == []


async def test_membership_ends_exactly_at_its_expiry(api: Api, sql: Sql) -> None:
    await make_segment(sql, "A")
    await make_users(sql, 7)
    add = """mutation { updateUserSegments(input: {userId: 7, add: ["A"], ttlSeconds: 1}) {
        user { memberships { expiresAt } } errors { code } } }"""
    payload = (await api(add))["updateUserSegments"]
    end = await sql.fetchval("SELECT expires_at FROM memberships")
    assert payload["user"]["memberships"] == [{"expiresAt": alternative_documents(end)}]

    mismatches: list[tuple[datetime, bool, datetime]] = []

    async def is_expired() -> bool:
        before = await database_now(sql)
        is_in = (await api('{ user(id: 7) { isIn(slug: "A") } }'))["user"]["isIn"]
        after = await database_now(sql)
        if (is_in and before >= end) or (not is_in and after < end):
            mismatches.append((before, is_in, after))
        return not is_in

    await until(is_expired)
    assert mismatches == []


async def test_members_of_a_deleted_segment_are_hidden_at_once(
    api: Api, sql: Sql, database: Database
) -> None:
    segment_id = await make_segment(sql, "A")
    await add_membership(sql, 7, segment_id)
    deleted_at = await mark_deleted(sql, segment_id, ago=MINUTE, by="ada")
    just_before = alternative_documents(deleted_at - timedelta(microseconds=1))

    before_end = await api(READ, asOf=just_before)
    assert is_in_no_segment(before_end)
    assert before_end["segment"] is None
    assert before_end["user"]["past"] == [{"slug": "A"}]
    left = before_end["user"]["history"]["nodes"][0]
    assert (left["operation"], left["at"], left["recordedAt"], left["cause"], left["actor"]) == (
        "LEFT",
        alternative_documents(deleted_at),
        None,
        "SEGMENT_DELETED",
        "ada",
    )
    assert left["segment"] == {"slug": "A", "deletedAt": alternative_documents(deleted_at)}
    assert (await api(READ, asOf=alternative_documents(deleted_at)))["user"]["past"] == []

    await actors.record_segment_leaves(database, segment_id)
    after_end = await api(READ, asOf=just_before)
    recorded_at = await sql.fetchval("SELECT recorded_at FROM history WHERE operation = 'LEFT'")
    for body in (before_end["user"], before_end):
        body["history"]["nodes"][0]["recordedAt"] = alternative_documents(recorded_at)
    assert after_end == before_end
