"""A chunk waits for an uncommitted change of its users, and then uses the committed state."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from segmentql.adapters.database import Database
from segmentql.adapters.sessions import WriteSession
from segmentql.memberships.records import OnExisting
from segmentql.memberships.service import update_user_segments
from segmentql.principal import NO_ACTOR
from segmentql.rollouts import passes
from segmentql.rollouts.actors import advance_rollout
from segmentql.rollouts.passes import StepOutcome
from segmentql.users.service import delete_user
from tests.conftest import Sql, until
from tests.rollouts.helpers import (
    begin_pass_with_sample,
    excluded,
    history_counts,
    members,
    read_rollout,
    set_plan,
    store_users,
    update_manually,
    work_chunk,
)
from tests.timeline import (
    HOUR,
    database_now,
    history_entries,
    history_inconsistencies,
    make_segment,
)

USER = 2
ALL = {1: "ROLLOUT", 2: "ROLLOUT", 3: "ROLLOUT"}

add = partial(update_user_segments, user_id=USER, add=["A"], remove=[], actor=NO_ACTOR)
remove = partial(update_user_segments, user_id=USER, add=[], remove=["A"], actor=NO_ACTOR)


async def run_during_uncommitted(
    sql: Sql,
    database: Database,
    change: Callable[[WriteSession], Awaitable[object]],
    work: Callable[[], Coroutine[Any, Any, Any]],
) -> Any:
    """Start `work` while `change` is uncommitted; check that it waits, and return its result."""
    change_made, commit = asyncio.Event(), asyncio.Event()

    async def change_and_wait(session: WriteSession) -> None:
        await change(session)
        change_made.set()
        await commit.wait()

    async def is_waiting() -> bool:
        waiting = await sql.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted")
        return bool(waiting == 1)

    changing = asyncio.create_task(database.transaction(change_and_wait))
    await change_made.wait()
    working: asyncio.Task[Any] = asyncio.create_task(work())
    await until(is_waiting)
    assert not working.done()
    commit.set()
    await changing
    return await working


@pytest.mark.parametrize(
    ("before", "change", "after"),
    [
        ("nobody", remove, {1: "ROLLOUT", 3: "ROLLOUT"}),
        ("nobody", add, {**ALL, USER: "MANUAL"}),
        ("nobody", partial(add, ttl=HOUR), {**ALL, USER: "MANUAL"}),
        (
            "nobody",
            partial(delete_user, user_id=USER, actor=NO_ACTOR),
            {1: "ROLLOUT", 3: "ROLLOUT"},
        ),
        ("ran out", add, {**ALL, USER: "MANUAL"}),
        ("ran out", partial(add, on_existing=OnExisting.KEEP), {**ALL, USER: "MANUAL"}),
        ("ran out", remove, {1: "ROLLOUT", 3: "ROLLOUT"}),
    ],
)
async def test_concurrent_manual_change_wins_over_adding(
    sql: Sql,
    database: Database,
    before: str,
    change: Callable[[WriteSession], Awaitable[object]],
    after: dict[int, str],
) -> None:
    segment_id = await make_segment(sql, "A")
    await store_users(sql, 3)
    if before == "ran out":
        await sql.execute(
            """
            INSERT INTO memberships
                (user_id, segment_id, joined_at, updated_at, expires_at, cause)
            VALUES ($1, $2, now() - interval '2 hours', now() - interval '2 hours',
                now() - interval '1 hour', 'MANUAL')
            """,
            USER,
            segment_id,
        )
    await set_plan(database, "A", 100)
    await begin_pass_with_sample(database, segment_id)
    done = await run_during_uncommitted(
        sql, database, change, lambda: work_chunk(database, segment_id)
    )
    assert done is StepOutcome.NO_WORK
    assert await members(sql, segment_id) == after
    assert await excluded(sql, segment_id) == ({USER} if change is remove else set())
    assert (await history_counts(sql, segment_id)).get(("JOINED", "ROLLOUT")) == 2
    assert await history_inconsistencies(sql) == {}


@pytest.mark.parametrize(
    ("change", "after", "left_by"),
    [
        (add, {USER: "MANUAL"}, []),
        (partial(add, ttl=HOUR, on_existing=OnExisting.REPLACE), {USER: "MANUAL"}, []),
        (partial(add, on_existing=OnExisting.KEEP), {}, ["ROLLOUT"]),
        (remove, {}, ["MANUAL"]),
        (partial(delete_user, user_id=USER, actor=NO_ACTOR), {}, ["USER_DELETED"]),
    ],
)
async def test_concurrent_manual_change_wins_over_removing(
    sql: Sql,
    database: Database,
    change: Callable[[WriteSession], Awaitable[object]],
    after: dict[int, str],
    left_by: list[str],
) -> None:
    segment_id = await make_segment(sql, "A")
    await store_users(sql, 3)
    await set_plan(database, "A", 100)
    await advance_rollout(database, segment_id)
    await set_plan(database, "A", 0)
    await begin_pass_with_sample(database, segment_id)
    await run_during_uncommitted(sql, database, change, lambda: work_chunk(database, segment_id))
    assert await members(sql, segment_id) == after
    leaves = [e.cause for e in await history_entries(sql, USER) if e.operation == "LEFT"]
    assert leaves == left_by
    assert await history_inconsistencies(sql) == {}


@pytest.mark.parametrize(
    ("change", "cause", "hours_left"),
    [
        (add, "MANUAL", None),
        (partial(add, ttl=2 * HOUR, on_existing=OnExisting.REPLACE), "MANUAL", 2),
        (partial(add, on_existing=OnExisting.KEEP), "ROLLOUT", 5),
    ],
)
async def test_concurrent_manual_change_wins_over_a_new_expiry(
    sql: Sql,
    database: Database,
    change: Callable[[WriteSession], Awaitable[object]],
    cause: str,
    hours_left: int | None,
) -> None:
    segment_id = await make_segment(sql, "A")
    await store_users(sql, 3)
    await set_plan(database, "A", 100)
    await advance_rollout(database, segment_id)
    now = await database_now(sql)
    await set_plan(database, "A", 100, expires_at=now + 5 * HOUR)
    await begin_pass_with_sample(database, segment_id)
    await run_during_uncommitted(sql, database, change, lambda: work_chunk(database, segment_id))
    assert await members(sql, segment_id) == {**ALL, USER: cause}
    rows = await sql.fetch("SELECT user_id, expires_at FROM memberships ORDER BY 1")
    hours = [row["expires_at"] and round((row["expires_at"] - now) / HOUR) for row in rows]
    assert hours == [5, hours_left, 5]
    assert await history_inconsistencies(sql) == {}


async def test_chunk_does_not_wait_for_users_without_a_change(sql: Sql, database: Database) -> None:
    segment_id = await make_segment(sql, "A")
    await store_users(sql, 3)
    await update_manually(database, USER, add=["A"])
    await set_plan(database, "A", 100)
    await begin_pass_with_sample(database, segment_id)
    change_made, commit = asyncio.Event(), asyncio.Event()

    async def change_and_wait(session: WriteSession) -> None:
        await add(session, ttl=timedelta(hours=1))
        change_made.set()
        await commit.wait()

    changing = asyncio.create_task(database.transaction(change_and_wait))
    await change_made.wait()
    assert await work_chunk(database, segment_id) is StepOutcome.NO_WORK
    assert (await read_rollout(database, segment_id)).status == "COMPLETED"
    commit.set()
    await changing
    assert await members(sql, segment_id) == {**ALL, USER: "MANUAL"}


async def test_setting_a_plan_waits_for_the_chunk_and_begins_a_new_pass(
    sql: Sql, database: Database
) -> None:
    segment_id = await make_segment(sql, "A")
    await store_users(sql, 3)
    await set_plan(database, "A", 100)
    await begin_pass_with_sample(database, segment_id)
    work = partial(passes.advance, segment_id=segment_id)
    await run_during_uncommitted(sql, database, work, lambda: set_plan(database, "A", 0))
    assert await members(sql, segment_id) == ALL
    assert (await read_rollout(database, segment_id)).status == "RUNNING"
    await advance_rollout(database, segment_id)
    assert await members(sql, segment_id) == {}
    assert await history_inconsistencies(sql) == {}


async def test_worker_does_not_wait_for_another_worker_of_the_rollout(
    sql: Sql, database: Database
) -> None:
    segment_id = await make_segment(sql, "A")
    await store_users(sql, 3)
    await set_plan(database, "A", 100)
    await begin_pass_with_sample(database, segment_id)
    change_made, commit = asyncio.Event(), asyncio.Event()

    async def change_and_wait(session: WriteSession) -> None:
        await passes.advance(session, segment_id)
        change_made.set()
        await commit.wait()

    working = asyncio.create_task(database.transaction(change_and_wait))
    await change_made.wait()
    assert await work_chunk(database, segment_id) is StepOutcome.NO_WORK
    await advance_rollout(database, segment_id)
    assert await members(sql, segment_id) == {}  # the first worker has not committed
    commit.set()
    await working
    assert await members(sql, segment_id) == ALL
    assert await history_counts(sql, segment_id) == {("JOINED", "ROLLOUT"): 3}
