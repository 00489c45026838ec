"""The description of the files of exports."""

from typing import Any, Final

from sqlalchemy import Row

from segmentql import metrics
from segmentql.csv_files.file_kind import FileKind
from segmentql.exports.jobs import MAKE_EXPORT
from segmentql.exports.records import ExportContent


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
