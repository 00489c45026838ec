"""The exports that workers must make or remove by now."""

from typing import Final

from sqlalchemy import text

from segmentql.adapters.database import ReadSession, WriteSession
from segmentql.exports.generation import discard_objects

REMOVE_ROWS: Final = 500

# The job's message should arrive first, so the scheduler waits one second longer.
_SCHEDULED_AT: Final = "next_attempt_at + interval '1 s'"

_DUE = text(f"""
SELECT id FROM exports
WHERE next_attempt_at IS NOT NULL AND {_SCHEDULED_AT} < statement_timestamp()
ORDER BY next_attempt_at LIMIT 100
""")

_SECONDS_TO_NEXT = text(f"""
SELECT CAST(extract(epoch FROM min({_SCHEDULED_AT}) - statement_timestamp()) AS float8)
FROM exports WHERE next_attempt_at IS NOT NULL
""")

_REMOVE_OLD = text(f"""
DELETE FROM exports WHERE id IN (
    SELECT id FROM exports
    WHERE created_at < statement_timestamp() - make_interval(days => :days)
    ORDER BY id LIMIT {REMOVE_ROWS})
RETURNING object_key
""")


async def due_exports(session: ReadSession) -> list[int]:
    """Return the ids of up to 100 exports whose next attempt is overdue."""
    return list((await session.execute(_DUE)).scalars())


async def seconds_to_next(session: ReadSession) -> float | None:
    """Return the time until an unfinished export is due; None if every export is finished."""
    seconds: float | None = (await session.execute(_SECONDS_TO_NEXT)).scalar_one()
    return seconds


async def remove_old_exports(session: WriteSession, *, days: int) -> int:
    """Remove up to `REMOVE_ROWS` exports older than `days` days, and discard their files.

    Returns:
        The number of removed exports.
    """
    object_keys = (await session.execute(_REMOVE_OLD, {"days": days})).scalars().all()
    await discard_objects(session, object_keys)
    return len(object_keys)
