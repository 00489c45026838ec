"""Concurrent changes of lists lose nothing, and history agrees with memberships."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from segmentql import metrics
from segmentql.adapters.database import Database
from segmentql.adapters.sessions import WriteSession
from segmentql.errors import MutationRejected
from segmentql.memberships import actors
from segmentql.memberships.records import Expiry, MemberLists, OnExcluded, OnExisting
from segmentql.memberships.segment_members import update_segment_members
from segmentql.memberships.service import update_user_segments
from segmentql.principal import NO_ACTOR
from segmentql.rollouts.actors import advance_rollout
from segmentql.rollouts.service import delete_segment_with_rollout as delete_segment
from segmentql.segments.service import create_segment
from segmentql.tables import RowOutcome
from segmentql.users.service import create_user, delete_user, set_user_key
from tests.conftest import Sql, until
from tests.rollouts.helpers import set_plan, store_users
from tests.timeline import history_entries, history_inconsistencies, make_segment

SLUGS = ("A", "B")
USERS = range(1, 61)
KEYS = tuple(f"k{number}" for number in range(30))


def random_lists(dice: random.Random) -> MemberLists:
    """Return lists of users in random order, without a user in both."""
    users, keys = dice.sample(USERS, 30), dice.sample(KEYS, 10)
    split, key_split = dice.randint(0, 30), dice.randint(0, 10)
    return MemberLists(users[:split], users[split:], keys[:key_split], keys[key_split:])


def change_of_lists(dice: random.Random) -> Callable[[WriteSession], Any]:
    return partial(
        update_segment_members,
        slug=dice.choice(SLUGS),
        lists=random_lists(dice),
        expiry=Expiry(dice.choice([None, timedelta(hours=1), timedelta(seconds=1)])),
        on_existing=dice.choice(list(OnExisting)),
        on_excluded=dice.choice(list(OnExcluded)),
    )


def retries() -> float:
    value: float = metrics.TRANSACTION_RETRIES._value.get()
    return value


async def test_overlapping_lists_in_different_orders_never_deadlock(
    sql: Sql, database: Database
) -> None:
    """New and stored users, by id and by key. The 48 calls take a second or two."""
    await make_segment(sql, "A")
    await set_plan(database, "A", 50)
    before = retries()
    joins: Counter[RowOutcome] = Counter()

    async def client(number: int) -> None:
        dice = random.Random(number)  # noqa: S311 - the same changes each time
        for _ in range(4):
            lists = random_lists(dice)
            lists = MemberLists(add=lists.add, add_keys=lists.add_keys, remove=lists.remove)
            update = await database.transaction(
                partial(update_segment_members, slug="A", lists=lists)
            )
            joins.update({entry.outcome: entry.count for entry in update.counts})
            assert sum(entry.count for entry in update.counts) == 30 + len(lists.add_keys)

    await asyncio.gather(*(client(number) for number in range(12)))
    assert retries() == before
    assert await history_inconsistencies(sql) == {}
    entries = Counter(entry.operation for entry in await history_entries(sql))
    assert entries == {"JOINED": joins[RowOutcome.JOINED], "LEFT": joins[RowOutcome.LEFT]}
    assert await sql.fetchval("SELECT count(*) FROM users WHERE key IS NOT NULL") == len(KEYS)
    # Nobody is a member and excluded.
    assert (
        await sql.fetchval(
            "SELECT count(*) FROM memberships JOIN exclusions USING (user_id, segment_id)"
        )
        == 0
    )


@pytest.mark.slow  # deadlocks with deletions of segments are found after a second
async def test_all_kinds_of_changes_keep_history_consistent(sql: Sql, database: Database) -> None:
    segment_ids = {slug: await make_segment(sql, slug) for slug in SLUGS}
    await store_users(sql, 40)
    for slug, segment_id in segment_ids.items():
        await set_plan(database, slug, 60)
        await advance_rollout(database, segment_id)
    assert {entry.cause for entry in await history_entries(sql)} == {"ROLLOUT"}

    async def change_one(dice: random.Random) -> None:
        user: dict[str, Any] = (
            {"user_id": dice.choice(USERS)} if dice.random() < 0.5 else {"user_key": KEYS[0]}
        )
        slugs = dice.sample(SLUGS, 2)
        split = dice.randint(0, 2)
        await database.transaction(
            partial(
                update_user_segments,
                **user,
                add=slugs[:split],
                remove=slugs[split:],
                actor=NO_ACTOR,
            )
        )

    async def change_lists(dice: random.Random) -> None:
        await database.transaction(change_of_lists(dice))

    async def store(dice: random.Random) -> None:
        key = dice.choice(KEYS)
        await database.transaction(partial(create_user, user_id=None, user_key=key, actor=NO_ACTOR))

    async def set_key(dice: random.Random) -> None:
        user_id, key = dice.choice(USERS), dice.choice(KEYS)
        await database.transaction(partial(set_user_key, user_id=user_id, user_key=key))

    async def delete(dice: random.Random) -> None:
        named: dict[str, Any] = dice.choice(
            [{"user_id": dice.choice(USERS)}, {"user_key": dice.choice(KEYS)}]
        )
        await database.transaction(partial(delete_user, **named, actor=NO_ACTOR))

    async def work_on_rollouts(dice: random.Random) -> None:
        slug = dice.choice(SLUGS)
        await set_plan(database, slug, dice.choice([10, 60, 90]))
        await advance_rollout(database, segment_ids[slug])

    async def replace_segment(dice: random.Random) -> None:
        slug = dice.choice(SLUGS)
        deleted = await database.transaction(
            partial(delete_segment, slug=slug, expected_version=None, actor=NO_ACTOR)
        )
        await database.transaction(
            partial(create_segment, slug=slug, name=None, description=None, actor=NO_ACTOR)
        )
        await actors.record_segment_leaves(database, deleted)
        segment_ids[slug] = await sql_segment_id(slug)

    async def sql_segment_id(slug: str) -> int:
        async with sql_lock:
            found: int = await sql.fetchval("SELECT max(id) FROM segments WHERE slug = $1", slug)
        return found

    async def expire(_: random.Random) -> None:
        await actors.expire_due_memberships(database)

    sql_lock = asyncio.Lock()
    kinds: list[Callable[[random.Random], Coroutine[Any, Any, None]]] = [
        *[change_lists] * 8,
        *[change_one] * 4,
        *[work_on_rollouts] * 2,
        *[store, set_key, delete, expire],
        replace_segment,
    ]

    async def client(number: int) -> None:
        dice = random.Random(number)  # noqa: S311 - the same changes each time
        for _ in range(10):
            with suppress(MutationRejected):
                await dice.choice(kinds)(dice)

    await asyncio.gather(*(client(number) for number in range(20)))
    assert await history_inconsistencies(sql) == {}
    causes = {entry.cause for entry in await history_entries(sql)}
    assert causes >= {"MANUAL", "USER_DELETED", "SEGMENT_DELETED"}
    members = await sql.fetchval(
        "SELECT count(*) FROM memberships JOIN exclusions USING (user_id, segment_id)"
    )
    assert members == 0


async def waiting_transactions(sql: Sql) -> int:
    """Return the number of transactions that wait for a lock."""
    waiting: int = await sql.fetchval("SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted")
    return waiting


async def test_list_waits_for_a_change_of_one_user_and_is_later(
    sql: Sql, database: Database
) -> None:
    """Neither change is lost: the user leaves by hand, and joins again by the list."""
    await make_segment(sql, "A")
    await database.transaction(
        partial(update_segment_members, slug="A", lists=MemberLists(add=[1, 2, 3]))
    )
    changed, finish = asyncio.Event(), asyncio.Event()

    async def remove_slowly(session: WriteSession) -> None:
        await update_user_segments(session, user_id=2, add=[], remove=["A"], actor=NO_ACTOR)
        changed.set()
        await finish.wait()

    removing = asyncio.create_task(database.transaction(remove_slowly))
    await changed.wait()
    adding = asyncio.create_task(
        database.transaction(
            partial(update_segment_members, slug="A", lists=MemberLists(add=[3, 2, 1]))
        )
    )

    async def waits() -> bool:
        return await waiting_transactions(sql) == 1

    await until(waits)
    finish.set()
    await removing
    update = await adding
    assert {entry.outcome.value: entry.count for entry in update.counts} == {
        "JOINED": 1,
        "ALREADY_IN": 2,
    }
    operations = [entry.operation for entry in await history_entries(sql, 2)]
    assert operations == ["JOINED", "LEFT", "JOINED"]
    assert await sql.fetchval("SELECT count(*) FROM exclusions") == 0
    assert await history_inconsistencies(sql) == {}


async def test_key_that_another_client_stores_meanwhile_names_its_user(
    sql: Sql, database: Database
) -> None:
    await make_segment(sql, "A")
    transaction = sql.transaction()
    await transaction.start()
    await sql.execute("INSERT INTO users (id, created_at, key) VALUES (5, now(), 'k')")
    adding = asyncio.create_task(
        database.transaction(
            partial(
                update_segment_members, slug="A", lists=MemberLists(add=[7], add_keys=["k", "n"])
            )
        )
    )

    async def waits() -> bool:
        return await waiting_transactions(sql) == 1

    await until(waits)
    await transaction.commit()
    update = await adding
    assert [entry.count for entry in update.counts] == [3]
    rows = await sql.fetch(
        "SELECT m.user_id, key FROM memberships m JOIN users u ON u.id = m.user_id ORDER BY 1"
    )
    assert [row["key"] for row in rows] == ["k", None, "n"]
    assert [row["user_id"] for row in rows][:2] == [5, 7]


async def test_waiting_deletion_of_an_enrolling_segment_causes_no_deadlock(
    sql: Sql, database: Database
) -> None:
    """The lists lock the segments that enroll new users before the users."""
    await make_segment(sql, "A")
    await make_segment(sql, "ENROLLS")
    await set_plan(database, "ENROLLS", 100)
    before = retries()
    stored, finish = asyncio.Event(), asyncio.Event()

    async def add_slowly(session: WriteSession) -> None:
        await update_user_segments(session, user_id=1, add=["ENROLLS"], remove=[], actor=NO_ACTOR)
        stored.set()
        await finish.wait()

    first = asyncio.create_task(database.transaction(add_slowly))
    await stored.wait()
    deleting = asyncio.create_task(
        database.transaction(
            partial(delete_segment, slug="ENROLLS", expected_version=None, actor=NO_ACTOR)
        )
    )

    async def waits(count: int) -> bool:
        return await waiting_transactions(sql) == count

    await until(partial(waits, 1))
    adding = asyncio.create_task(
        database.transaction(
            partial(update_segment_members, slug="A", lists=MemberLists(add=[1, 2]))
        )
    )
    await until(partial(waits, 2))
    # The list has stored no user yet. So another transaction can store one, without its triggers.
    async with sql.transaction():
        await sql.execute("SET LOCAL session_replication_role = replica")
        await sql.execute("SET LOCAL lock_timeout = '5s'")
        await sql.execute("INSERT INTO users (id, created_at) VALUES (2, now())")
    finish.set()
    await asyncio.gather(first, deleting, adding)
    assert retries() == before
    assert await history_inconsistencies(sql) == {}
