"""`explain(asOf:)` of memberships: a worker that records an end changes no explanation."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from segmentql.adapters.database import Database
from segmentql.memberships.actors import expire_due_memberships
from segmentql.rollouts.actors import advance_rollout
from tests.back_dating import MICROSECOND, advance_time
from tests.conftest import Api, Sql
from tests.explain.half_rollout import INSIDE, start_half
from tests.explain.operations import explain, reason, segments_as_of
from tests.operations import make_segments, update_user_segments

DAY = timedelta(days=1)


async def read_membership(sql: Sql) -> tuple[datetime, datetime]:
    """Return the start and the end of the only membership."""
    (row,) = await sql.fetch("SELECT joined_at, expires_at FROM memberships")
    return row["joined_at"], row["expires_at"]


async def check_times(api: Api, times: dict[datetime, bool]) -> list[Any]:
    """Check whether the user was in the segment at each time; return the explanations."""
    explanations = []
    for at, is_in in times.items():
        found = await explain(api, as_of=at)
        assert found["isIn"] is is_in, at
        assert (await segments_as_of(api, 7, at) == ["A"]) is is_in, at
        explanations.append(found)
    return explanations


async def test_membership_is_in_from_its_join_until_its_end(
    api: Api, sql: Sql, database: Database
) -> None:
    await make_segments(api, "A")
    await update_user_segments(api, 7, add=["A"], ttlSeconds=60)
    await advance_time(sql, DAY)
    joined, ends = await read_membership(sql)
    times = {
        joined - MICROSECOND: False,
        joined: True,
        ends - MICROSECOND: True,
        ends: False,
        ends + MICROSECOND: False,
    }
    unrecorded = await check_times(api, times)
    assert [found["membership"] for found in unrecorded] == [None] * 5
    assert [found["lastEntry"] and found["lastEntry"]["operation"] for found in unrecorded] == [
        None,
        "JOINED",
        "JOINED",
        "LEFT",
        "LEFT",
    ]
    await expire_due_memberships(database)
    assert await check_times(api, times) == unrecorded


@pytest.mark.parametrize("records_first", [False, True])
async def test_rejoin_hides_neither_the_old_membership_nor_the_gap(
    api: Api, sql: Sql, database: Database, *, records_first: bool
) -> None:
    await make_segments(api, "A")
    await update_user_segments(api, 7, add=["A"], ttlSeconds=60)
    joined, ends = await read_membership(sql)
    await advance_time(sql, DAY)
    if records_first:
        await expire_due_memberships(database)
    await update_user_segments(api, 7, add=["A"])
    rejoined = await sql.fetchval("SELECT joined_at FROM memberships")
    found = await check_times(
        api,
        {
            joined - DAY: True,
            ends - DAY: False,
            rejoined - MICROSECOND: False,
            rejoined: True,
        },
    )
    assert [each["membership"] is not None for each in found] == [False, False, False, True]
    assert [each["reason"] for each in found[1:3]] == ["EXPIRED", "EXPIRED"]


async def test_membership_that_has_not_ended_is_shown_at_a_past_time(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    await update_user_segments(api, 7, add=["A"], ttlSeconds=3600)
    joined, ends = await read_membership(sql)
    found = await explain(api, as_of=joined)
    assert found["membership"]["cause"] == "MANUAL"
    assert datetime.fromisoformat(found["until"]) == ends


async def test_cause_of_a_membership_that_ended_is_the_cause_of_its_join(
    api: Api, sql: Sql, database: Database
) -> None:
    await start_half(api, sql, database)
    await update_user_segments(api, INSIDE, add=["A"], ttlSeconds=60, onExisting="REPLACE")
    at = await sql.fetchval("SELECT updated_at FROM memberships WHERE user_id = $1", INSIDE)
    assert reason(await explain(api, INSIDE, as_of=at)) == (True, "ADDED_BY_HAND")
    await advance_time(sql, DAY)
    unrecorded = await explain(api, INSIDE, as_of=at - DAY)
    assert reason(unrecorded) == (True, "IN_SAMPLE")
    await expire_due_memberships(database)
    assert await explain(api, INSIDE, as_of=at - DAY) == unrecorded


async def test_member_by_hand_whom_the_rollout_keeps(
    api: Api, sql: Sql, database: Database
) -> None:
    """An import that replaces a list can leave a member on the list to the rollout."""
    await start_half(api, sql, database)
    await update_user_segments(api, INSIDE, remove=["A"])
    await update_user_segments(api, INSIDE, add=["A"])
    await sql.execute("UPDATE memberships SET cause = 'ROLLOUT' WHERE user_id = $1", INSIDE)
    await advance_rollout(database, 1)
    found = await explain(api, INSIDE)
    assert reason(found) == (True, "IN_SAMPLE")
    assert found["summary"].endswith(" and kept by the rollout.")
