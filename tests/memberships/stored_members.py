"""The stored memberships, exclusions and history of all users, and two times of expiry."""

from tests.conftest import Sql

EARLY, LATE = "2030-01-01T00:00:00.000000Z", "2031-01-01T00:00:00.000000Z"


async def members(sql: Sql) -> dict[int, tuple[str, str | None]]:
    """Return the cause and the end of every stored membership, by user id."""
    rows = await sql.fetch(
        """
        SELECT user_id, cause::text,
            to_char(expires_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
        FROM memberships ORDER BY user_id
        """
    )
    return {user_id: (cause, end) for user_id, cause, end in rows}


async def excluded_users(sql: Sql) -> list[int]:
    return [row[0] for row in await sql.fetch("SELECT user_id FROM exclusions ORDER BY 1")]


async def history(sql: Sql) -> list[tuple[int, str, str]]:
    rows = await sql.fetch(
        "SELECT user_id, operation::text, cause::text FROM history ORDER BY at, user_id, operation"
    )
    return [tuple(row) for row in rows]
