"""A rollout's `expiresAt`: the end of those whom it brings in, and of its bringing anybody in."""

from datetime import datetime, timedelta

import pytest

from segmentql.adapters.database import Database
from segmentql.adapters.jobs import ADVANCE_ROLLOUT, END_DUE_MEMBERSHIPS, Message
from segmentql.memberships import actors as ends
from segmentql.memberships.service import OnExisting
from segmentql.rollouts.actors import advance_rollout
from segmentql.rollouts.passes import CHUNK_USERS, StepOutcome
from tests.conftest import Sql
from tests.past import let_pass
from tests.rollouts.helpers import (
    begin_and_sample,
    by_hand,
    chunk,
    excluded,
    in_range,
    members,
    membership_ids,
    rollout_of,
    sample_of,
    set_plan,
    stage,
    store_users,
    written,
)
from tests.timeline import HOUR, SECOND, clock, lies_of_history, make_segment, recorded

DAY = 24 * HOUR
MINUTE = timedelta(minutes=1)


async def ends_of(sql: Sql, segment_id: int) -> dict[int, datetime | None]:
    rows = await sql.fetch(
        "SELECT user_id, expires_at FROM memberships WHERE segment_id = $1", segment_id
    )
    return {row["user_id"]: row["expires_at"] for row in rows}


async def test_members_end_with_the_rollout_and_a_new_end_is_given_to_all_it_brought_in(
    sql: Sql, database: Database
) -> None:
    segment_id = await make_segment(sql, "A")
    users = await store_users(sql, 60)
    sample = sample_of(segment_id, users, 50)
    by_hand_too, outside = min(sample), min(set(users) - sample)
    await by_hand(database, by_hand_too, add=["A"])
    await by_hand(database, outside, add=["A"], ttl=DAY)
    manual = await ends_of(sql, segment_id)
    now = await clock(sql)
    first: dict[int, int] | None = None
    for end in (now + DAY, now + 2 * DAY, now + HOUR, None, now + HOUR):
        await set_plan(database, "A", 50, expires_at=end)
        await advance_rollout(database, segment_id)
        expected = {**dict.fromkeys(sample, end), **manual}
        assert await ends_of(sql, segment_id) == expected
        first = first or await membership_ids(sql, segment_id)
    assert await membership_ids(sql, segment_id) == first
    assert await written(sql, segment_id) == {
        ("JOINED", "MANUAL"): 2,
        ("JOINED", "ROLLOUT"): 29,
    }
    assert await lies_of_history(sql) == {}


async def test_raising_gives_the_new_end_to_those_beyond_the_sample_too(
    sql: Sql, database: Database
) -> None:
    segment_id = await make_segment(sql, "A")
    lone = next(number for number in range(1, 1000) if not in_range(segment_id, number, 90))
    await store_users(sql, 1, first=lone)
    await set_plan(database, "A", 50, enroll_new_users=False)
    await advance_rollout(database, segment_id)
    assert set(await members(sql, segment_id)) == {lone}  # half of one user is one
    others = await store_users(sql, 300, first=1001)
    sample = sample_of(segment_id, [lone, *others], 60)
    assert lone not in sample
    end = await clock(sql) + DAY
    await set_plan(database, "A", 60, expires_at=end)
    await advance_rollout(database, segment_id)
    assert await ends_of(sql, segment_id) == dict.fromkeys(sample | {lone}, end)
    # The same percent once more is no raise: it makes the sample exact.
    await set_plan(database, "A", 60, expires_at=end)
    await advance_rollout(database, segment_id)
    assert await ends_of(sql, segment_id) == dict.fromkeys(sample, end)


async def test_a_plan_without_an_end_keeps_whom_an_earlier_one_would_have_let_go(
    sql: Sql, database: Database
) -> None:
    segment_id = await make_segment(sql, "A")
    users = await store_users(sql, 10)
    await set_plan(database, "A", 100, expires_at=await clock(sql) + MINUTE)
    await advance_rollout(database, segment_id)
    await set_plan(database, "A", 100)
    await advance_rollout(database, segment_id)
    await let_pass(sql, HOUR)
    await ends.end_due_memberships(database)
    assert set(await members(sql, segment_id)) == set(users)
    assert await written(sql, segment_id) == {("JOINED", "ROLLOUT"): 10}


async def test_after_its_end_everybody_it_brought_in_is_out_and_nobody_joins(
    sql: Sql, database: Database
) -> None:
    segment_id = await make_segment(sql, "A")
    await store_users(sql, 10)
    await by_hand(database, 1, add=["A"])
    await by_hand(database, 2, remove=["A"])
    now = await clock(sql)
    end = now + HOUR
    stages = (stage(100), stage(50, starts_at=now + MINUTE))
    await set_plan(database, "A", *stages, expires_at=end)
    await advance_rollout(database, segment_id)
    assert set(await members(sql, segment_id)) == {1, *range(3, 11)}
    await let_pass(sql, HOUR)
    rollout = await rollout_of(database, segment_id)
    assert (rollout.status, rollout.work_due, rollout.expires_at) == (
        "COMPLETED",
        False,
        end - HOUR,
    )
    assert await members(sql, segment_id) == {1: "MANUAL"}
    await store_users(sql, 10, first=11)
    await advance_rollout(database, segment_id)
    assert await members(sql, segment_id) == {1: "MANUAL"}
    await ends.end_due_memberships(database)
    await advance_rollout(database, segment_id)
    assert await members(sql, segment_id) == {1: "MANUAL"}
    left = [entry for entry in await recorded(sql) if entry.cause == "TTL"]
    assert {(entry.operation, entry.at) for entry in left} == {("LEFT", end - HOUR)}
    assert [entry.user_id for entry in left] == list(range(3, 11))
    assert await excluded(sql, segment_id) == {2}
    assert await lies_of_history(sql) == {}


