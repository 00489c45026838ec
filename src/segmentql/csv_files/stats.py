"""The numbers of files, for the metrics."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from segmentql.adapters.sessions import ReadSession
from segmentql.csv_files.file_kind import FileKind, statement
from segmentql.tables import ReportStatus

_STATS: Final = """
SELECT status, count(*) AS number,
    extract(epoch FROM now() - min({kind.requested_at_sql})) AS oldest_seconds
FROM {kind.table} GROUP BY status
"""


@dataclass(frozen=True, slots=True)
class FileStats:
    """Numbers of files of one kind."""

    counts: Mapping[ReportStatus, int]
    """The number of files by status, for each status."""
    oldest_waiting_seconds: float
    """The age of the oldest unfinished file; 0 if there is none."""


async def read_stats(session: ReadSession, kind: FileKind[Any]) -> FileStats:
    """Return the numbers of files of a kind."""
    rows = await session.execute(statement(_STATS, kind))
    found = {ReportStatus(row.status): row for row in rows}
    waiting = [
        float(row.oldest_seconds)
        for status, row in found.items()
        if status in {ReportStatus.QUEUED, ReportStatus.RUNNING}
    ]
    counts = {status: found[status].number if status in found else 0 for status in ReportStatus}
    return FileStats(counts, max([0.0, *waiting]))
