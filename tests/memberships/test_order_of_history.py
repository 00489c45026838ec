"""Positions of history are in order of time for each user, whatever records a leave.

Only the leaves of deleted segments are excepted.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from datetime import timedelta
from functools import partial
from typing import Any, Final

from sqlalchemy import text

from segmentql.adapters.database import Database
from segmentql.adapters.sessions import WriteSession
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
    remove_without_exclusion,
)
from segmentql.memberships import actors, expiry
from segmentql.memberships.bulk_locks import lock_segment_for_members, lock_users
from segmentql.memberships.records import Expiry, MemberLists, OnExisting
from segmentql.memberships.segment_members import update_segment_members
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
    entries_out_of_order,
    history_entries,
    history_inconsistencies,
    make_segment,
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
                actor=NO_ACTOR,
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
    expire: Callable[[], Awaitable[object]] = partial(
        database.transaction, partial(expiry.expire_due, rows=3)
    )
    async with asyncio.TaskGroup() as tasks:
        for _ in range(2):
            tasks.create_task(repeat(expire))
        for segment_id in rollouts:
            tasks.create_task(repeat(partial(advance_rollout, database, segment_id)))
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
