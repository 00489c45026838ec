"""The erasure of keys from the files of exports."""

from collections.abc import Sequence
from typing import Final

from sqlalchemy import text

from segmentql.adapters.sessions import WriteSession
from segmentql.csv_files import attempts
from segmentql.exports.file_kind import EXPORT_FILES
from segmentql.history.retention import EARLIEST_AT

KEY_ERASED: Final = "a user's key was erased; create the export again"


# A queued export has read no key yet: the objects of its failed attempts are discarded.
_FAIL_WITH_KEYS = text(f"""
UPDATE exports e SET
    status = 'FAILED', failure = :reason, finished_at = clock_timestamp(), next_attempt_at = NULL,
    row_count = NULL, size_bytes = NULL, object_key = NULL
WHERE e.status IN ('READY', 'RUNNING') AND (e.as_of < {EARLIEST_AT} OR EXISTS (
    SELECT FROM history h
    WHERE h.user_id = ANY(:user_ids) AND h.segment_id = e.segment_id AND h.at <= e.as_of))
RETURNING old.object_key
""")


async def fail_exports_with_keys(session: WriteSession, user_ids: Sequence[int]) -> None:
    """Fail the exports whose files may have an erased key, and discard the files.

    These are the exports of segments that one of the users had joined by the time of the export,
    and those of times before the beginning of history.
    A running attempt loses its lease.

    Args:
        session: The session of the transaction that erased the key.
        user_ids: The ids of the users that had the key.
    """
    await attempts.wait_for_claims(session, EXPORT_FILES)
    values = {"user_ids": list(user_ids), "reason": KEY_ERASED}
    failed = await session.execute(_FAIL_WITH_KEYS, values)
    await attempts.discard_objects(session, EXPORT_FILES, failed.scalars().all())
