"""When imports have work: the order of the imports of a segment, and what the scheduler finds."""

from typing import Final

from sqlalchemy import text

from segmentql.adapters.sessions import ReadSession

IS_NEXT_TO_APPLY: Final = """NOT EXISTS (
    SELECT FROM imports earlier
    WHERE earlier.segment_id = i.segment_id AND earlier.next_attempt_at IS NOT NULL
      AND (earlier.applied_users = 0, earlier.queued_at, earlier.id)
        < (i.applied_users = 0, i.queued_at, i.id)
      AND (earlier.status = 'APPLYING' OR earlier.status IN ('QUEUED', 'VALIDATING')
        AND NOT CAST(earlier.options ->> 'dry_run' AS boolean)))
"""
"""SQL condition: it is the turn of the import `i` to be applied.

Imports of one segment are applied one at a time, in the order of `queued_at`. One that has begun is
first, even if the clock was set back since. A dry run does not apply. The condition on
`next_attempt_at` follows from the statuses; it is for the index.
"""

# An import that waits for another one is not due.
_DUE = text(f"""
SELECT id FROM imports i
WHERE next_attempt_at < statement_timestamp() - interval '1 s'
  AND (status <> 'APPLYING' OR {IS_NEXT_TO_APPLY})
ORDER BY next_attempt_at LIMIT 100
""")

_SECONDS_TO_NEXT = text(f"""
SELECT CAST(extract(epoch FROM min(next_attempt_at) + interval '1 s' - statement_timestamp())
    AS float8)
FROM imports i
WHERE next_attempt_at IS NOT NULL AND (status <> 'APPLYING' OR {IS_NEXT_TO_APPLY})
""")


async def due_imports(session: ReadSession) -> list[int]:
    """Return the ids of up to 100 imports whose next attempt is overdue."""
    return list((await session.execute(_DUE)).scalars())


async def seconds_to_next(session: ReadSession) -> float | None:
    """Return the time until an unfinished import is due; None if no import has work."""
    seconds: float | None = (await session.execute(_SECONDS_TO_NEXT)).scalar_one()
    return seconds
