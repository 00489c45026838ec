"""The erasure of keys from the files of reports.

If the key of a user is erased, reports with keys start again (`remake_reports_with_keys`). The old
file is discarded at once, and a running attempt loses its lease. Reports start only after a series
of erasures, so that a large one does not start again at each of them.
"""

from collections.abc import Sequence
from typing import Final

from sqlalchemy import text

from segmentql.adapters.jobs import Message
from segmentql.adapters.sessions import WriteSession
from segmentql.csv_files import attempts
from segmentql.history.retention import EARLIEST_AT
from segmentql.reports.file_kind import REPORT_FILES
from segmentql.reports.jobs import MAKE_REPORT

REMAKE_DELAY_SECONDS: Final = 10
"""The time from the last erasure of a key until a report starts again."""

MAX_REMAKE_DELAY_SECONDS: Final = 300
"""The time from the first erasure since the file was ready, after which a report starts although
keys are still being erased. Such an attempt may be interrupted. The next one then starts
`REMAKE_DELAY_SECONDS` later."""


# A report of a month whose history was dropped may have the key. It fails when it starts again.
# All leaves of a deleted user are recorded in history. A queued report has read no key yet. If it
# starts again, it only waits longer.
_REMAKE = text(f"""
WITH remade AS (
    UPDATE reports r SET
        status = 'QUEUED',
        attempts = CASE WHEN r.status = 'QUEUED' THEN r.attempts ELSE 0 END,
        remade_at = CASE WHEN r.status = 'READY' THEN at ELSE coalesce(r.remade_at, at) END,
        next_attempt_at = CASE WHEN r.status = 'QUEUED'
            THEN greatest(r.next_attempt_at, least(at + delay, r.remade_at + max_delay))
            ELSE at + delay END,
        finished_at = NULL, row_count = NULL, size_bytes = NULL, object_key = NULL
    FROM (
        SELECT CAST(:user_ids AS bigint[]) AS user_ids, clock_timestamp() AS at,
            make_interval(secs => {REMAKE_DELAY_SECONDS}) AS delay,
            make_interval(secs => {MAX_REMAKE_DELAY_SECONDS}) AS max_delay
        OFFSET 0
    ) AS erased
    WHERE r.with_keys
      AND (r.status IN ('READY', 'RUNNING') OR r.status = 'QUEUED' AND r.remade_at IS NOT NULL)
      AND (
        r.user_id = ANY(erased.user_ids)
        OR make_date(r.year, r.month, 1) AT TIME ZONE 'UTC' < {EARLIEST_AT}
        OR r.user_id IS NULL AND EXISTS (
            SELECT FROM history h
            WHERE h.user_id = ANY(erased.user_ids)
              AND h.at >= make_date(r.year, r.month, 1) AT TIME ZONE 'UTC'
              AND h.at < (make_date(r.year, r.month, 1) + interval '1 month') AT TIME ZONE 'UTC'))
    RETURNING r.id, old.status AS old_status, old.object_key
)
SELECT id, old_status <> 'QUEUED' AS is_new, object_key FROM remade ORDER BY id
""")


async def remake_reports_with_keys(session: WriteSession, user_ids: Sequence[int]) -> None:
    """Make reports again whose files may have an erased key, and discard the files.

    Args:
        session: The session of the transaction that erased the key.
        user_ids: The ids of the users that had the key.
    """
    await attempts.wait_for_claims(session, REPORT_FILES)
    remade = (await session.execute(_REMAKE, {"user_ids": list(user_ids)})).all()
    await attempts.discard_objects(session, REPORT_FILES, [row.object_key for row in remade])
    for row in remade:
        if row.is_new:  # the others have a message, or the scheduler finds them
            session.after_commit(
                Message(MAKE_REPORT, (row.id,), delay_seconds=REMAKE_DELAY_SECONDS)
            )
