"""If PostgreSQL's clock was set back, `explain` and `segments(asOf:)` agree about overlapping rows.

Two segments of one slug, or two lifetimes of one user, can then exist at one time. The one that was
stored last counts. The tests back-date rows and leave the clock alone.
"""

from datetime import timedelta

import pytest

from tests.conftest import Api, Sql
from tests.explain.operations import explain, segments_as_of
from tests.operations import (
    create_user,
    delete_segment,
    delete_user,
    make_segments,
    update_user_segments,
)
from tests.rollouts.graphql_client import set_rollout

HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)


async def make_overlapping_segments(api: Api, sql: Sql, *, joins_second: bool) -> None:
    """Create segment A with user 7 until now, and another segment A as of an hour ago."""
    await make_segments(api, "A")
    await update_user_segments(api, 7, add=["A"])
    await delete_segment(api, "A")
    await make_segments(api, "A")
    if joins_second:
        await update_user_segments(api, 7, add=["A"])
    await sql.execute("SET session_replication_role = replica")
    await sql.execute("UPDATE users SET created_at = created_at - interval '3 hours'")
    await sql.execute(
        """
        UPDATE segments SET created_at =
            created_at - CASE id WHEN 1 THEN interval '2 hours' ELSE interval '1 hour' END
        """
    )
    for table, column in (("memberships", "joined_at"), ("history", "at")):
        # The membership of the second segment began half an hour ago.
        await sql.execute(
            f"""
            UPDATE {table} SET {column} = {column} - CASE segment_id
                WHEN 1 THEN interval '2 hours' ELSE interval '30 minutes' END
            {"WHERE operation = 'JOINED'" if table == "history" else ""}
            """
        )
    await sql.execute("SET session_replication_role = origin")


@pytest.mark.parametrize("joins_second", [False, True])
async def test_segment_that_was_created_last_has_the_slug(
    api: Api, sql: Sql, *, joins_second: bool
) -> None:
    await make_overlapping_segments(api, sql, joins_second=joins_second)
    created = await sql.fetchval("SELECT created_at FROM segments WHERE id = 2")
    for at, segment, is_in in (
        (created - SECOND, "seg_1", True),
        (created, "seg_2", False),
        (created + HOUR / 4, "seg_2", False),
        (created + HOUR * 3 / 4, "seg_2", joins_second),
    ):
        found = await explain(api, as_of=at)
        assert (found["segment"]["id"], found["isIn"]) == (segment, is_in), at
        assert await segments_as_of(api, 7, at, "id") == [segment] * is_in, at
    assert (await explain(api))["isIn"] is joins_second


async def test_lifetime_that_was_stored_last_counts(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    for _ in range(3):
        await create_user(api, id="7")
        await delete_user(api, 7)
    await create_user(api, id="7")
    await sql.execute(
        """
        UPDATE user_lifetimes SET created_at = created_at - CASE id
            WHEN 1 THEN interval '5 hours' WHEN 2 THEN interval '7 hours' ELSE interval '6 hours'
            END
        """
    )
    await sql.execute("UPDATE users SET created_at = created_at - interval '4 hours'")
    await sql.execute("UPDATE segments SET created_at = created_at - interval '1 day'")
    starts = {
        row["id"]: row["created_at"]
        for row in await sql.fetch(
            """
            SELECT id, created_at FROM user_lifetimes
            UNION ALL SELECT 4, created_at FROM users
            """
        )
    }
    for at, lifetime in (
        (starts[2] + SECOND, 2),
        (starts[3] + SECOND, 3),
        (starts[1] + SECOND, 3),
        (starts[4] + SECOND, 4),
    ):
        (step,) = (
            step
            for step in (await explain(api, as_of=at))["steps"]
            if step["check"] == "user is stored"
        )
        assert step["detail"] == f"The user was stored on {starts[lifetime]:%Y-%m-%d %H:%M:%S} UTC."
    assert (await explain(api, as_of=starts[2] - SECOND))["reason"] == "USER_NOT_STORED"


async def test_leave_with_an_earlier_lifetime_is_older_than_the_stored_user(
    api: Api, sql: Sql
) -> None:
    await make_segments(api, "A")
    await set_rollout(api, {"percent": 0.001})
    await update_user_segments(api, 7, add=["A"])
    await delete_user(api, 7)
    await create_user(api, id="7")
    before = await explain(api)
    await sql.execute("UPDATE users SET created_at = created_at - interval '1 hour'")
    assert (await explain(api))["reason"] == before["reason"] == "PASS_NOT_FINISHED"
