"""Positions of history are in order of time for each user, whatever records a leave.

Only the leaves of deleted segments are excepted.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from datetime import timedelta
from functools import partial
from typing import Any, Final

import pytest
from sqlalchemy import text

from segmentql.adapters.database import Database, WriteSession
from segmentql.errors import (
    InvalidInput,
    MutationRejected,
    RolloutNotFound,
    RolloutStateConflict,
    SegmentAlreadyExists,
    SegmentNotFound,
    UserNotFound,
)
from segmentql.imports.removals import (
    PlannedRemoval,
    remove_as_planned,
    remove_without_exclusion,
)
from segmentql.memberships import actors, expiry
from segmentql.memberships.bulk_locks import lock_segment_for_members, lock_users
from segmentql.memberships.records import Expiry, OnExisting
from segmentql.memberships.segment_members import MemberLists, update_segment_members
from segmentql.memberships.service import update_user_segments
from segmentql.principal import NO_ACTOR
from segmentql.rollouts.actors import advance_rollout
from segmentql.rollouts.finished_sample import lock_finished_sample
from segmentql.rollouts.service import delete_segment_with_rollout as delete_segment
from segmentql.segments.service import create_segment
from segmentql.users.service import delete_user
from tests.conftest import Sql
from tests.rollouts.helpers import cancel, set_plan, store_users
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

USERS: Final = range(1, 13)
SLUGS: Final = ("A", "B", "C", "D")
ROLLOUT_SLUGS: Final = ("R", "S")
CLIENTS: Final = 14
CHANGES: Final = 30
SOON: Final = text("SELECT clock_timestamp() + interval '1.1 s'")  # The minimum is 1 s.
EXPECTED: Final = (
    InvalidInput,  # `expiresAt` is too near after a wait for a lock
    RolloutNotFound,
    RolloutStateConflict,
    SegmentAlreadyExists,
    SegmentNotFound,
    UserNotFound,
)


class RandomChanges:
    """A client that makes all kinds of changes of memberships with short TTLs."""

    def __init__(self, database: Database, number: int) -> None:
        self._database = database
        self._dice = random.Random(number)  # noqa: S311 - similar changes each time

    async def run(self) -> None:
        kinds: list[Callable[[], Coroutine[Any, Any, None]]] = [
            *[self._update_user] * 12,
            *[self._update_segment] * 4,
            self._remove_without_exclusion,
            self._delete_user,
            self._replace_segment,
            self._change_rollout,
        ]
        for _ in range(CHANGES):
            try:
                await self._dice.choice(kinds)()
            except MutationRejected as rejected:
                assert all(isinstance(reason, EXPECTED) for reason in rejected.reasons)  # noqa: PT017

    def _ttl(self) -> timedelta | None:
        return self._dice.choice([None, timedelta(milliseconds=self._dice.randint(1, 60))])

    async def _change(self, work: Callable[[WriteSession], Awaitable[object]]) -> None:
        await self._database.transaction(work)

    async def _update_user(self) -> None:
        slugs = self._dice.sample([*SLUGS, *ROLLOUT_SLUGS], self._dice.randint(1, 4))
        split = self._dice.randint(0, len(slugs))
        await self._change(
            partial(
                update_user_segments,
                user_id=self._dice.choice(USERS),
                add=slugs[:split],
                remove=slugs[split:],
                ttl=self._ttl(),
                on_existing=self._dice.choice(list(OnExisting)),
            )
        )

    async def _update_segment(self) -> None:
        users = self._dice.sample(USERS, 6)
        lists = MemberLists(add=users[:4], remove=users[4:])
        await self._change(
            partial(
                update_segment_members,
                slug=self._dice.choice(SLUGS),
                lists=lists,
                expiry=Expiry(self._ttl(), None),
                on_existing=self._dice.choice(list(OnExisting)),
            )
        )

    async def _remove_without_exclusion(self) -> None:
        slug, users = self._dice.choice(SLUGS), self._dice.sample(USERS, 4)

        async def remove(session: WriteSession) -> None:
            segment = await lock_segment_for_members(session, slug)
            if segment is None:
                return
            await lock_finished_sample(session, segment.segment_id)
            locked = await lock_users(session, find_ids=users)
            await remove_without_exclusion(
                session,
                segment_id=segment.segment_id,
                user_ids=sorted(locked.found_ids),
                actor=NO_ACTOR,
                import_id=1,
            )

        await self._change(remove)

    async def _delete_user(self) -> None:
        await self._change(partial(delete_user, user_id=self._dice.choice(USERS), actor=NO_ACTOR))

    async def _replace_segment(self) -> None:
        slug = self._dice.choice(SLUGS)
        create = partial(create_segment, slug=slug, name=None, description=None, actor=NO_ACTOR)
        try:
            deleted = await self._database.transaction(
                partial(delete_segment, slug=slug, expected_version=None, actor=NO_ACTOR)
            )
        finally:
            await self._change(create)
        await actors.record_segment_leaves(self._database, deleted)

    async def _change_rollout(self) -> None:
        slug = self._dice.choice(ROLLOUT_SLUGS)
        if self._dice.random() < 0.3:
            await cancel(self._database, slug, withdraw=True)
        else:
            async with self._database.read() as session:
                end = (await session.execute(SOON)).scalar_one()
            percent = self._dice.choice([30, 80])
            await set_plan(self._database, slug, percent, expires_at=self._dice.choice([None, end]))


async def test_user_history_is_in_order_while_everything_changes_it(
    sql: Sql, database: Database
) -> None:
    """It takes two to four seconds, because it needs changes that overlap with expiry."""
    for slug in SLUGS:
        await make_segment(sql, slug)
    rollouts = [await make_segment(sql, slug) for slug in ROLLOUT_SLUGS]
    await store_users(sql, len(USERS))
    stop = asyncio.Event()

    async def repeat(work: Callable[[], Awaitable[object]]) -> None:
        while not stop.is_set():
            await work()
            await asyncio.sleep(0.002)

    # Small batches, so that the ends of one user are in different batches of two workers.
    expire = partial(database.transaction, partial(expiry.expire_due, rows=3))
    advance = [partial(advance_rollout, database, segment_id) for segment_id in rollouts]
    async with asyncio.TaskGroup() as tasks:
        for work in (expire, expire, *advance):
            tasks.create_task(repeat(work))
        try:
            async with asyncio.TaskGroup() as clients:
                for number in range(CLIENTS):
                    clients.create_task(RandomChanges(database, number).run())
        finally:
            stop.set()
    assert await entries_out_of_order(sql) == []
    assert await history_inconsistencies(sql) == {}
    causes = {entry.cause for entry in await history_entries(sql)}
    assert causes == {"MANUAL", "TTL", "ROLLOUT", "SEGMENT_DELETED", "USER_DELETED"}


# --- One change after an end that no worker has recorded ------------------------------------------

Change = Callable[[Database, int], Awaitable[None]]
"""Changes the membership of the user 7 in the segment "CHANGED" with the given id."""

USER: Final = 7
MEMBERSHIP: Final = text("SELECT id, updated_at FROM memberships WHERE segment_id = :segment_id")


async def add_by_hand(database: Database, _: int) -> None:
    await database.transaction(
        partial(update_user_segments, user_id=USER, add=["CHANGED"], remove=[])
    )


async def remove_by_hand(database: Database, _: int) -> None:
    await database.transaction(
        partial(update_user_segments, user_id=USER, add=[], remove=["CHANGED"])
    )


async def rejoin_expired(database: Database, _: int) -> None:
    """Rejoin a segment whose membership has expired, and leave another one."""
    await database.transaction(
        partial(update_user_segments, user_id=USER, add=["EXPIRED-1"], remove=["CHANGED"])
    )


async def remove_expired(database: Database, _: int) -> None:
    await database.transaction(
        partial(update_user_segments, user_id=USER, add=["CHANGED"], remove=["EXPIRED-2"])
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
