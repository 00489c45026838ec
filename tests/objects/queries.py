"""Statements on objects that wait for their deletion."""

from tests.conftest import Sql


async def pass_time(sql: Sql, seconds: float) -> None:
    """Move the rows back, as if this time had passed."""
    await sql.execute(
        """
        UPDATE objects_to_delete SET
            delete_after = delete_after - make_interval(secs => $1),
            writable_until = writable_until - make_interval(secs => $1),
            next_attempt_at = next_attempt_at - make_interval(secs => $1)
        """,
        seconds,
    )
