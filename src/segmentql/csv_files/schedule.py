"""The files that workers must make or remove by now."""

from typing import Any, Final

from segmentql.adapters.database import Database
from segmentql.adapters.jobs import Message
from segmentql.adapters.sessions import WriteSession
from segmentql.csv_files.attempts import discard_objects
from segmentql.csv_files.file_kind import FileKind, statement

REMOVE_ROWS: Final = 500
"""The maximum number of rows that one transaction removes."""

# The conditions of the partial indexes of the tables.
_UNFINISHED: Final = "status IN ('QUEUED', 'RUNNING') AND next_attempt_at IS NOT NULL"

# The job's message should arrive first, so the scheduler waits one second longer.
_SCHEDULED_AT: Final = "next_attempt_at + interval '1 s'"

_DUE: Final = f"""
SELECT id FROM {{kind.table}}
WHERE {_UNFINISHED} AND {_SCHEDULED_AT} < statement_timestamp()
ORDER BY next_attempt_at LIMIT 100
"""

_SECONDS_TO_NEXT: Final = f"""
SELECT CAST(extract(epoch FROM min({_SCHEDULED_AT}) - statement_timestamp()) AS float8)
FROM {{kind.table}} WHERE {_UNFINISHED}
"""

_REMOVE_OLD: Final = f"""
DELETE FROM {{kind.table}} WHERE id IN (
    SELECT id FROM {{kind.table}}
    WHERE created_at < statement_timestamp() - make_interval(days => :days)
    ORDER BY id LIMIT {REMOVE_ROWS})
RETURNING object_key
"""


async def due_files(database: Database, kind: FileKind[Any]) -> list[Message]:
    """Return the messages for up to 100 files whose next attempt is overdue."""
    async with database.read() as session:
        due = (await session.execute(statement(_DUE, kind))).scalars().all()
    return [Message(kind.job, (file_id,)) for file_id in due]


async def seconds_to_next_file(database: Database, kind: FileKind[Any]) -> float | None:
    """Return the time until an unfinished file is due; None if every file is finished."""
    async with database.read() as session:
        seconds: float | None = await session.scalar(statement(_SECONDS_TO_NEXT, kind))
    return seconds


async def remove_old_files(database: Database, kind: FileKind[Any], *, days: int) -> None:
    """Remove the rows that are older than `days` days, and discard their files."""
    while await database.transaction(lambda session: _remove_old_files(session, kind, days=days)):
        pass


async def _remove_old_files(session: WriteSession, kind: FileKind[Any], *, days: int) -> bool:
    """Remove up to `REMOVE_ROWS` rows older than `days` days; return whether there were any."""
    removed = await session.execute(statement(_REMOVE_OLD, kind), {"days": days})
    object_keys = removed.scalars().all()
    await discard_objects(session, kind, object_keys)
    return bool(object_keys)
