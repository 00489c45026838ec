"""The description of the files of reports."""

from typing import Any, Final

from sqlalchemy import Row

from segmentql import metrics
from segmentql.csv_files.file_kind import FileKind
from segmentql.reports.jobs import MAKE_REPORT
from segmentql.reports.records import ReportScope


def _scope(row: Row[Any]) -> ReportScope:
    return ReportScope(row.year, row.month, row.user_id, row.with_keys)


REPORT_FILES: Final = FileKind(
    table="reports",
    job=MAKE_REPORT,
    extension_sql="'.csv'",
    content_sql="user_id, year, month, with_keys",
    read_content=_scope,
    requested_at_sql="coalesce(remade_at, created_at)",
    final_next_attempt_sql="next_attempt_at",
    key_erasure_lock=7004,
    outcomes=metrics.REPORTS,
    durations=metrics.REPORT_DURATION_SECONDS,
)
