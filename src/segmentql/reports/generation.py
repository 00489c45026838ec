"""How workers make reports, and remove old ones.

The row is the job's outbox. A try takes the report for itself (`claim`), under a number; while the
file is being written the row is touched every few seconds, so that a worker's death is noticed,
and another takes the report under the next number. Each try writes an object of its own, whose
random key nobody can guess, and only the try that still has the report makes its key known.
"""

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Row, text

from segmentql import metrics
from segmentql.adapters.database import ReadSession, WriteSession
from segmentql.adapters.jobs import MAKE_REPORT, Message
from segmentql.reports.csv_export import ReportScope

MAX_ATTEMPTS: Final = 8
MAX_STORE_REJECTIONS: Final = 5
"""The tries where the store refuses: somebody must change something, and should hear of it."""

RETRY_SECONDS: Final = 1
"""The wait before the second try; doubled for each further one ..."""

MAX_RETRY_SECONDS: Final = 15
"""... up to this: so a store may be away for a minute."""

HEARTBEAT_SECONDS: Final = 3
STALE_SECONDS: Final = 12
"""After so long without a word from its worker, a report is anybody's."""

COPY_SECONDS: Final = 1800
"""How long making one file may take."""

REMOVE_ROWS: Final = 500

_CLAIM = text(f"""
UPDATE reports SET
    status = 'RUNNING', tries = tries + 1, touched_at = clock_timestamp(),
    object_key = 'reports/' || gen_random_uuid() || '.csv'
WHERE id = :report_id AND tries < {MAX_ATTEMPTS} AND (
    status = 'QUEUED' AND touched_at <= clock_timestamp()
    OR status = 'RUNNING'
        AND touched_at < clock_timestamp() - make_interval(secs => {STALE_SECONDS})
)
RETURNING tries, new.object_key, old.object_key AS abandoned_key, user_id, year, month
""")

# A worker that died in its last try never said so.
_GIVE_UP = text(f"""
UPDATE reports SET
    status = 'FAILED', finished_at = clock_timestamp(), touched_at = clock_timestamp(),
    object_key = NULL, failure = :reason
WHERE id = :report_id AND tries >= {MAX_ATTEMPTS} AND status = 'RUNNING'
  AND touched_at < clock_timestamp() - make_interval(secs => {STALE_SECONDS})
""")

_HEARTBEAT = text("""
UPDATE reports SET touched_at = clock_timestamp()
WHERE id = :report_id AND tries = :number AND status = 'RUNNING'
RETURNING id
""")

_FINISH = text("""
UPDATE reports SET
    status = 'READY', row_count = :row_count, size_bytes = :size_bytes,
    finished_at = clock_timestamp(), touched_at = clock_timestamp()
WHERE id = :report_id AND tries = :number AND status = 'RUNNING'
RETURNING extract(epoch FROM finished_at - created_at) AS seconds
""")

# The next try is due at `touched_at`, which lies ahead.
_FAIL = text("""
UPDATE reports SET
    status = CASE WHEN tries < :allowed THEN CAST('QUEUED' AS report_status) ELSE 'FAILED' END,
    failure = CASE WHEN tries < :allowed THEN NULL ELSE CAST(:reason AS text) END,
    finished_at = CASE WHEN tries < :allowed THEN NULL ELSE clock_timestamp() END,
    touched_at = clock_timestamp() + make_interval(secs => :seconds),
    object_key = NULL
WHERE id = :report_id AND tries = :number AND status = 'RUNNING'
RETURNING status
""")

_SILENCE: Final = f"""
make_interval(secs => CASE status WHEN 'RUNNING' THEN {STALE_SECONDS} ELSE 1 END)
"""

_DUE = text(f"""
SELECT id FROM reports
WHERE status IN ('QUEUED', 'RUNNING') AND touched_at < statement_timestamp() - {_SILENCE}
ORDER BY touched_at LIMIT 100
""")

