"""`memberCount(asOf:)` and `memberCounts` count the members at each moment of the past."""

from datetime import datetime, timedelta
from functools import partial
from typing import Any

import pytest

from segmentql.adapters.database import Database
from segmentql.memberships import expiry
from segmentql.validators import MAX_COUNT_POINTS
from tests.back_dating import (
    HOUR,
    MICROSECOND,
    NOON,
    delete_segment_at,
    insert_membership,
    insert_past_membership,
)
from tests.conftest import Api, Sql
from tests.history.count_queries import COUNT, SERIES, count, counts, series
from tests.operations import delete_segment, delete_user, make_segments, update_user_segments

DELETED = """
query($asOf: DateTime!, $from: DateTime!, $to: DateTime!) {
  history { nodes { segment {
    now: memberCount memberCount(asOf: $asOf)
    memberCounts(from: $from, to: $to, points: 5) { count }
  } } }
}
"""


async def test_join_moment_is_inclusive_and_leave_moment_exclusive(api: Api, sql: Sql) -> None:
    await make_segments(api, "A", "B")
    await insert_past_membership(sql, 1, "A", joined_at=NOON, left_at=NOON + HOUR)
    await insert_past_membership(sql, 2, "A", joined_at=NOON, left_at=NOON + 2 * HOUR)
    await insert_past_membership(sql, 3, "B", joined_at=NOON, left_at=NOON + 2 * HOUR)
    assert await count(api, NOON - MICROSECOND) == 0
    assert await count(api, NOON) == 2
    assert await count(api, NOON + HOUR - MICROSECOND) == 2
    assert await count(api, NOON + HOUR) == 1
    assert await count(api, NOON + 2 * HOUR) == 0


