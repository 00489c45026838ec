"""What is in a report: the entries of history of a month, as CSV.

PostgreSQL writes the CSV itself. Columns `user_id,segment_slug,operation,executed_at`; operations
`I` for a join, `D` for a leave; moments in UTC, truncated to the second. Ordered by moment, user,
leaves before joins, slug. One statement, so that a file is one state of the database.
"""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from segmentql.adapters.database import ReadSession, copy_csv
from segmentql.history.service import ENDED_WITH_SEGMENT, EXPIRED

CHUNKS_AHEAD: Final = 40
"""Chunks of some 64 KiB that the database may be ahead of whoever takes them: it goes on while
a part is on its way to the store."""

# What workers have not recorded yet is part of it. The month's bounds prune the partitions; the
# user, where one is asked for, is a condition of its own, so that an index on users serves it.
_ENTRIES: Final = """
SELECT h.at, h.user_id, h.operation, s.slug
FROM history h JOIN segments s ON s.id = h.segment_id
WHERE h.at >= $1 AND h.at < $2 {and_user_of_h}
UNION ALL
SELECT m.expires_at, m.user_id, CAST('LEFT' AS operation), s.slug
FROM memberships m JOIN segments s ON s.id = m.segment_id
WHERE m.expires_at >= $1 AND m.expires_at < $2 AND {ran_out} {and_user_of_m}
UNION ALL
SELECT s.deleted_at, m.user_id, CAST('LEFT' AS operation), s.slug
FROM segments s JOIN memberships m ON m.segment_id = s.id
WHERE s.deleted_at >= $1 AND s.deleted_at < $2 AND {ended_with_segment} {and_user_of_m}
"""

_CSV: Final = """
SELECT user_id, slug AS segment_slug,
    CASE operation WHEN 'JOINED' THEN 'I' ELSE 'D' END AS operation,
    to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') AS executed_at
FROM ({entries}) AS entry
ORDER BY at, user_id, entry.operation, slug
"""


@dataclass(frozen=True)
class ReportScope:
    """A month (of UTC) of one user, or of all."""

    year: int
    month: int
    user_id: int | None

    @property
    def file_name(self) -> str:
        whose = "all" if self.user_id is None else str(self.user_id)
        return f"segments-{whose}-{self.year:04}-{self.month:02}.csv"

    def statement(self) -> tuple[str, tuple[object, ...]]:
        """The SELECT that the CSV is made of, and its arguments, as asyncpg takes them."""
        entries, arguments = self._entries()
        return _CSV.format(entries=entries), arguments

    async def count(self, session: ReadSession) -> int:
        """How many rows there would be now; it costs what counting them costs."""
        entries, arguments = self._entries()
        connection = await session.connection()
        counted = await connection.exec_driver_sql(
            f"SELECT count(*) FROM ({entries}) AS entry",
            arguments,
        )
        return int(counted.scalar_one())

    def _entries(self) -> tuple[str, tuple[object, ...]]:
        start = datetime(self.year, self.month, 1, tzinfo=UTC)
        last = (self.year, self.month) == (9999, 12)
        end = (
            datetime.max.replace(tzinfo=UTC)
            if last
            else datetime(self.year + self.month // 12, self.month % 12 + 1, 1, tzinfo=UTC)
        )
        of_one = self.user_id is not None
        entries = _ENTRIES.format(
            ran_out=EXPIRED,
            ended_with_segment=ENDED_WITH_SEGMENT,
            and_user_of_h="AND h.user_id = $3" if of_one else "",
            and_user_of_m="AND m.user_id = $3" if of_one else "",
        )
        return entries, (start, end, self.user_id) if of_one else (start, end)


class Csv:
    """A report's bytes, read once; then `rows` says how many rows there were."""

    def __init__(
        self, session: ReadSession, scope: ReportScope, *, chunks_ahead: int = CHUNKS_AHEAD
    ) -> None:
        self._session = session
        self._contents = scope
        self._chunks_ahead = chunks_ahead
        self.rows = 0

    async def chunks(self) -> AsyncGenerator[bytes]:
        """The bytes in pieces; the database is never more than `chunks_ahead` ahead of the reader.

        To be closed by who does not read to the end: that stops the database.
        """
        chunks: asyncio.Queue[bytes | None] = asyncio.Queue(self._chunks_ahead)
        statement, arguments = self._contents.statement()

        async def copy() -> None:
            try:
                self.rows = await copy_csv(self._session, statement, arguments, chunks.put)
            except BaseException:
                while not chunks.empty():  # of no use any more, and nobody may be left to take it
                    chunks.get_nowait()
                raise
            finally:
                await chunks.put(None)

        copying = asyncio.create_task(copy())
        try:
            while (chunk := await chunks.get()) is not None:
                yield chunk
            await copying
        finally:
            copying.cancel()
            await asyncio.gather(copying, return_exceptions=True)
