"""Changes of memberships on a given connection, so that a test can keep transactions open."""

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from tests.conftest import Sql

Connect: TypeAlias = Callable[[], Awaitable[Sql]]


async def join(connection: Sql, user_id: int, segment_id: int) -> None:
    """Add an existing user to a segment."""
    await connection.execute(
        """
        INSERT INTO memberships (user_id, segment_id, joined_at, updated_at, cause)
        SELECT $1, $2, at, at, 'MANUAL' FROM clock_timestamp() AS at
        """,
        user_id,
        segment_id,
    )


async def position_of(connection: Sql, user_id: int) -> int:
    """Return the position of a user's newest row that the connection sees."""
    position: int = await connection.fetchval(
        "SELECT max(position) FROM history WHERE user_id = $1", user_id
    )
    return position


async def begin_join(connection: Sql, user_id: int, segment_id: int) -> None:
    """Begin a transaction that adds a user to a segment. The caller ends it."""
    await connection.execute("BEGIN")
    await join(connection, user_id, segment_id)
