"""Memberships of a rollout end at its `expiresAt`, and no user joins after it."""

from datetime import datetime, timedelta

import pytest

from segmentql.adapters.database import Database
from segmentql.adapters.jobs import Message
from segmentql.memberships import actors as membership_actors
from segmentql.memberships.jobs import EXPIRE_DUE_MEMBERSHIPS
from segmentql.memberships.records import OnExisting
from segmentql.rollouts.actors import advance_rollout
from segmentql.rollouts.chunks import CHUNK_USERS
from segmentql.rollouts.jobs import ADVANCE_ROLLOUT
from segmentql.rollouts.passes import StepOutcome
from tests.back_dating import advance_time
from tests.conftest import Sql
from tests.rollouts.helpers import (
    begin_pass_with_sample,
    excluded,
    expected_sample,
    history_counts,
    joins_on_insert,
    members,
    membership_ids,
    read_rollout,
    set_plan,
    stage,
    store_users,
    update_manually,
    work_chunk,
)
from tests.timeline import (
    HOUR,
    SECOND,
    database_now,
    history_entries,
    history_inconsistencies,
    make_segment,
)

DAY = 24 * HOUR
MINUTE = timedelta(minutes=1)


async def ends_of(sql: Sql, segment_id: int) -> dict[int, datetime | None]:
    rows = await sql.fetch(
        "SELECT user_id, expires_at FROM memberships WHERE segment_id = $1", segment_id
    )
    return {row["user_id"]: row["expires_at"] for row in rows}


async def test_new_expiry_applies_to_all_members_of_the_rollout(
    sql: Sql, database: Database
) -> None:
    segment_id = await make_segment(sql, "A")
    users = await store_users(sql, 60)
    sample = expected_sample(segment_id, users, 50)
    by_hand_too, outside = min(sample), min(set(users) - sample)
    await update_manually(database, by_hand_too, add=["A"])
    await update_manually(database, outside, add=["A"], ttl=DAY)
    manual = await ends_of(sql, segment_id)
    now = await database_now(sql)
    first: dict[int, int] | None = None
    for end in (now + DAY, now + 2 * DAY, now + HOUR, None, now + HOUR):
        await set_plan(database, "A", 50, expires_at=end)
        await advance_rollout(database, segment_id)
        expected = {**dict.fromkeys(sample, end), **manual}
        assert await ends_of(sql, segment_id) == expected
        first = first or await membership_ids(sql, segment_id)
    assert await membership_ids(sql, segment_id) == first
    assert await history_counts(sql, segment_id) == {
        ("JOINED", "MANUAL"): 2,
        ("JOINED", "ROLLOUT"): 29,
    }
    assert await history_inconsistencies(sql) == {}


async def test_raising_sets_the_expiry_of_members_outside_the_sample(
    sql: Sql, database: Database
) -> None:
    segment_id = await make_segment(sql, "A")
    lone = next(number for number in range(1, 1000) if not joins_on_insert(segment_id, number, 90))
    await store_users(sql, 1, first=lone)
    await set_plan(database, "A", 50, enroll_new_users=False)
    await advance_rollout(database, segment_id)
    assert set(await members(sql, segment_id)) == {lone}  # half a user rounds up
    others = await store_users(sql, 300, first=1001)
    sample = expected_sample(segment_id, [lone, *others], 60)
    assert lone not in sample
    end = await database_now(sql) + DAY
    await set_plan(database, "A", 60, expires_at=end)
    await advance_rollout(database, segment_id)
    assert await ends_of(sql, segment_id) == dict.fromkeys(sample | {lone}, end)
    # Setting the same percent again is not a raise, so it removes members outside the sample.
    await set_plan(database, "A", 60, expires_at=end)
    await advance_rollout(database, segment_id)
    assert await ends_of(sql, segment_id) == dict.fromkeys(sample, end)


async def test_plan_without_expiry_keeps_members_of_an_expiring_plan(
    sql: Sql, database: Database
) -> None:
    segment_id = await make_segment(sql, "A")
    users = await store_users(sql, 10)
    await set_plan(database, "A", 100, expires_at=await database_now(sql) + MINUTE)
    await advance_rollout(database, segment_id)
    await set_plan(database, "A", 100)
    await advance_rollout(database, segment_id)
    await advance_time(sql, HOUR)
    await membership_actors.expire_due_memberships(database)
    assert set(await members(sql, segment_id)) == set(users)
    assert await history_counts(sql, segment_id) == {("JOINED", "ROLLOUT"): 10}


async def test_expired_rollout_has_no_members_and_adds_none(sql: Sql, database: Database) -> None:
    segment_id = await make_segment(sql, "A")
    await store_users(sql, 10)
    await update_manually(database, 1, add=["A"])
    await update_manually(database, 2, remove=["A"])
    now = await database_now(sql)
    end = now + HOUR
    stages = (stage(100), stage(50, starts_at=now + MINUTE))
    await set_plan(database, "A", *stages, expires_at=end)
    await advance_rollout(database, segment_id)
    assert set(await members(sql, segment_id)) == {1, *range(3, 11)}
    await advance_time(sql, HOUR)
    rollout = await read_rollout(database, segment_id)
    assert (rollout.status, rollout.work_due, rollout.expires_at) == (
        "COMPLETED",
        False,
        end - HOUR,
    )
    assert await members(sql, segment_id) == {1: "MANUAL"}
    await store_users(sql, 10, first=11)
    await advance_rollout(database, segment_id)
    assert await members(sql, segment_id) == {1: "MANUAL"}
    await membership_actors.expire_due_memberships(database)
    await advance_rollout(database, segment_id)
    assert await members(sql, segment_id) == {1: "MANUAL"}
    left = [entry for entry in await history_entries(sql) if entry.cause == "TTL"]
    assert {(entry.operation, entry.at) for entry in left} == {("LEFT", end - HOUR)}
    assert [entry.user_id for entry in left] == list(range(3, 11))
    assert await excluded(sql, segment_id) == {2}
    assert await history_inconsistencies(sql) == {}


