"""Positions of history follow the order of time, user, and leaves before joins in a transaction.

`history_inconsistencies` checks in every test with concurrent changes that positions are unique,
and that they follow the time per user and segment.
"""

from datetime import timedelta

from segmentql.adapters.database import Database
from segmentql.memberships import expiry
from segmentql.principal import NO_ACTOR
from segmentql.rollouts.actors import advance_rollout
from segmentql.rollouts.service import delete_segment_with_rollout as delete_segment
from segmentql.users.service import delete_user
from tests.conftest import Sql
from tests.rollouts.helpers import cancel, set_plan, store_users
from tests.timeline import (
    HOUR,
    add_members,
    add_membership,
    history_inconsistencies,
    make_segment,
    make_users,
)

UNORDERED = """
SELECT * FROM (
    SELECT position, at, user_id, operation,
        lag((at, user_id, operation)) OVER (PARTITION BY xmin::text ORDER BY position) AS before
    FROM history
) AS entry
WHERE (at, user_id, operation) < before
"""
"""The rows of a transaction that contradict its order. LEFT is less than JOINED."""


async def assert_ordered(sql: Sql) -> None:
    assert await sql.fetch(UNORDERED) == []
    assert await history_inconsistencies(sql) == {}


async def operations(sql: Sql) -> list[tuple[int, str, str]]:
    """Return the user, operation and cause of each row in order of position."""
    rows = await sql.fetch(
        "SELECT user_id, operation::text, cause::text FROM history ORDER BY position"
    )
    return [tuple(row) for row in rows]


async def test_joins_of_one_statement_are_ordered_by_time_and_user(sql: Sql) -> None:
    segment_id = await make_segment(sql, "A")
    await make_users(sql, 1, 2, 3, 4)
    await sql.execute(
        """
        INSERT INTO memberships (user_id, segment_id, joined_at, updated_at, cause)
        SELECT user_id, $1, at, at, 'MANUAL'
        FROM (VALUES (4, 1), (3, 0), (1, 1), (2, 0)) AS v (user_id, minutes),
            LATERAL (SELECT timestamptz '2026-03-04Z' + make_interval(mins => minutes) AS at) AS t
        """,
        segment_id,
    )
    assert [user_id for user_id, *_ in await operations(sql)] == [2, 3, 1, 4]


async def test_rejoins_leave_at_the_old_end_and_then_join(sql: Sql, database: Database) -> None:
    segment_id = await make_segment(sql, "A")
    for user_id in (3, 1, 2):
        await add_membership(sql, user_id, segment_id, ends_in=-HOUR)
    await sql.execute(
        """
        UPDATE memberships SET id = id + 1000, joined_at = clock_timestamp(),
            updated_at = clock_timestamp(), expires_at = NULL
        """
    )
    assert [operation for _, operation, _ in await operations(sql)] == ["JOINED"] * 3 + [
        "LEFT"
    ] * 3 + ["JOINED"] * 3
    await assert_ordered(sql)


async def test_expired_leaves_are_ordered_by_their_ends(sql: Sql, database: Database) -> None:
    first, second = await make_segment(sql, "A"), await make_segment(sql, "B")
    for user_id, segment_id, minutes in ((1, first, 5), (2, first, 50), (1, second, 20)):
        await add_membership(sql, user_id, segment_id, ends_in=-timedelta(minutes=minutes))
    await database.transaction(expiry.expire_due)
    assert [user_id for user_id, *_ in await operations(sql)][3:] == [2, 1, 1]
    await assert_ordered(sql)


async def test_deleted_user_leaves_all_segments_in_order(sql: Sql, database: Database) -> None:
    for slug, ends_in in (("A", None), ("B", -HOUR), ("C", None), ("D", -HOUR / 2)):
        await add_membership(sql, 1, await make_segment(sql, slug), ends_in=ends_in)
    await database.transaction(lambda session: delete_user(session, 1, actor=NO_ACTOR))
    assert [cause for _, operation, cause in await operations(sql) if operation == "LEFT"] == [
        "TTL",
        "TTL",
        "USER_DELETED",
        "USER_DELETED",
    ]
    await assert_ordered(sql)


async def test_leaves_of_a_deleted_segment_are_ordered_in_each_chunk(
    sql: Sql, database: Database
) -> None:
    segment_id = await make_segment(sql, "A")
    await add_members(sql, segment_id, 25)
    await database.transaction(
        lambda session: delete_segment(session, slug="A", expected_version=None, actor=NO_ACTOR)
    )
    while await database.transaction(
        lambda session: expiry.record_segment_leaves(session, segment_id, rows=10)
    ):
        pass
    left = [user_id for user_id, operation, _ in await operations(sql) if operation == "LEFT"]
    assert left == list(range(1, 26))
    await assert_ordered(sql)


async def test_rollout_chunks_are_ordered(sql: Sql, database: Database) -> None:
    segment_id = await make_segment(sql, "A")
    await store_users(sql, 100)
    await set_plan(database, "A", 100)
    await advance_rollout(database, segment_id)
    joined = [user_id for user_id, _, cause in await operations(sql) if cause == "ROLLOUT"]
    assert joined == list(range(1, 101))
    await cancel(database, "A", withdraw=True)
    await advance_rollout(database, segment_id)
    left = [user_id for user_id, operation, cause in await operations(sql) if cause == "ROLLOUT"]
    assert left[100:] == list(range(1, 101))
    await assert_ordered(sql)
