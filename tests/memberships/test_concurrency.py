"""Many concurrent clients cause no errors, and history agrees with memberships."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

import pytest

from segmentql.adapters.database import Database
from segmentql.adapters.sessions import WriteSession
from segmentql.errors import MutationRejected, SegmentAlreadyExists, SegmentNotFound, UserNotFound
from segmentql.memberships import actors, expiry
from segmentql.memberships.records import OnExisting
from segmentql.memberships.service import update_user_segments
from segmentql.principal import NO_ACTOR, Actor
from segmentql.rollouts.service import delete_segment_with_rollout as delete_segment
from segmentql.segments.service import create_segment
from segmentql.settings import Settings
from segmentql.users.service import create_user, delete_user
from tests.conftest import Api, Sql, serving, until
from tests.timeline import history_entries, history_inconsistencies, make_segment

CLIENTS = 200
USERS = range(1, 51)
SLUGS = [f"S{number}" for number in range(6)]

T = TypeVar("T")
UPDATE = """
mutation Update($input: UpdateUserSegmentsInput!) {
  updateUserSegments(input: $input) { user { id } errors { code message } }
}
"""


def random_change(dice: random.Random) -> dict[str, Any]:
    """Return the input of one change: slugs to add and remove, with and without an end."""
    slugs = dice.sample(SLUGS, dice.randint(1, 4))
    split = dice.randint(0, len(slugs))
    change: dict[str, Any] = {
        "userId": str(dice.choice(USERS)),
        "add": slugs[:split],
        "remove": slugs[split:],
        "onExisting": dice.choice(list(OnExisting)).value,
    }
    if split and dice.random() < 0.6:
        change["ttlSeconds"] = dice.choice([1, 1, 2, 3600])
    return change


async def expire_memberships(database: Database, stop: asyncio.Event) -> None:
    """Move ends into the near future and record leaves, as several workers would, until stopped."""
    while not stop.is_set():
        await actors.expire_due_memberships(database)
        await asyncio.sleep(0)


async def test_200_clients_on_50_users_keep_history_consistent(
    settings: Settings, sql: Sql, database: Database
) -> None:
    for slug in SLUGS:
        await make_segment(sql, slug)
    faults: list[Any] = []

    async def client(ask: Api, number: int) -> None:
        dice = random.Random(number)  # noqa: S311 - the same changes each time
        for _ in range(5):
            body = await ask.body(UPDATE, input=random_change(dice))
            if "errors" in body or body["data"]["updateUserSegments"]["errors"]:
                faults.append(body)

    stop = asyncio.Event()
    async with serving(settings) as ask, asyncio.TaskGroup() as tasks:
        tidying = [tasks.create_task(expire_memberships(database, stop)) for _ in range(2)]
        await asyncio.gather(*(client(ask, number) for number in range(CLIENTS)))
        stop.set()
        await asyncio.gather(*tidying)
    assert faults == []
    assert await history_inconsistencies(sql) == {}
    assert await sql.fetchval("SELECT count(DISTINCT user_id) FROM history") == len(USERS)
    assert {e.cause for e in await history_entries(sql)} >= {"MANUAL", "TTL"}


async def unless_rejected(work: Awaitable[T], *allowed: type) -> T | None:
    """Return the result, or None if the change was rejected for an expected reason."""
    try:
        return await work
    except MutationRejected as refused:
        if {type(refusal) for refusal in refused.reasons} <= set(allowed):
            return None
        raise


async def test_concurrent_deletions_keep_history_consistent(sql: Sql, database: Database) -> None:
    for slug in SLUGS:
        await make_segment(sql, slug)

    async def change(work: Callable[[WriteSession], Awaitable[T]], *allowed: type) -> T | None:
        return await unless_rejected(database.transaction(work), *allowed)

    async def changes(dice: random.Random) -> None:
        created = random_change(dice)
        await change(
            partial(
                update_user_segments,
                user_id=int(created["userId"]),
                add=created["add"],
                remove=created["remove"],
                ttl=timedelta(seconds=created["ttlSeconds"]) if "ttlSeconds" in created else None,
                on_existing=OnExisting(created["onExisting"]),
                actor=NO_ACTOR,
            ),
            SegmentNotFound,
        )

    async def create_and_delete_segments(dice: random.Random) -> None:
        slug = dice.choice(SLUGS)
        deleted = await change(
            partial(delete_segment, slug=slug, expected_version=None, actor=Actor("ada")),
            SegmentNotFound,
        )
        if deleted is not None and dice.random() < 0.7:
            await actors.record_segment_leaves(database, deleted)
        await change(
            partial(create_segment, slug=slug, name=None, description=None, actor=NO_ACTOR),
            SegmentAlreadyExists,
        )

    async def delete_users(dice: random.Random) -> None:
        await change(
            partial(delete_user, user_id=dice.choice(USERS), actor=Actor("bob")), UserNotFound
        )

    async def expire_and_record(_: random.Random) -> None:
        await actors.expire_due_memberships(database)

    kinds: list[Callable[[random.Random], Coroutine[Any, Any, None]]] = [
        *[changes] * 12,
        create_and_delete_segments,
        delete_users,
        expire_and_record,
    ]

    async def client(number: int) -> None:
        dice = random.Random(number)  # noqa: S311 - the same changes each time
        for _ in range(15):
            await dice.choice(kinds)(dice)

    await asyncio.gather(*(client(number) for number in range(60)))
    assert await history_inconsistencies(sql) == {}
    causes = {entry.cause for entry in await history_entries(sql)}
    assert causes >= {"MANUAL", "USER_DELETED", "SEGMENT_DELETED"}

    for number in range(1, 1 + await sql.fetchval("SELECT max(id) FROM segments")):
        await actors.record_segment_leaves(database, number)
    assert await history_inconsistencies(sql) == {}
    async with database.read() as session:
        assert await expiry.segments_with_unrecorded_leaves(session) == []


async def test_changes_of_one_user_are_serialized_and_dated_in_order(
    sql: Sql, database: Database
) -> None:
    await make_segment(sql, "A")
    order: list[int] = []

    async def change(number: int) -> None:
        async def work(session: WriteSession) -> int:
            add, remove = (["A"], []) if number % 2 else ([], ["A"])
            await update_user_segments(session, user_id=7, add=add, remove=remove, actor=NO_ACTOR)
            return number

        order.append(await database.transaction(work))

    await asyncio.gather(*(change(number) for number in range(100)))
    assert sorted(order) == list(range(100))
    assert await history_inconsistencies(sql) == {}


@pytest.mark.parametrize("number", [None, 5])
async def test_concurrent_user_creations_get_distinct_ids(
    sql: Sql, database: Database, number: int | None
) -> None:
    rows = await asyncio.gather(
        *(
            database.transaction(partial(create_user, user_id=number, actor=NO_ACTOR))
            for _ in range(40)
        ),
        return_exceptions=True,
    )
    stored = [row.user_id for row in rows if not isinstance(row, BaseException)]
    assert sorted(stored) == (list(range(1, 41)) if number is None else [5])
    assert [type(row) for row in rows if isinstance(row, BaseException)] == [MutationRejected] * (
        40 - len(stored)
    )
    assert await sql.fetchval("SELECT count(*) FROM users") == len(stored)


async def test_allocated_ids_are_unique_while_users_are_deleted(
    sql: Sql, database: Database
) -> None:
    picked: list[int] = []

    async def create_and_delete() -> None:
        for _ in range(5):
            row = await database.transaction(partial(create_user, user_id=None, actor=NO_ACTOR))
            picked.append(row.user_id)
            await database.transaction(partial(delete_user, user_id=row.user_id, actor=NO_ACTOR))

    await asyncio.gather(*(create_and_delete() for _ in range(12)))
    assert sorted(picked) == list(range(1, 61))


async def test_concurrent_creations_of_one_slug_have_one_winner(
    sql: Sql, database: Database
) -> None:
    create = partial(create_segment, slug="A", name=None, description=None, actor=NO_ACTOR)
    created = await asyncio.gather(
        *(unless_rejected(database.transaction(create), SegmentAlreadyExists) for _ in range(40))
    )
    assert [row.slug for row in created if row is not None] == ["A"]
    assert await sql.fetchval("SELECT count(*) FROM segments") == 1


async def test_concurrent_deletions_of_one_segment_have_one_winner(
    sql: Sql, database: Database
) -> None:
    segment_id = await make_segment(sql, "A")
    delete = partial(delete_segment, slug="A", expected_version=None, actor=NO_ACTOR)
    deleted = await asyncio.gather(
        *(unless_rejected(database.transaction(delete), SegmentNotFound) for _ in range(20))
    )
    assert [number for number in deleted if number is not None] == [segment_id]


async def test_waiting_deletion_of_a_busy_segment_is_not_overtaken(
    database: Database, sql: Sql
) -> None:
    """Otherwise a segment in steady use could not be deleted."""
    await make_segment(sql, "BUSY")
    added, finish = asyncio.Event(), asyncio.Event()

    async def change_slowly(session: WriteSession) -> None:
        await update_user_segments(session, user_id=1, add=["BUSY"], remove=[], actor=NO_ACTOR)
        added.set()
        await finish.wait()

    async def waiting(count: int) -> None:
        async def are_waiting() -> bool:
            lock_waiters = await sql.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted")
            return bool(lock_waiters >= count)

        await until(are_waiting)

    first = asyncio.create_task(database.transaction(change_slowly))
    await added.wait()
    deleting = asyncio.create_task(
        database.transaction(
            lambda session: delete_segment(
                session, slug="BUSY", expected_version=None, actor=NO_ACTOR
            )
        )
    )
    await waiting(1)
    late_change = asyncio.create_task(
        database.transaction(
            lambda session: update_user_segments(
                session, user_id=2, add=["BUSY"], remove=[], actor=NO_ACTOR
            )
        )
    )
    await waiting(2)
    finish.set()
    await first
    await deleting
    with pytest.raises(MutationRejected) as refused:
        await late_change
    assert refused.value.reasons == (SegmentNotFound(("add", "0"), ("BUSY",)),)
    assert await history_inconsistencies(sql) == {}
