"""The order of history: the leaves of expired memberships come before later changes of the user.

Positions of history are the order of the change feed. A transaction that holds the lock of a user
can rely on this: no leave by TTL is missing in history that is earlier than the newest entry of the
user. A change keeps this true. It first records the memberships that have expired by its own time.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Executable, Row, text

from segmentql.adapters.sessions import WriteSession
from segmentql.timestamps import TIME_OF_EXPIRY, TIME_OF_LEAVES

MAX_ATTEMPTS: Final = 10
"""The attempts of a change. The second one fails only if an end is exactly a microsecond later."""

# SKIP LOCKED: without the lock of the user, only the worker that records the leaves of a deleted
# segment locks memberships, and it leaves those to this statement that expired before the deletion.
# So no leave is skipped whose order matters, and no deadlock is possible.
_RECORD_DUE_ENDS: Final = """
WITH {time},
due AS MATERIALIZED (
    SELECT m.user_id, m.segment_id FROM memberships m, change
    WHERE m.user_id = ANY(ARRAY(SELECT unnest(CAST(:user_ids AS bigint[]))))
      AND m.expires_at <= change.at
    ORDER BY m.expires_at LIMIT CAST(:rows AS bigint)
    FOR UPDATE OF m SKIP LOCKED
), ended AS (
    DELETE FROM memberships m USING due
    WHERE m.user_id = due.user_id AND m.segment_id = due.segment_id
    RETURNING 1
)
SELECT at, (SELECT count(*) FROM ended) AS ended FROM change
"""
_RECORD_BEFORE_CHANGE = text(_RECORD_DUE_ENDS.format(time=TIME_OF_LEAVES))
_RECORD_AS_WORKER = text(_RECORD_DUE_ENDS.format(time=TIME_OF_EXPIRY))


async def record_due_ends(session: WriteSession, user_ids: Sequence[int], *, rows: int) -> int:
    """Record the leaves of expired memberships of locked users, the earliest first.

    Args:
        session: The session. An earlier statement has locked the users.
        user_ids: The ids of the users.
        rows: The maximum number of leaves.

    Returns:
        The number of leaves.
    """
    values = {"user_ids": list(user_ids), "rows": rows}
    ended: int = (await session.execute(_RECORD_AS_WORKER, values)).one().ended
    return ended


async def change_in_order(
    session: WriteSession,
    statement: Executable,
    values: Mapping[str, object],
    user_ids: Sequence[int],
) -> Row[Any]:
    """Execute a change of users' memberships; if necessary, first record expired memberships.

    It takes one round trip if history has all expired memberships of the users, otherwise three.

    Args:
        session: The session. An earlier statement has locked the users.
        statement: A statement with a CTE `change` of `timestamps.py`. It returns one row, and none
            if `change` is empty.
        values: The parameters of the statement, except `:leaves_recorded_at`.
        user_ids: The ids of the users that the statement may change.
    """
    leaves_recorded_at: datetime | None = None
    all_leaves = {"user_ids": list(user_ids), "rows": None}
    for _ in range(MAX_ATTEMPTS):
        parameters = {**values, "leaves_recorded_at": leaves_recorded_at}
        row = (await session.execute(statement, parameters)).one_or_none()
        if row is not None:
            return row
        leaves_recorded_at = (await session.execute(_RECORD_BEFORE_CHANGE, all_leaves)).one().at
    raise AssertionError("a membership expired in each microsecond")
