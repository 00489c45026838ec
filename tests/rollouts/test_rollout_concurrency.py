"""With concurrent workers, changes and inserts, each user is decided exactly once."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from decimal import Decimal
from functools import partial

from sqlalchemy import text

from segmentql.adapters.database import Database
from segmentql.adapters.sessions import WriteSession
from segmentql.errors import MutationRejected
from segmentql.memberships import actors as membership_actors
from segmentql.memberships.records import OnExisting
from segmentql.principal import NO_ACTOR
from segmentql.rollouts import service
from segmentql.rollouts.actors import advance_rollout
from segmentql.rollouts.chunks import CHUNK_USERS
from segmentql.users.service import create_user, delete_user
from tests.conftest import Api, Sql
from tests.operations import create_segment, delete_segment
from tests.rollouts.helpers import (
    begin_pass_with_sample,
    cancel,
    excluded,
    expected_sample,
    finish_rollout,
    members,
    read_rollout,
    set_plan,
    stage,
    store_users,
    stored_users,
    update_manually,
)
from tests.timeline import history_entries, history_inconsistencies, make_segment

SLUGS = ("A", "B", "C")
USERS = range(1, 201)
LOCK_USER = text("SELECT FROM users WHERE id = :user_id FOR NO KEY UPDATE")
END_NOW = text("""
UPDATE memberships SET expires_at = greatest(clock_timestamp(), joined_at + interval '1 us')
WHERE user_id = :user_id AND expires_at > clock_timestamp() + interval '1 minute'
""")
"""Expire a membership with a TTL of an hour."""


async def unless_rejected(work: Awaitable[object]) -> None:
    """Ignore rejections, because another task may have been first."""
    with suppress(MutationRejected):
        await work


# --- All kinds of changes ------------------------------------------------------------------------


class RandomClients:
    """Clients that make all kinds of changes, each with its own seeded random generator."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def run_client(self, number: int, times: int) -> None:
        rng = random.Random(number)  # noqa: S311
        kinds = [
            *[self._update_memberships] * 12,
            *[self._expire_membership] * 4,
            *[self._create_user] * 4,
            *[self._delete_user] * 3,
            *[self._set_plan] * 3,
            *[self._change_status] * 2,
        ]
        for _ in range(times):
            await rng.choice(kinds)(rng)

    async def _update_memberships(self, rng: random.Random) -> None:
        slugs = rng.sample(SLUGS, rng.randint(1, 3))
        split = rng.randint(0, len(slugs))
        await update_manually(
            self._database,
            rng.choice(USERS),
            add=slugs[:split],
            remove=slugs[split:],
            ttl=rng.choice([None, timedelta(hours=1)]),
            on_existing=rng.choice(list(OnExisting)),
        )

    async def _expire_membership(self, rng: random.Random) -> None:
        user = {"user_id": rng.choice(USERS)}

        async def end_now(session: WriteSession) -> None:
            await session.execute(LOCK_USER, user)
            await session.execute(END_NOW, user)

        await self._database.transaction(end_now)

    async def _create_user(self, rng: random.Random) -> None:
        work = partial(create_user, user_id=rng.choice([None, rng.choice(USERS)]), actor=NO_ACTOR)
        await unless_rejected(self._database.transaction(work))

    async def _delete_user(self, rng: random.Random) -> None:
        work = partial(delete_user, user_id=rng.choice(USERS), actor=NO_ACTOR)
        await unless_rejected(self._database.transaction(work))

    async def _set_plan(self, rng: random.Random) -> None:
        percents = [rng.choice([0, 10, 33.333, 60, 100]) for _ in range(2)]
        later = stage(percents[1], after=timedelta(milliseconds=rng.randint(1, 300)))
        await set_plan(
            self._database,
            rng.choice(SLUGS),
            percents[0],
            later,
            enroll_new_users=rng.random() < 0.8,
        )

    async def _change_status(self, rng: random.Random) -> None:
        slug = rng.choice(SLUGS)
        action: Callable[[WriteSession], Awaitable[object]] = rng.choice(
            [
                partial(service.pause_rollout, slug=slug, actor=NO_ACTOR),
                partial(service.resume_rollout, slug=slug, actor=NO_ACTOR),
                partial(service.resume_rollout, slug=slug, actor=NO_ACTOR),
                partial(
                    service.cancel_rollout, slug=slug, withdraw=rng.random() < 0.7, actor=NO_ACTOR
                ),
            ]
        )
        await unless_rejected(self._database.transaction(action))


