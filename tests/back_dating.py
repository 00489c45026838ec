"""Back-dated rows and table contents for tests.

Tests move rows into the past and leave clocks alone.
"""

from datetime import UTC, datetime, timedelta

from tests.conftest import Sql

TABLES = (
    "users",
    "user_lifetimes",
    "deleted_users",
    "id_allocator",
    "segments",
    "memberships",
    "user_lifetimes",
    "exclusions",
    "exclusion_log",
    "history",
    "rollouts",
    "rollout_stages",
    "rollout_events",
    "rollout_passes",
    "reports",
    "exports",
    "api_keys",
    "audit_log",
)
NOON = datetime(2024, 3, 1, 12, tzinfo=UTC)
"""A moment in the past."""

HOUR = timedelta(hours=1)
MICROSECOND = timedelta(microseconds=1)


async def all_rows(sql: Sql) -> dict[str, list[str]]:
    """Return every row of every table, for a comparison before and after."""
    return {
        table: [
            str(record[0])
            for record in await sql.fetch(f"SELECT to_json(t)::text FROM {table} t ORDER BY 1")
        ]
        for table in TABLES
    }


async def insert_membership(
    sql: Sql,
    user_id: int,
    slug: str,
    *,
    joined_at: datetime = NOON,
    expires_at: datetime | None = None,
    cause: str = "MANUAL",
) -> int:
    """Store a membership as if the user had joined at `joined_at`, and return its number.

    A membership with an `expires_at` in the past has expired and its leave is not yet recorded.
    """
    await sql.execute(
        "INSERT INTO users (id, created_at) VALUES ($1, $2) ON CONFLICT DO NOTHING",
        user_id,
        joined_at,
    )
    number: int = await sql.fetchval(
        """
        INSERT INTO memberships (user_id, segment_id, joined_at, updated_at, expires_at, cause)
        SELECT $1, id, $3, $3, $4, $5 FROM segments WHERE slug = $2 AND deleted_at IS NULL
        RETURNING id
        """,
        user_id,
        slug,
        joined_at,
        expires_at,
        cause,
    )
    return number


async def insert_past_membership(
    sql: Sql,
    user_id: int,
    slug: str,
    *,
    joined_at: datetime,
    left_at: datetime,
    why_left: str = "MANUAL",
) -> int:
    """Store the recorded join and leave of an ended membership, and return its number."""
    number: int = await sql.fetchval("SELECT nextval(pg_get_serial_sequence('memberships', 'id'))")
    segment_id = await sql.fetchval(
        "SELECT id FROM segments WHERE slug = $1 AND deleted_at IS NULL", slug
    )
    await sql.executemany(
        """
        INSERT INTO history
            (user_id, at, segment_id, operation, membership_id, cause, recorded_at)
        VALUES ($1, $2, $3, $4, $5, $6, $2)
        """,
        [
            (user_id, joined_at, segment_id, "JOINED", number, "MANUAL"),
            (user_id, left_at, segment_id, "LEFT", number, why_left),
        ],
    )
    return number


async def delete_segment_at(sql: Sql, slug: str, deleted_at: datetime) -> None:
    """Delete a segment as of `deleted_at`. Its leaves are not recorded."""
    await sql.execute(
        "UPDATE segments SET deleted_at = $2 WHERE slug = $1 AND deleted_at IS NULL",
        slug,
        deleted_at,
    )


async def advance_time(sql: Sql, interval: timedelta) -> None:
    """Advance the time by moving every stored timestamp back by `interval`."""
    async with sql.transaction():
        await sql.execute("SET LOCAL session_replication_role = replica")
        for table, columns in {
            "users": ["created_at"],
            "deleted_users": ["deleted_at"],
            "segments": ["created_at", "updated_at", "deleted_at", "leaves_recorded_at"],
            "memberships": ["joined_at", "updated_at", "expires_at"],
            "user_lifetimes": ["created_at", "deleted_at"],
            "exclusions": ["excluded_at"],
            "exclusion_log": ["at"],
            "history": ["at", "recorded_at"],
            "rollouts": ["expires_at", "paused_at", "started_at", "finished_at", "heartbeat_at"],
            "rollout_stages": ["starts_at", "done_at"],
            "rollout_events": ["at", "expires_at", "paused_at"],
            "rollout_passes": ["started_at", "sampled_at", "finished_at"],
        }.items():
            moved = ", ".join(f"{column} = {column} - $1::interval" for column in columns)
            await sql.execute(f"UPDATE {table} SET {moved}", interval)
        # The moved history is rolled up again.
        await sql.execute("DELETE FROM member_count_hours")
        await sql.execute("DELETE FROM member_count_seconds")
        await sql.execute("UPDATE member_count_rollup SET position = 0")
        await sql.execute(
            """
            UPDATE rollout_events SET start_times = ARRAY(
                SELECT start_time - $1::interval
                FROM unnest(start_times) WITH ORDINALITY AS stage (start_time, number)
                ORDER BY number)
            """,
            interval,
        )