_SECONDS_TO_NEXT = text(f"""
SELECT CAST(extract(epoch FROM min(touched_at + {_SILENCE}) - statement_timestamp()) AS float8)
FROM reports WHERE status IN ('QUEUED', 'RUNNING')
""")

_OLD = text(f"""
SELECT id AS report_id, object_key FROM reports
WHERE created_at < statement_timestamp() - make_interval(days => :days)
ORDER BY id LIMIT {REMOVE_ROWS}
""")

_REMOVE = text("DELETE FROM reports WHERE id = ANY(:report_ids)")


@dataclass(frozen=True)
class Attempt:
    """One try at making a report, which has it until another takes it."""

    report_id: int
    number: int
    object_key: str
    abandoned_key: str | None
    """What a worker that died may have left in the store."""

    scope: ReportScope


async def claim(session: WriteSession, report_id: int) -> Attempt | None:
    """Take a report for one try; None if there is nothing to do, or another worker is at it."""
    row = (await session.execute(_CLAIM, {"report_id": report_id})).one_or_none()
    if row is None:
        reason = f"the worker died in each of {MAX_ATTEMPTS} tries"
        await session.execute(_GIVE_UP, {"report_id": report_id, "reason": reason})
        return None
    scope = ReportScope(row.year, row.month, row.user_id)
    return Attempt(report_id, row.tries, row.object_key, row.abandoned_key, scope)


async def heartbeat(session: WriteSession, attempt: Attempt) -> bool:
    """Say that the worker lives; whether the report is still this try's."""
    values = {"report_id": attempt.report_id, "number": attempt.number}
    return (await session.execute(_HEARTBEAT, values)).one_or_none() is not None


async def finish(
    session: WriteSession, attempt: Attempt, *, row_count: int, size_bytes: int
) -> bool:
    """Make the file known; whether the report was still this try's."""
    values = {"report_id": attempt.report_id, "number": attempt.number}
    finished = await session.execute(
        _FINISH, {**values, "row_count": row_count, "size_bytes": size_bytes}
    )
    row = finished.one_or_none()
    if row is None:
        return False
    metrics.REPORTS.labels("ready").inc()
    metrics.REPORT_SECONDS.observe(float(row.seconds))
    return True


async def fail(
    session: WriteSession, attempt: Attempt, *, reason: str, refused: bool = False
) -> None:
    """Note that a try failed: there is another one, or that was the last."""
    seconds = min(RETRY_SECONDS * 2 ** (attempt.number - 1), MAX_RETRY_SECONDS)
    values = {
        "report_id": attempt.report_id,
        "number": attempt.number,
        "allowed": MAX_STORE_REJECTIONS if refused else MAX_ATTEMPTS,
        "seconds": seconds,
        "reason": reason,
    }
    row = (await session.execute(_FAIL, values)).one_or_none()
    if row is None:
        return
    if row.status == "QUEUED":
        session.after_commit(Message(MAKE_REPORT, (attempt.report_id,), delay_seconds=seconds))
    else:
        metrics.REPORTS.labels("failed").inc()


async def due_reports(session: ReadSession) -> list[int]:
    """Reports, 100 at most, that wait for a try which no message seems to bring."""
    return list((await session.execute(_DUE)).scalars())


async def seconds_to_next(session: ReadSession) -> float | None:
    """Return how soon an unfinished report is due; None if every report is finished."""
    seconds: float | None = (await session.execute(_SECONDS_TO_NEXT)).scalar_one()
    return seconds


async def old_reports(session: ReadSession, *, days: int) -> list[Row[Any]]:
    """Reports that are older than they are kept, `REMOVE_ROWS` at most."""
    return list((await session.execute(_OLD, {"days": days})).all())


async def remove_reports(session: WriteSession, report_ids: list[int]) -> None:
    """Forget reports whose objects are gone."""
    await session.execute(_REMOVE, {"report_ids": report_ids})
