"""Back-dated rows of users, segments and memberships. Tests move rows into the past, not clocks."""

from datetime import datetime, timedelta
from typing import NamedTuple

import asyncpg

from tests.conftest import Sql

HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)
MICROSECOND = timedelta(microseconds=1)


class Entry(NamedTuple):
    """A recorded join or leave."""

    at: datetime
    operation: str
    user_id: int
    segment_id: int
    membership_id: int
    cause: str
    actor: str | None


async def database_now(sql: Sql) -> datetime:
    """Return the database's current time."""
    moment: datetime = await sql.fetchval("SELECT clock_timestamp()")
    return moment


async def make_segment(sql: Sql, slug: str) -> int:
    """Store an empty segment that was created a day ago, and return its id."""
    number: int = await sql.fetchval(
        """
        INSERT INTO segments (slug, created_at, updated_at)
        VALUES ($1, clock_timestamp() - interval '1 day', clock_timestamp() - interval '1 day')
        RETURNING id
        """,
        slug,
    )
    return number


async def make_users(sql: Sql, *user_ids: int) -> None:
    """Store users that were created a day ago; existing users stay as they are."""
    await sql.execute(
        """
        INSERT INTO users (id, created_at)
        SELECT id, clock_timestamp() - interval '1 day' FROM unnest($1::bigint[]) AS id
        ON CONFLICT DO NOTHING
        """,
        list(user_ids),
    )


async def add_membership(
    sql: Sql,
    user_id: int,
    segment_id: int,
    *,
    joined_ago: timedelta = 2 * HOUR,
    ends_in: timedelta | None = None,
) -> asyncpg.Record:
    """Store a membership; a negative `ends_in` makes one that has expired."""
    await make_users(sql, user_id)
    row = await sql.fetchrow(
        """
        INSERT INTO memberships (user_id, segment_id, joined_at, updated_at, expires_at, cause)
        SELECT $1, $2, at - $3::interval, at - $3::interval, at + $4::interval, 'MANUAL'
        FROM clock_timestamp() AS at
        RETURNING *
        """,
        user_id,
        segment_id,
        joined_ago,
        ends_in,
    )
    assert row is not None
    return row


async def add_members(sql: Sql, segment_id: int, members: int, *, first_user_id: int = 1) -> None:
    """Store many members who joined an hour ago and whose memberships do not expire."""
    await sql.execute(
        """
        INSERT INTO users (id, created_at)
        SELECT id, clock_timestamp() - interval '1 day'
        FROM generate_series($1::bigint, $1::bigint + $2::bigint - 1) AS id
        ON CONFLICT DO NOTHING
        """,
        first_user_id,
        members,
    )
    await sql.execute(
        """
        INSERT INTO memberships (user_id, segment_id, joined_at, updated_at, cause)
        SELECT id, $3::bigint, at, at, 'MANUAL'
        FROM (SELECT clock_timestamp() - interval '1 hour' AS at OFFSET 0) AS moment,
            generate_series($1::bigint, $1::bigint + $2::bigint - 1) AS id
        """,
        first_user_id,
        members,
        segment_id,
    )


async def mark_deleted(
    sql: Sql, segment_id: int, *, ago: timedelta = timedelta(0), by: str | None = None
) -> datetime:
    """Delete a segment as the service does, but `ago` in the past, and return the moment."""
    at: datetime = await sql.fetchval(
        """
        UPDATE segments SET deleted_at = clock_timestamp() - $2::interval, deleted_by = $3
        WHERE id = $1 RETURNING deleted_at
        """,
        segment_id,
        ago,
        by,
    )
    return at


async def history_entries(sql: Sql, user_id: int | None = None) -> list[Entry]:
    """Return the recorded history of one user or of all, ordered by time."""
    rows = await sql.fetch(
        """
        SELECT at, operation::text, user_id, segment_id, membership_id, cause::text, actor
        FROM history WHERE $1::bigint IS NULL OR user_id = $1
        ORDER BY at, user_id, segment_id, operation
        """,
        user_id,
    )
    return [Entry(*row) for row in rows]


async def history_inconsistencies(sql: Sql) -> dict[str, list[asyncpg.Record]]:
    """Return every contradiction between history and memberships, by kind; empty if they agree.

    The leaves of ended memberships may be recorded or not.
    """
    checks = {
        "moments of a user and segment do not strictly increase, or joins and leaves alternate": """
            SELECT * FROM (
                SELECT user_id, segment_id, at, operation,
                    lag(operation) OVER w AS operation_before, lag(at) OVER w AS at_before,
                    membership_id, lag(membership_id) OVER w AS membership_before
                FROM history WINDOW w AS (
                    PARTITION BY user_id, segment_id ORDER BY at, recorded_at, operation DESC)
            ) AS entry
            WHERE at <= at_before
               OR operation = coalesce(operation_before, 'LEFT')
               OR operation = 'LEFT' AND membership_id <> membership_before
        """,
        "positions repeat, or contradict the time per user and segment": """
            SELECT * FROM (
                SELECT user_id, segment_id, at, operation, position,
                    lag(at) OVER (PARTITION BY user_id, segment_id ORDER BY position) AS at_before,
                    count(*) OVER (PARTITION BY position) AS repetitions
                FROM history
            ) AS entry
            WHERE at <= at_before OR repetitions > 1
        """,
        "the last entry says in, and there is no membership, or the reverse": """
            SELECT user_id, segment_id, last.*, m.* FROM (
                SELECT DISTINCT ON (user_id, segment_id)
                    user_id, segment_id, operation, membership_id, at
                FROM history ORDER BY user_id, segment_id, at DESC
            ) AS last FULL JOIN memberships m USING (user_id, segment_id)
            WHERE (last.operation IS NOT DISTINCT FROM 'JOINED') <> (m.id IS NOT NULL)
               OR m.id IS NOT NULL AND (last.membership_id, last.at) <> (m.id, m.joined_at)
        """,
        "a membership has more than one join or leave": """
            SELECT membership_id, operation, count(*) FROM history
            GROUP BY membership_id, operation HAVING count(*) > 1
        """,
        "a user joined a deleted segment, or left it later than its deletion": """
            SELECT h.*, s.deleted_at FROM history h JOIN segments s ON s.id = h.segment_id
            WHERE h.at > s.deleted_at OR h.at = s.deleted_at AND h.operation = 'JOINED'
        """,
        "a leave with a deleted segment is not dated by the deletion": """
            SELECT h.*, s.deleted_at FROM history h JOIN segments s ON s.id = h.segment_id
            WHERE h.cause = 'SEGMENT_DELETED' AND h.at IS DISTINCT FROM s.deleted_at
        """,
    }
    inconsistencies = {name: list(await sql.fetch(statement)) for name, statement in checks.items()}
    return {name: rows for name, rows in inconsistencies.items() if rows}


async def entries_out_of_order(sql: Sql) -> list[asyncpg.Record]:
    """Return the entries whose position contradicts the time over all segments of their user.

    At equal times, leaves come before joins. The leaves of deleted segments are excepted. Users
    with back-dated memberships may have such entries.
    """
    return list(
        await sql.fetch(
            """
            SELECT * FROM (
                SELECT user_id, segment_id, cause, operation, at, position,
                    lag(operation) OVER w AS operation_before, lag(at) OVER w AS at_before,
                    lag(cause) OVER w AS cause_before
                FROM history WHERE cause <> 'SEGMENT_DELETED'
                WINDOW w AS (PARTITION BY user_id ORDER BY position)
            ) AS entry
            WHERE at < at_before
               OR at = at_before AND operation = 'LEFT' AND operation_before = 'JOINED'
            """
        )
    )
