"""`segments(asOf:)` returns a user's segments at a past moment."""

import asyncio
from datetime import datetime
from typing import Any

import pytest

from segmentql.adapters.database import Database
from segmentql.memberships import expiry
from tests.back_dating import (
    HOUR,
    MICROSECOND,
    NOON,
    delete_segment_at,
    insert_membership,
    insert_past_membership,
)
from tests.conftest import Api, Sql
from tests.operations import (
    create_user,
    delete_segment,
    delete_user,
    make_segments,
    parse_timestamp,
    update_user_segments,
)

AS_OF = "query($at: DateTime) { user(id: 7) { segments(asOf: $at) { slug } } }"


async def slugs(api: Api, at: datetime) -> list[str]:
    data = await api(AS_OF, at=at.isoformat())
    return [segment["slug"] for segment in data["user"]["segments"]]


async def replayed(api: Api) -> list[tuple[datetime, set[str]]]:
    """Replay the user's history: return each moment with the segments from then on."""
    data = await api(
        "{ user(id: 7) { history(first: 100) { nodes { operation at segment { slug } } } } }"
    )
    states: list[tuple[datetime, set[str]]] = []
    inside: set[str] = set()
    for entry in reversed(data["user"]["history"]["nodes"]):
        if entry["operation"] == "LEFT":
            inside = inside - {entry["segment"]["slug"]}
        else:
            inside = inside | {entry["segment"]["slug"]}
        at = parse_timestamp(entry["at"])
        if states and states[-1][0] == at:
            states.pop()
        states.append((at, inside))
    return states


async def assert_as_of_matches_history(api: Api) -> int:
    """Compare `asOf` with the replay at each entry and just before it; return the comparisons."""
    before: set[str] = set()
    states = await replayed(api)
    for at, inside in states:
        assert await slugs(api, at - MICROSECOND) == sorted(before)
        assert await slugs(api, at) == sorted(inside)
        before = inside
    return len(states)