async def test_concurrent_changes_of_all_kinds_keep_history_consistent(
    sql: Sql, database: Database
) -> None:
    segments = {slug: await make_segment(sql, slug) for slug in SLUGS}
    await store_users(sql, 150)
    finished = asyncio.Event()

    async def worker(number: int) -> None:
        rng = random.Random(number)  # noqa: S311
        while not finished.is_set():
            await advance_rollout(database, rng.choice(list(segments.values())))
            await membership_actors.expire_due_memberships(database)

    workers = [asyncio.create_task(worker(number)) for number in range(3)]
    await asyncio.gather(
        *(RandomClients(database).run_client(number, times=100) for number in range(7))
    )
    finished.set()
    await asyncio.gather(*workers)
    assert await history_inconsistencies(sql) == {}
    assert {(entry.operation, entry.cause) for entry in await history_entries(sql)} == {
        ("JOINED", "MANUAL"),
        ("JOINED", "ROLLOUT"),
        ("LEFT", "MANUAL"),
        ("LEFT", "ROLLOUT"),
        ("LEFT", "USER_DELETED"),
        ("LEFT", "TTL"),
    }

    # Without concurrent changes, the next pass that removes members is exact.
    for slug, segment_id in segments.items():
        for percent in (100, 40):
            await set_plan(database, slug, percent)
            await finish_rollout(database, segment_id)
        in_now, barred = await members(sql, segment_id), await excluded(sql, segment_id)
        sample = expected_sample(segment_id, await stored_users(sql), 40)
        by_hand_in = {user_id for user_id, cause in in_now.items() if cause == "MANUAL"}
        assert in_now.keys() == (sample - barred) | by_hand_in
        assert not by_hand_in & barred
    assert await history_inconsistencies(sql) == {}


async def test_concurrent_workers_and_manual_changes_add_each_user_once(
    sql: Sql, database: Database
) -> None:
    segment_id = await make_segment(sql, "A")
    users = await store_users(sql, 2 * CHUNK_USERS + 500)
    await set_plan(database, "A", 50)
    sample = expected_sample(segment_id, users, 50)
    rng = random.Random(1)  # noqa: S311 - reproducible
    removed, added = set(rng.sample(users, 150)), set(rng.sample(users, 150))
    removed -= added
    work = [finish_rollout(database, segment_id) for _ in range(5)]
    hands = [update_manually(database, user_id, remove=["A"]) for user_id in removed]
    hands += [update_manually(database, user_id, add=["A"]) for user_id in added]
    rng.shuffle(hands)
    await asyncio.gather(*work, *hands)
    assert await members(sql, segment_id) == {
        **dict.fromkeys(sample - removed, "ROLLOUT"),
        **dict.fromkeys(added, "MANUAL"),
    }
    assert await excluded(sql, segment_id) == removed
    joins = await sql.fetch(
        "SELECT user_id FROM history WHERE operation = 'JOINED' GROUP BY 1 HAVING count(*) > 1"
    )
    assert joins == []
    rollout = await read_rollout(database, segment_id)
    assert (rollout.users_seen, rollout.users_total) == (len(users), len(users))
    assert await history_inconsistencies(sql) == {}


# --- Deleting and withdrawing --------------------------------------------------------------------


async def test_deleting_a_segment_stops_its_running_pass(
    api: Api, sql: Sql, database: Database
) -> None:
    await store_users(sql, 3000)
    for number in range(8):
        creation = await create_segment(api, slug="A", rollout={"percent": 60})
        assert creation["errors"] == []
        segment_id = int(creation["segment"]["id"].removeprefix("seg_"))
        if number % 2:
            await begin_pass_with_sample(database, segment_id)
        rng = random.Random(number)  # noqa: S311 - reproducible
        await asyncio.gather(
            *(advance_rollout(database, segment_id) for _ in range(3)),
            *(
                unless_rejected(update_manually(database, rng.randint(1, 3000), remove=["A"]))
                for _ in range(10)
            ),
            *(
                unless_rejected(update_manually(database, 10_000 + number * 10 + n, add=["A"]))
                for n in range(10)
            ),
            delete_segment(api, "A"),
        )
        assert await members(sql, segment_id) == {}
        await advance_rollout(database, segment_id)
        assert (await read_rollout(database, segment_id)).status == "CANCELLED"
        await membership_actors.record_segment_leaves(database, segment_id)
    assert await sql.fetchval("SELECT count(*) FROM memberships") == 0
    assert await history_inconsistencies(sql) == {}


async def test_withdrawing_during_inserts_leaves_no_member(sql: Sql, database: Database) -> None:
    segment_id = await make_segment(sql, "A")
    await store_users(sql, 100)
    for number in range(5):
        await set_plan(database, "A", 100)
        comers = [
            database.transaction(partial(create_user, user_id=None, actor=NO_ACTOR))
            for _ in range(20)
        ]
        await asyncio.gather(
            advance_rollout(database, segment_id),
            *comers[:10],
            cancel(database, "A", withdraw=True),
            *comers[10:],
        )
        await finish_rollout(database, segment_id)
        rollout = await read_rollout(database, segment_id)
        assert (str(rollout.status), rollout.percent) == ("CANCELLED", Decimal(0))
        assert await members(sql, segment_id) == {}
        assert await sql.fetchval("SELECT count(*) FROM users") == 100 + 20 * (number + 1)
    assert await history_inconsistencies(sql) == {}