async def test_members_of_an_expired_plan_rejoin_with_the_next_plan(
    sql: Sql, database: Database
) -> None:
    segment_id = await make_segment(sql, "A")
    await store_users(sql, 3)
    await set_plan(database, "A", 100, expires_at=await database_now(sql) + MINUTE)
    await advance_rollout(database, segment_id)
    await advance_time(sql, MINUTE)
    assert await members(sql, segment_id) == {}
    await set_plan(database, "A", 100)
    await advance_rollout(database, segment_id)
    assert await members(sql, segment_id) == {1: "ROLLOUT", 2: "ROLLOUT", 3: "ROLLOUT"}
    assert [(e.operation, e.cause) for e in await history_entries(sql, 2)] == [
        ("JOINED", "ROLLOUT"),
        ("LEFT", "TTL"),
        ("JOINED", "ROLLOUT"),
    ]
    assert await history_inconsistencies(sql) == {}


async def test_expiry_during_a_pass_stops_further_joins(sql: Sql, database: Database) -> None:
    segment_id = await make_segment(sql, "A")
    await store_users(sql, CHUNK_USERS + 50)
    await set_plan(database, "A", 100, expires_at=await database_now(sql) + MINUTE)
    await begin_pass_with_sample(database, segment_id)
    assert await work_chunk(database, segment_id) is StepOutcome.MORE_WORK
    await advance_time(sql, MINUTE)
    assert (
        await read_rollout(database, segment_id)
    ).status == "RUNNING"  # members may have to be removed
    await advance_rollout(database, segment_id)
    assert await members(sql, segment_id) == {}
    assert await history_counts(sql, segment_id) == {("JOINED", "ROLLOUT"): CHUNK_USERS}
    assert (await read_rollout(database, segment_id)).status == "COMPLETED"


@pytest.mark.parametrize("earlier", [None, 2 * DAY])
async def test_expiry_before_its_chunk_ends_members_at_the_chunk(
    sql: Sql, database: Database, earlier: timedelta | None
) -> None:
    segment_id = await make_segment(sql, "A")
    await store_users(sql, 5)
    await update_manually(database, 5, add=["A"])
    before = await database_now(sql) + earlier if earlier else None
    await set_plan(database, "A", 100, expires_at=before)
    await advance_rollout(database, segment_id)
    await update_manually(database, 4, remove=["A"])
    await update_manually(database, 4, add=["A"], ttl=DAY)
    await store_users(sql, 1, first=6)
    # No worker runs before the new expiry. Until one does, all memberships keep their old expiry.
    await set_plan(database, "A", 100, expires_at=await database_now(sql) + MINUTE)
    await advance_time(sql, HOUR)
    still_in = {1: "ROLLOUT", 2: "ROLLOUT", 3: "ROLLOUT", 4: "MANUAL", 5: "MANUAL", 6: "ROLLOUT"}
    assert await members(sql, segment_id) == still_in
    start = await database_now(sql)
    await advance_rollout(database, segment_id)
    end = await database_now(sql)
    assert await members(sql, segment_id) == {4: "MANUAL", 5: "MANUAL"}
    await membership_actors.expire_due_memberships(database)
    left = [e for e in await history_entries(sql) if (e.operation, e.cause) == ("LEFT", "TTL")]
    assert [entry.user_id for entry in left] == [1, 2, 3, 6]
    (at,) = {entry.at for entry in left}
    assert start < at < end
    assert await history_inconsistencies(sql) == {}


async def test_manual_add_frees_a_membership_from_the_rollout_expiry(
    sql: Sql, database: Database
) -> None:
    segment_id = await make_segment(sql, "A")
    await store_users(sql, 3)
    end = await database_now(sql) + HOUR
    await set_plan(database, "A", 100, expires_at=end)
    await advance_rollout(database, segment_id)
    await update_manually(database, 1, add=["A"])
    changed = await update_manually(database, 2, add=["A"], ttl=MINUTE)  # the later expiry wins
    assert changed.extended == 0
    await update_manually(database, 3, add=["A"], ttl=MINUTE, on_existing=OnExisting.REPLACE)
    assert await members(sql, segment_id) == dict.fromkeys((1, 2, 3), "MANUAL")
    ends = await ends_of(sql, segment_id)
    assert (ends[1], ends[2]) == (None, end)
    assert ends[3] is not None
    assert ends[3] < end
    await set_plan(database, "A", 100, expires_at=end + DAY)
    await advance_rollout(database, segment_id)
    assert await ends_of(sql, segment_id) == ends


async def test_finished_pass_enqueues_the_expiry_of_its_members(
    sql: Sql, database: Database, sent: list[Message]
) -> None:
    segment_id = await make_segment(sql, "A")
    await store_users(sql, 3)
    await set_plan(database, "A", 100, expires_at=await database_now(sql) + 30 * SECOND)
    assert sent[0] == Message(ADVANCE_ROLLOUT, (segment_id,))
    sent.clear()
    await advance_rollout(database, segment_id)
    (message,) = sent
    assert message.job == EXPIRE_DUE_MEMBERSHIPS
    assert 0 < message.delay_seconds < 30