async def test_join_moment_is_inclusive_and_leave_moment_exclusive(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    await create_user(api, id="7")
    await insert_past_membership(sql, 7, "A", joined_at=NOON, left_at=NOON + HOUR)
    assert await slugs(api, NOON - MICROSECOND) == []
    assert await slugs(api, NOON) == ["A"]
    assert await slugs(api, NOON + HOUR - MICROSECOND) == ["A"]
    assert await slugs(api, NOON + HOUR) == []


async def test_unrecorded_leave_ends_the_membership_at_its_moment(
    api: Api, sql: Sql, database: Database
) -> None:
    await make_segments(api, "A", "GONE")
    await insert_membership(sql, 7, "A", joined_at=NOON, expires_at=NOON + HOUR)
    await insert_membership(sql, 7, "GONE", joined_at=NOON)
    await delete_segment_at(sql, "GONE", NOON + 2 * HOUR)
    for _ in ("before", "after"):
        assert await slugs(api, NOON) == ["A", "GONE"]
        assert await slugs(api, NOON + HOUR - MICROSECOND) == ["A", "GONE"]
        assert await slugs(api, NOON + HOUR) == ["GONE"]
        assert await slugs(api, NOON + 2 * HOUR - MICROSECOND) == ["GONE"]
        assert await slugs(api, NOON + 2 * HOUR) == []
        assert await assert_as_of_matches_history(api) == 3
        await database.transaction(expiry.expire_due)
        await database.transaction(lambda session: expiry.record_segment_leaves(session, 2))


async def test_deleted_segment_is_returned_with_its_deletion_time(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    await insert_membership(sql, 7, "A", joined_at=NOON)
    await delete_segment(api, "A")
    await make_segments(api, "A")
    await update_user_segments(api, 7, add=["A"])
    query = "query($at: DateTime) { user(id: 7) { segments(asOf: $at) { id slug deletedAt } } }"
    (old,) = (await api(query, at=NOON.isoformat()))["user"]["segments"]
    (new,) = (await api(query))["user"]["segments"]
    assert (old["slug"], new["slug"]) == ("A", "A")
    assert old["id"] != new["id"]
    assert parse_timestamp(old["deletedAt"]) == await sql.fetchval(
        "SELECT min(deleted_at) FROM segments"
    )
    assert new["deletedAt"] is None


async def test_rejoin_leaves_a_gap_in_the_past(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    await insert_membership(sql, 7, "A", joined_at=NOON, expires_at=NOON + HOUR)
    payload = await update_user_segments(api, 7, add=["A"])
    rejoined_at = parse_timestamp(payload["user"]["memberships"][0]["joinedAt"])
    assert await slugs(api, NOON + HOUR - MICROSECOND) == ["A"]
    assert await slugs(api, NOON + HOUR) == []
    assert await slugs(api, rejoined_at - MICROSECOND) == []
    assert await slugs(api, rejoined_at) == ["A"]


async def test_new_expiry_does_not_change_the_past(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    await insert_membership(
        sql, 7, "A", joined_at=NOON, expires_at=parse_timestamp("2030-01-01T00:00:00.000000Z")
    )
    for arguments in ({"onExisting": "REPLACE", "ttlSeconds": 3600}, {}):
        await update_user_segments(api, 7, add=["A"], **arguments)
        assert await slugs(api, NOON) == ["A"]
        assert await slugs(api, NOON - MICROSECOND) == []


async def test_recreated_user_has_the_old_past(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    await insert_membership(sql, 7, "A", joined_at=NOON)
    await delete_user(api, 7)
    await create_user(api, id="7")
    deleted_at = await sql.fetchval("SELECT deleted_at FROM deleted_users")
    assert await slugs(api, deleted_at - MICROSECOND) == ["A"]
    assert await slugs(api, deleted_at) == []


async def test_as_of_now_equals_the_current_segments(api: Api, sql: Sql) -> None:
    await make_segments(api, "A", "B")
    await update_user_segments(api, 7, add=["B", "A"])
    now = await sql.fetchval("SELECT clock_timestamp()")
    current = await api("{ user(id: 7) { segments { slug } null: segments(asOf: null) { slug } } }")
    assert await slugs(api, now) == ["A", "B"]
    assert current["user"] == {"segments": [{"slug": "A"}, {"slug": "B"}]} | {
        "null": [{"slug": "A"}, {"slug": "B"}]
    }


@pytest.mark.parametrize("offset", ["1 minute", "1000 years"])
async def test_future_moment_is_rejected(api: Api, sql: Sql, offset: str) -> None:
    await create_user(api, id="7")
    future = await sql.fetchval("SELECT now() + $1::text::interval", offset)
    error = await api.error(AS_OF, at=future.isoformat())
    assert error["path"] == ["user", "segments"]
    assert error["extensions"] == {
        "code": "BAD_REQUEST",
        "argument": "asOf",
        "allowed": "a time in the past",
    }


async def test_future_moment_does_not_fail_sibling_fields(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    await insert_membership(sql, 7, "A", joined_at=NOON)
    past, future = await asyncio.gather(
        api.body(AS_OF, at=NOON.isoformat()), api.body(AS_OF, at="9999-01-01T00:00:00Z")
    )
    assert past["data"]["user"]["segments"] == [{"slug": "A"}]
    assert future["errors"][0]["extensions"]["argument"] == "asOf"


async def test_earliest_moment_is_accepted(api: Api) -> None:
    await create_user(api, id="7")
    assert (await api(AS_OF, at="0001-01-01T00:00:00Z"))["user"] == {"segments": []}


async def test_as_of_equals_the_replay_of_history(api: Api, sql: Sql) -> None:
    await make_segments(api, "A", "B", "C")
    await insert_membership(sql, 7, "A", joined_at=NOON, expires_at=NOON + HOUR)
    await insert_membership(sql, 7, "B", joined_at=NOON)
    steps: list[dict[str, Any]] = [
        {"add": ["A", "C"]},
        {"remove": ["A"]},
        {"add": ["A"], "remove": ["B", "C"]},
        {"add": ["B", "C"], "ttlSeconds": 3600},
        {"add": ["B"], "onExisting": "REPLACE"},
        {"remove": ["C"]},
    ]
    for step in steps:
        await update_user_segments(api, 7, **step)
    await delete_segment(api, "A")
    assert await assert_as_of_matches_history(api) == 8
    assert await slugs(api, await sql.fetchval("SELECT clock_timestamp()")) == ["B"]
