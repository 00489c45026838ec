"""What people ask of reports, and read of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Row, text

from segmentql.adapters.database import ReadSession, WriteSession
from segmentql.adapters.jobs import Message
from segmentql.errors import InvalidInput, MutationRejected, UserNotFound
from segmentql.reports.jobs import MAKE_REPORT
from segmentql.tables import ReportStatus

REPORT_COLUMNS: Final = """
r.id AS report_id, r.user_id, r.year, r.month, r.status, r.row_count, r.size_bytes,
r.created_at AS report_created_at, r.finished_at, r.failure, r.object_key
"""
"""What the GraphQL type is made of, in every statement that reads reports as `r`."""

MAX_RACES: Final = 3
"""Tries to ask for what was not there a moment ago."""

# Whoever was stored once has a history, which outlives the user.
_IS_KNOWN: Final = """(
    EXISTS (SELECT FROM users WHERE id = :user_id)
    OR EXISTS (SELECT FROM deleted_users WHERE id = :user_id))
"""
_KNOWN_USER = text(f"SELECT {_IS_KNOWN}")

_THIS_MONTH = text("""
SELECT CAST(extract(year FROM moment) AS integer) AS year,
    CAST(extract(month FROM moment) AS integer) AS month
FROM (SELECT clock_timestamp() AT TIME ZONE 'UTC' AS moment) AS now
""")

_CREATE = text(f"""
INSERT INTO reports AS r (user_id, year, month, status, created_at, next_attempt_at, actor)
SELECT CAST(:user_id AS bigint), :year, :month, 'QUEUED', at, at, CAST(:actor AS text)
FROM (SELECT clock_timestamp() AS at OFFSET 0) AS moment
WHERE make_date(:year, :month, 1) <= at AT TIME ZONE 'UTC'
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


_STATS = text("""
SELECT status, count(*) AS number, extract(epoch FROM now() - min(created_at)) AS oldest_seconds
FROM reports GROUP BY status
""")


async def reject_unknown(
    session: ReadSession | WriteSession, *, user_id: int | None, year: int, month: int
) -> None:
    """Refuse what there can be no report of.

    Raises:
        Refused: a month in the future, or a user who was never stored.
    """
    now = (await session.execute(_THIS_MONTH)).one()
    if (year, month) > (now.year, now.month):
        field = "year" if year > now.year else "month"
        allowed = f"up to {now.year:04}-{now.month:02}, the month that it is now in UTC"
        raise MutationRejected(
            InvalidInput((field,), f"{year:04}-{month:02} is in the future", allowed)
        )
    if user_id is not None:
        known = await session.execute(_KNOWN_USER, {"user_id": user_id})
        if not known.scalar_one():
            raise MutationRejected(UserNotFound(("userId",), user_id))


async def create_report(
    session: WriteSession, *, user_id: int | None, year: int, month: int, actor: str | None
) -> Row[Any]:
    """Ask for a report of a month of a user, or of all users; a worker makes it.

    Raises:
        Refused: a month in the future, or a user who was never stored.
    """
    values = {"user_id": user_id, "year": year, "month": month, "actor": actor}
    for _ in range(MAX_RACES):
        report = (await session.execute(_CREATE, values)).one_or_none()
        if report:
            session.after_commit(Message(MAKE_REPORT, (report.report_id,)))
            return report
        await reject_unknown(session, user_id=user_id, year=year, month=month)
    raise AssertionError("what was missing is there when looked for, again and again")


async def reports_by_id(session: ReadSession, report_ids: Sequence[int]) -> dict[int, Row[Any]]:
    """Read reports; those that are not kept any more: absent."""
    rows = await session.execute(_BY_IDS, {"report_ids": list(report_ids)})
    return {row.report_id: row for row in rows}


async def report_page(
    session: ReadSession, *, before: int, user_id: int | None, all_users_too: bool, rows: int
) -> Sequence[Row[Any]]:
    """Read reports, the newest first, those made before report number `before`.

    `user_id` is whose; without it everybody's, and with `all_users_too` those on all users.
    """
    values = {"before": before, "user_id": user_id, "rows": rows}
    if user_id is not None:
        statement = _PAGE_OF_USER
    else:
        statement = _PAGE if all_users_too else _PAGE_OF_SINGLE_USERS
    return (await session.execute(statement, values)).all()


@dataclass(frozen=True)
class ReportStats:
    """The reports that are kept."""

    numbers: Mapping[ReportStatus, int]
    """By status, of each."""
    oldest_waiting_seconds: float
    """For how long the oldest that is not over has been asked for; 0 where all are."""


async def count_by_status(session: ReadSession) -> ReportStats:
    found = {ReportStatus(row.status): row for row in await session.execute(_STATS)}
    waiting = [
        float(row.oldest_seconds)
        for status, row in found.items()
        if status in {ReportStatus.QUEUED, ReportStatus.RUNNING}
    ]
    numbers = {status: found[status].number if status in found else 0 for status in ReportStatus}
    return ReportStats(numbers, max([0.0, *waiting]))