async def test_rejoin_within_an_hour_is_counted_at_each_moment(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    minute = HOUR / 60
    await insert_past_membership(sql, 1, "A", joined_at=NOON, left_at=NOON + minute)
    await insert_past_membership(
        sql, 1, "A", joined_at=NOON + 2 * minute, left_at=NOON + 3 * minute
    )
    await insert_membership(sql, 1, "A", joined_at=NOON + 4 * minute)
    found = await series(api, NOON - minute, NOON + 5 * minute, points=7)
    assert counts(found) == [0, 1, 0, 1, 0, 1, 1]


async def test_points_are_at_equal_distances_and_include_both_ends(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    await insert_past_membership(sql, 1, "A", joined_at=NOON, left_at=NOON + HOUR)
    found = await series(api, NOON, NOON + HOUR, points=4)
    assert found == [
        {"at": "2024-03-01T12:00:00.000000Z", "count": 1},
        {"at": "2024-03-01T12:20:00.000000Z", "count": 1},
        {"at": "2024-03-01T12:40:00.000000Z", "count": 1},
        {"at": "2024-03-01T13:00:00.000000Z", "count": 0},
    ]
    rounded = await series(api, NOON, NOON + MICROSECOND, points=3)
    assert [point["at"][-7:] for point in rounded] == ["000000Z"] * 2 + ["000001Z"]


async def test_single_point_is_the_end(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    await insert_past_membership(sql, 1, "A", joined_at=NOON, left_at=NOON + HOUR)
    found = await series(api, NOON, NOON + HOUR, points=1)
    assert found == [{"at": "2024-03-01T13:00:00.000000Z", "count": 0}]


async def test_series_of_one_moment_repeats_it(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    await insert_membership(sql, 1, "A", joined_at=NOON)
    assert counts(await series(api, NOON, NOON, points=3)) == [1, 1, 1]


@pytest.mark.parametrize("points", [{}, {"points": None}])
async def test_default_is_a_hundred_points(api: Api, points: Any) -> None:
    await make_segments(api, "A")
    assert counts(await series(api, NOON, NOON + HOUR, **points)) == [0] * 100


async def test_earliest_time_is_accepted(api: Api) -> None:
    await make_segments(api, "A")
    earliest = datetime.fromisoformat("0001-01-01T00:00:00Z")
    assert await count(api, earliest) == 0
    found = await series(api, earliest, NOON, points=MAX_COUNT_POINTS)
    assert counts(found) == [0] * MAX_COUNT_POINTS


async def test_unrecorded_leave_ends_the_membership_at_its_moment(
    api: Api, sql: Sql, database: Database
) -> None:
    await make_segments(api, "A")
    await insert_membership(sql, 1, "A", joined_at=NOON, expires_at=NOON + HOUR)
    await insert_membership(sql, 2, "A", joined_at=NOON)
    for _ in ("before", "after"):
        assert await count(api, NOON + HOUR - MICROSECOND) == 2
        assert await count(api, NOON + HOUR) == 1
        assert counts(await series(api, NOON, NOON + 2 * HOUR, points=5)) == [2, 2, 1, 1, 1]
        await database.transaction(expiry.expire_due)


async def test_deleted_segment_has_members_until_its_deletion(
    api: Api, sql: Sql, database: Database
) -> None:
    await make_segments(api, "A")
    for user_id in range(1, 5):
        await insert_membership(sql, user_id, "A", joined_at=NOON)
    await insert_membership(sql, 5, "A", joined_at=NOON, expires_at=NOON + HOUR)
    await insert_membership(sql, 6, "A", joined_at=NOON, expires_at=NOON + 3 * HOUR)
    deleted_at = NOON + 2 * HOUR
    await delete_segment_at(sql, "A", deleted_at)

    async def assert_counts() -> None:
        end = {"from": NOON.isoformat(), "to": (NOON + 4 * HOUR).isoformat()}
        for at, expected in ((deleted_at - MICROSECOND, 5), (deleted_at, 0)):
            data = await api(DELETED, asOf=at.isoformat(), **end)
            for node in data["history"]["nodes"]:
                assert node["segment"] == {
                    "now": 0,
                    "memberCount": expected,
                    "memberCounts": [{"count": number} for number in (6, 5, 0, 0, 0)],
                }

    await assert_counts()
    for rows in (2, 100):
        await database.transaction(partial(expiry.record_segment_leaves, segment_id=1, rows=rows))
        await assert_counts()


async def test_segment_with_a_reused_slug_has_its_own_counts(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    await insert_membership(sql, 1, "A", joined_at=NOON)
    await delete_segment(api, "A")
    await make_segments(api, "A")
    assert await count(api, NOON) == 0
    await insert_membership(sql, 2, "A", joined_at=NOON)
    await insert_membership(sql, 3, "A", joined_at=NOON)
    assert await count(api, NOON) == 2


async def test_deleted_user_is_counted_until_the_deletion(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    await insert_membership(sql, 1, "A", joined_at=NOON)
    await delete_user(api, 1)
    deleted_at = await sql.fetchval("SELECT deleted_at FROM deleted_users")
    assert await count(api, deleted_at - MICROSECOND) == 1
    assert await count(api, deleted_at) == 0


async def test_count_as_of_now_equals_the_current_count(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    await update_user_segments(api, 1, add=["A"], ttlSeconds=3600)
    await update_user_segments(api, 2, add=["A"])
    await update_user_segments(api, 3, add=["A"])
    await update_user_segments(api, 3, remove=["A"])
    now = await sql.fetchval("SELECT clock_timestamp()")
    data = await api("""{ segment(slug: "A") { memberCount null: memberCount(asOf: null) } }""")
    assert data["segment"] == {"memberCount": 2, "null": 2}
    assert await count(api, now) == 2


async def test_future_times_are_rejected(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    now = await sql.fetchval("SELECT now()")
    soon = (now + timedelta(minutes=1)).isoformat()
    error = await api.error(COUNT, asOf=soon)
    rejected = {"code": "BAD_REQUEST", "allowed": "a time in the past"}
    assert (error["path"], error["extensions"]) == (
        ["segment", "memberCount"],
        {**rejected, "argument": "asOf"},
    )
    error = await api.error(SERIES, **{"from": NOON.isoformat(), "to": soon})
    assert (error["path"], error["extensions"]) == (
        ["segment", "memberCounts"],
        {**rejected, "argument": "to"},
    )


async def test_future_time_does_not_fail_sibling_fields(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    await insert_membership(sql, 1, "A", joined_at=NOON)
    body = await api.body(
        """{ past: segment(slug: "A") { memberCount(asOf: "2024-03-01T12:00:00Z") }
        future: segment(slug: "A") { memberCount(asOf: "9999-03-01T12:00:00Z") } }"""
    )
    assert body["data"] == {"past": {"memberCount": 1}, "future": None}
    assert [error["path"] for error in body["errors"]] == [["future", "memberCount"]]


async def test_from_after_to_is_rejected(api: Api) -> None:
    await make_segments(api, "A")
    times = {"from": (NOON + MICROSECOND).isoformat(), "to": NOON.isoformat()}
    assert (await api.error(SERIES, **times))["extensions"] == {
        "code": "BAD_REQUEST",
        "argument": "from",
        "allowed": "a time that is not after `to`",
    }


async def test_number_of_points_has_a_minimum_and_a_maximum(api: Api) -> None:
    await make_segments(api, "A")
    times = {"from": NOON.isoformat(), "to": NOON.isoformat()}
    for points in (0, -1):
        assert (await api.error(SERIES, points=points, **times))["extensions"] == {
            "code": "BAD_REQUEST",
            "argument": "points",
            "allowed": "1 to 500",
        }
    assert (await api.error(SERIES, points=501, **times))["extensions"] == {
        "code": "LIMIT_EXCEEDED",
        "argument": "points",
        "limit": 500,
        "value": 501,
    }
