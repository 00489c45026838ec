"""Requests for reports, and reads."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import Row, text

from segmentql.adapters.jobs import Message
from segmentql.adapters.sessions import ReadSession, WriteSession
from segmentql.audit import service as audit
from segmentql.audit.records import AuditAction
from segmentql.errors import InvalidInput, MutationRejected, UserNotFound
from segmentql.history.retention import EARLIEST_AT, read_earliest_at
from segmentql.principal import Actor
from segmentql.reports.jobs import MAKE_REPORT
from segmentql.reports.records import ReportRecord, ReportScope
from segmentql.tables import ReportStatus

REPORT_COLUMNS: Final = """
r.id AS report_id, r.user_id, r.year, r.month, r.with_keys, r.status, r.row_count, r.size_bytes,
r.created_at AS report_created_at, r.finished_at, r.failure, r.object_key
"""
"""The columns of `_report_record`, for statements that read reports as `r`."""

MAX_CONFLICT_RETRIES: Final = 3
"""The number of attempts if the month begins or the user is stored between the two statements."""

# A deleted user still has a history.
_IS_KNOWN: Final = """(
    EXISTS (SELECT FROM users WHERE id = :user_id)
    OR EXISTS (SELECT FROM deleted_users WHERE id = :user_id))
"""
_KNOWN_USER = text(f"SELECT {_IS_KNOWN}")

_CURRENT_MONTH = text("""
SELECT CAST(extract(year FROM moment) AS integer) AS year,
    CAST(extract(month FROM moment) AS integer) AS month
FROM (SELECT clock_timestamp() AT TIME ZONE 'UTC' AS moment) AS now
""")

_CREATE = text(f"""
INSERT INTO reports AS r
    (user_id, year, month, with_keys, status, created_at, next_attempt_at, actor)
SELECT CAST(:user_id AS bigint), :year, :month, :with_keys, 'QUEUED', at, at, CAST(:actor AS text)
FROM (SELECT clock_timestamp() AS at OFFSET 0) AS moment
WHERE make_date(:year, :month, 1) <= at AT TIME ZONE 'UTC'
  AND make_date(:year, :month, 1) AT TIME ZONE 'UTC' >= {EARLIEST_AT}
  AND (CAST(:user_id AS bigint) IS NULL OR {_IS_KNOWN})
RETURNING {REPORT_COLUMNS}
""")

_BY_IDS = text(f"SELECT {REPORT_COLUMNS} FROM reports r WHERE r.id = ANY(:report_ids)")

_PAGE = text(f"""
SELECT {REPORT_COLUMNS} FROM reports r WHERE r.id < :before ORDER BY r.id DESC LIMIT :rows
""")

_PAGE_OF_SINGLE_USERS = text(f"""
SELECT {REPORT_COLUMNS} FROM reports r
WHERE r.user_id IS NOT NULL AND r.id < :before ORDER BY r.id DESC LIMIT :rows
""")

_PAGE_OF_USER = text(f"""
SELECT {REPORT_COLUMNS} FROM reports r
WHERE r.user_id = :user_id AND r.id < :before ORDER BY r.id DESC LIMIT :rows
""")


def _report_record(row: Row[Any]) -> ReportRecord:
    return ReportRecord(
        report_id=row.report_id,
        scope=ReportScope(row.year, row.month, row.user_id, row.with_keys),
        status=ReportStatus(row.status),
        row_count=row.row_count,
        size_bytes=row.size_bytes,
        created_at=row.report_created_at,
        finished_at=row.finished_at,
        failure=row.failure,
        object_key=row.object_key,
    )


async def check_scope(session: ReadSession | WriteSession, scope: ReportScope) -> None:
    """Reject the scope of a report that cannot have entries.

    Raises:
        MutationRejected: the month is in the future, its history was dropped, or the user was never
            stored.
    """
    current = (await session.execute(_CURRENT_MONTH)).one()
    if (scope.year, scope.month) > (current.year, current.month):
        field = "year" if scope.year > current.year else "month"
        raise MutationRejected(
            InvalidInput(
                (field,),
                f"{scope.year:04}-{scope.month:02} is in the future",
                f"a month up to {current.year:04}-{current.month:02}, the current one in UTC",
            )
        )
    earliest_at = await read_earliest_at(session)
    if earliest_at and datetime(scope.year, scope.month, 1, tzinfo=UTC) < earliest_at:
        earliest = earliest_at.astimezone(UTC)
        raise MutationRejected(
            InvalidInput(
                ("year" if scope.year < earliest.year else "month",),
                f"the history of {scope.year:04}-{scope.month:02} was dropped",
                f"a month from {earliest:%Y-%m} to {current.year:04}-{current.month:02}",
            )
        )
    if scope.user_id is not None:
        known = await session.execute(_KNOWN_USER, {"user_id": scope.user_id})
        if not known.scalar_one():
            raise MutationRejected(UserNotFound(("userId",), scope.user_id))


async def create_report(session: WriteSession, scope: ReportScope, *, actor: Actor) -> ReportRecord:
    """Request a report, which a worker makes.

    Raises:
        MutationRejected: the month is in the future, its history was dropped, or the user was never
            stored.
    """
    values = {
        "user_id": scope.user_id,
        "year": scope.year,
        "month": scope.month,
        "with_keys": scope.with_keys,
        "actor": actor.name,
    }
    for _ in range(MAX_CONFLICT_RETRIES):
        row = (await session.execute(_CREATE, values)).one_or_none()
        if row:
            report = _report_record(row)
            await audit.record(
                session,
                actor=actor,
                action=AuditAction.REPORT_REQUESTED,
                target=report.global_id,
                after={
                    "userId": None if scope.user_id is None else str(scope.user_id),
                    "year": scope.year,
                    "month": scope.month,
                    "withKeys": scope.with_keys,
                },
            )
            session.after_commit(Message(MAKE_REPORT, (row.report_id,)))
            return report
        await check_scope(session, scope)
    raise AssertionError("the statement and the check disagreed at every attempt")


async def reports_by_id(session: ReadSession, report_ids: Sequence[int]) -> dict[int, ReportRecord]:
    """Return the reports with these ids; unknown and removed reports are absent."""
    rows = await session.execute(_BY_IDS, {"report_ids": list(report_ids)})
    return {row.report_id: _report_record(row) for row in rows}


async def report_page(
    session: ReadSession, *, before: int, user_id: int | None, with_all_users: bool, rows: int
) -> list[ReportRecord]:
    """Return reports, newest first.

    Args:
        session: The session.
        before: The report id below which the page begins.
        user_id: If set, the page has only reports on this user.
        with_all_users: Whether the page has reports on all users. Ignored if `user_id` is set.
        rows: The maximum number of reports.
    """
    values = {"before": before, "user_id": user_id, "rows": rows}
    if user_id is not None:
        statement = _PAGE_OF_USER
    else:
        statement = _PAGE if with_all_users else _PAGE_OF_SINGLE_USERS
    return [_report_record(row) for row in await session.execute(statement, values)]
