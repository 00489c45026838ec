"""The generation of exports: their kind of file, and the erasure of keys from them."""

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Row, text

from segmentql import metrics
from segmentql.adapters.sessions import WriteSession
from segmentql.csv_files import attempts
from segmentql.csv_files.file_kind import FileKind
from segmentql.exports.jobs import MAKE_EXPORT
from segmentql.exports.records import ExportContent

KEY_ERASED: Final = "a user's key was erased; create the export again"


# A queued export has read no key yet: the objects of its failed attempts are discarded.
_FAIL_WITH_KEYS = text("""
UPDATE exports e SET
    status = 'FAILED', failure = :reason, finished_at = clock_timestamp(), next_attempt_at = NULL,
    row_count = NULL, size_bytes = NULL, object_key = NULL
WHERE e.status IN ('READY', 'RUNNING') AND EXISTS (
    SELECT FROM history h
    WHERE h.user_id = ANY(:user_ids) AND h.segment_id = e.segment_id AND h.at <= e.as_of)
RETURNING old.object_key
""")


def _content(row: Row[Any]) -> ExportContent:
    return ExportContent(row.segment_id, row.as_of, is_gzip=row.gzip)


EXPORT_FILES: Final = FileKind(
    table="exports",
    job=MAKE_EXPORT,
    extension_sql="CASE WHEN gzip THEN '.csv.gz' ELSE '.csv' END",
    content_sql="segment_id, as_of, gzip",
    read_content=_content,
    requested_at_sql="created_at",
    final_next_attempt_sql="NULL",
    key_erasure_lock=7005,
    outcomes=metrics.EXPORTS,
    durations=metrics.EXPORT_DURATION_SECONDS,
)


async def fail_exports_with_keys(session: WriteSession, user_ids: Sequence[int]) -> None:
    """Fail the exports whose files may have an erased key, and discard the files.

    These are the exports of segments that one of the users had joined by the time of the export.
    A running attempt loses its lease.

    Args:
        session: The session of the transaction that erased the key.
        user_ids: The ids of the users that had the key.
    """
    await attempts.wait_for_claims(session, EXPORT_FILES)
    values = {"user_ids": list(user_ids), "reason": KEY_ERASED}
    failed = await session.execute(_FAIL_WITH_KEYS, values)
    await attempts.discard_objects(session, EXPORT_FILES, failed.scalars().all())
