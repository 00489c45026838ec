"""The end of imports: their staged rows and uploaded files, the deadlines, and old results."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import orjson
from sqlalchemy import text

from segmentql.adapters.sessions import ReadSession, WriteSession
from segmentql.imports.forecast_query import WAIT_DAYS
from segmentql.imports.service import UPLOAD_HOURS, cancel_import
from segmentql.imports.stored_json import counts_from_json
from segmentql.objects import service as objects
from segmentql.principal import NO_ACTOR
from segmentql.tables import ImportStatus, RowOutcome

NOT_STARTED: Final = f"`startImport` was not called within {UPLOAD_HOURS} hours"
NOT_APPLIED: Final = f"`applyImport` was not called within {WAIT_DAYS} days"

REMOVE_ROWS: Final = 500

MIN_WAIT_SECONDS: Final = 5
MAX_WAIT_SECONDS: Final = 300
"""The minimum and the maximum wait after a failed attempt to make a result."""

# From now on no result can be made, because rows are missing.
_BEGIN_CLEANUP = text("""
UPDATE imports SET has_staged_rows = false
WHERE id = :import_id AND finished_at IS NOT NULL AND needs_cleanup
  AND (row_count IS NULL OR result_key IS NOT NULL OR NOT has_staged_rows)
RETURNING id
""")

_END_CLEANUP = text("""
UPDATE imports SET needs_cleanup = false, upload_key = NULL, file_key = NULL
WHERE id = :import_id AND finished_at IS NOT NULL AND needs_cleanup
RETURNING old.upload_key, old.file_key, status, CAST(counts AS text) AS counts,
    CAST(coalesce(extract(epoch FROM finished_at - queued_at), 0) AS float8) AS seconds
""")

# The job's message should arrive first.
_TO_FINISH = text("""
SELECT id FROM imports
WHERE needs_cleanup AND finished_at < statement_timestamp() - interval '5 s'
  AND (cleanup_after IS NULL OR cleanup_after < statement_timestamp())
ORDER BY coalesce(cleanup_after, finished_at) LIMIT 100
""")

# The wait grows with the time since the import was finished.
_POSTPONE = text(f"""
UPDATE imports SET cleanup_after = clock_timestamp() + least(
    greatest((clock_timestamp() - finished_at) / 2, make_interval(secs => {MIN_WAIT_SECONDS})),
    make_interval(secs => {MAX_WAIT_SECONDS}))
WHERE id = :import_id AND needs_cleanup
""")

_OVERDUE = text("""
SELECT id FROM imports WHERE deadline_at < statement_timestamp() ORDER BY deadline_at LIMIT 1000
""")

_LOCK_OVERDUE = text("""
SELECT status FROM imports
WHERE id = :import_id AND deadline_at < statement_timestamp() FOR UPDATE
""")

_REMOVE_OLD_RESULTS = text(f"""
WITH old_results AS (
    SELECT id FROM imports
    WHERE finished_at < statement_timestamp() - make_interval(days => :days)
      AND result_key IS NOT NULL AND NOT needs_cleanup
    ORDER BY finished_at LIMIT {REMOVE_ROWS} FOR UPDATE
)
UPDATE imports i SET result_key = NULL, filtered_keys = '{{}}'
FROM old_results WHERE i.id = old_results.id
RETURNING old.result_key, ARRAY(SELECT value FROM jsonb_each_text(old.filtered_keys)) AS filtered
""")


async def begin_cleanup(session: WriteSession, import_id: int) -> bool:
    """Return whether an import is finished, has its result if it can have one, and needs cleanup.

    The caller then deletes the staged rows.
    """
    found = await session.execute(_BEGIN_CLEANUP, {"import_id": import_id})
    return found.one_or_none() is not None


@dataclass(frozen=True, slots=True)
class FinishedImport:
    """What the metrics count of a finished import."""

    status: ImportStatus
    counts: Mapping[RowOutcome, int]
    seconds: float
    """The time from `startImport`, or from `applyImport` if that was called, until the end."""


async def end_cleanup(session: WriteSession, import_id: int) -> FinishedImport | None:
    """Record that an import has no staged rows any more, and discard its uploaded files.

    Returns:
        The finished import; None if this was recorded before.
    """
    row = (await session.execute(_END_CLEANUP, {"import_id": import_id})).one_or_none()
    if row is None:
        return None
    if row.upload_key:  # The caller's link may still be valid.
        await objects.discard(session, [row.upload_key], max_write_seconds=UPLOAD_HOURS * 3600)
    if row.file_key:
        await objects.discard(session, [row.file_key])
    counts = counts_from_json(orjson.loads(row.counts))
    return FinishedImport(ImportStatus(row.status), counts, row.seconds)


async def imports_to_finish(session: ReadSession) -> list[int]:
    """Return the ids of up to 100 imports that ended some time ago and need their clean-up."""
    return list((await session.execute(_TO_FINISH)).scalars())


async def postpone_cleanup(session: WriteSession, import_id: int) -> None:
    """Let the scheduler wait before the next attempt, because the object store failed."""
    await session.execute(_POSTPONE, {"import_id": import_id})


async def overdue_imports(session: ReadSession) -> list[int]:
    """Return the ids of imports that have waited too long for an upload or a decision."""
    return list((await session.execute(_OVERDUE)).scalars())


async def cancel_overdue(session: WriteSession, import_id: int) -> None:
    """Cancel an import that has waited too long, unless something happened meanwhile."""
    locked = await session.execute(_LOCK_OVERDUE, {"import_id": import_id})
    status = locked.scalar_one_or_none()
    if status is not None:
        reason = NOT_STARTED if status == ImportStatus.AWAITING_UPLOAD else NOT_APPLIED
        await cancel_import(session, import_id, actor=NO_ACTOR, reason=reason)


async def remove_old_results(session: WriteSession, *, days: int) -> bool:
    """Discard a batch of results that are older than `days` days; return whether more are left."""
    rows = (await session.execute(_REMOVE_OLD_RESULTS, {"days": days})).all()
    keys = [key for row in rows for key in (row.result_key, *row.filtered)]
    await objects.discard(session, keys)
    return len(rows) == REMOVE_ROWS
