"""Numbers of unfinished imports, for the metrics."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sqlalchemy import text

from segmentql.adapters.sessions import ReadSession
from segmentql.imports.records import FINISHED
from segmentql.imports.schedule import IS_NEXT_TO_APPLY
from segmentql.tables import ImportStatus

UNFINISHED: Final = tuple(status for status in ImportStatus if status not in FINISHED)

# Finished imports are kept, so they are not counted. The two parts have an index each.
_STATS = text(f"""
SELECT status, count(*) AS number,
    CAST(max(extract(epoch FROM statement_timestamp() - i.next_attempt_at))
        FILTER (WHERE status <> 'APPLYING' OR {IS_NEXT_TO_APPLY}) AS float8) AS waiting_seconds
FROM imports i WHERE next_attempt_at IS NOT NULL GROUP BY status
UNION ALL
SELECT status, count(*), NULL FROM imports WHERE deadline_at IS NOT NULL GROUP BY status
""")


@dataclass(frozen=True, slots=True)
class ImportStats:
    """Numbers of unfinished imports."""

    counts: Mapping[ImportStatus, int]
    """The number of imports by status, for each status of unfinished imports."""
    oldest_waiting_seconds: float
    """The longest time that an import has waited for a worker; 0 if none waits.

    An import that waits for an earlier one into the same segment does not wait for a worker.
    """


async def read_stats(session: ReadSession) -> ImportStats:
    """Return numbers of unfinished imports."""
    found = {ImportStatus(row.status): row for row in await session.execute(_STATS)}
    counts = {status: found[status].number if status in found else 0 for status in UNFINISHED}
    # A lease that has not ended is in the future.
    waiting = [row.waiting_seconds for row in found.values() if row.waiting_seconds is not None]
    return ImportStats(counts, max([0.0, *waiting]))