async def test_who_ended_with_one_plan_is_put_in_by_the_next(sql: Sql, database: Database) -> None:
    segment_id = await make_segment(sql, "A")
    await store_users(sql, 3)
    await set_plan(database, "A", 100, expires_at=await clock(sql) + MINUTE)
    await advance_rollout(database, segment_id)
    await let_pass(sql, MINUTE)
    assert await members(sql, segment_id) == {}
    await set_plan(database, "A", 100)
    await advance_rollout(database, segment_id)
    assert await members(sql, segment_id) == {1: "ROLLOUT", 2: "ROLLOUT", 3: "ROLLOUT"}
    assert [(e.operation, e.cause) for e in await recorded(sql, 2)] == [
        ("JOINED", "ROLLOUT"),
        ("LEFT", "TTL"),
        ("JOINED", "ROLLOUT"),
    ]
    assert await lies_of_history(sql) == {}


async def test_an_end_that_passes_during_the_pass_stops_it_from_putting_anybody_in(
    sql: Sql, database: Database
) -> None:
    segment_id = await make_segment(sql, "A")
    await store_users(sql, CHUNK_USERS + 50)
    await set_plan(database, "A", 100, expires_at=await clock(sql) + MINUTE)
    await begin_and_sample(database, segment_id)
    assert await chunk(database, segment_id) is StepOutcome.MORE_WORK
    await let_pass(sql, MINUTE)
    assert (await rollout_of(database, segment_id)).status == "RUNNING"  # it may have to take out
    await advance_rollout(database, segment_id)
    assert await members(sql, segment_id) == {}
    assert await written(sql, segment_id) == {("JOINED", "ROLLOUT"): CHUNK_USERS}
    assert (await rollout_of(database, segment_id)).status == "COMPLETED"


@pytest.mark.parametrize("earlier", [None, 2 * DAY])
async def test_an_end_that_has_passed_when_its_chunk_comes_ends_members_at_that_chunk(
    sql: Sql, database: Database, earlier: timedelta | None
) -> None:
    segment_id = await make_segment(sql, "A")
    await store_users(sql, 5)
    await by_hand(database, 5, add=["A"])
    before = await clock(sql) + earlier if earlier else None
    await set_plan(database, "A", 100, expires_at=before)
    await advance_rollout(database, segment_id)
    await by_hand(database, 4, remove=["A"])
    await by_hand(database, 4, add=["A"], ttl=DAY)
    await store_users(sql, 1, first=6)
    # No worker comes before the new end has passed. Until one does, all are in by what they have.
    await set_plan(database, "A", 100, expires_at=await clock(sql) + MINUTE)
    await let_pass(sql, HOUR)
    still_in = {1: "ROLLOUT", 2: "ROLLOUT", 3: "ROLLOUT", 4: "MANUAL", 5: "MANUAL", 6: "ROLLOUT"}
    assert await members(sql, segment_id) == still_in
    start = await clock(sql)
    await advance_rollout(database, segment_id)
    end = await clock(sql)
    assert await members(sql, segment_id) == {4: "MANUAL", 5: "MANUAL"}
    await ends.end_due_memberships(database)
    left = [e for e in await recorded(sql) if (e.operation, e.cause) == ("LEFT", "TTL")]
    assert [entry.user_id for entry in left] == [1, 2, 3, 6]
    (at,) = {entry.at for entry in left}
    assert start < at < end
    assert await lies_of_history(sql) == {}


async def test_taking_over_by_hand_frees_a_membership_from_the_rollouts_end(
    sql: Sql, database: Database
) -> None:
    segment_id = await make_segment(sql, "A")
    await store_users(sql, 3)
    end = await clock(sql) + HOUR
    await set_plan(database, "A", 100, expires_at=end)
    await advance_rollout(database, segment_id)
    await by_hand(database, 1, add=["A"])
    changed = await by_hand(database, 2, add=["A"], ttl=MINUTE)  # the later of the two ends
    assert changed.extended == 0
    await by_hand(database, 3, add=["A"], ttl=MINUTE, on_existing=OnExisting.REPLACE)
    assert await members(sql, segment_id) == dict.fromkeys((1, 2, 3), "MANUAL")
    found = await ends_of(sql, segment_id)
    assert (found[1], found[2]) == (None, end)
    assert found[3] is not None
    assert found[3] < end
    await set_plan(database, "A", 100, expires_at=end + DAY)
    await advance_rollout(database, segment_id)
    assert await ends_of(sql, segment_id) == found


async def test_the_end_of_a_pass_has_its_members_tidied_in_time(
    sql: Sql, database: Database, sent: list[Message]
) -> None:
    segment_id = await make_segment(sql, "A")
    await store_users(sql, 3)
    await set_plan(database, "A", 100, expires_at=await clock(sql) + 30 * SECOND)
    assert sent[0] == Message(ADVANCE_ROLLOUT, (segment_id,))
    sent.clear()
    await advance_rollout(database, segment_id)
    (message,) = sent
    assert message.job == END_DUE_MEMBERSHIPS
    assert 0 < message.delay_seconds < 30
