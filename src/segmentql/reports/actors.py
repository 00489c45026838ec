"""The actors of reports, and the periodic checks that find work whose message was lost."""

import asyncio
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from segmentql import metrics
from segmentql.adapters.database import Database
from segmentql.adapters.jobs import JobActor, Message
from segmentql.adapters.scheduler import PeriodicCheck
from segmentql.adapters.storage import Storage
from segmentql.errors import StoreFailed, StoreRejected, TimedOut, Unavailable
from segmentql.reports import generation, schedule
from segmentql.reports.csv_export import CsvExport
from segmentql.reports.jobs import MAKE_REPORT, REMOVE_OLD_REPORTS

CONTENT_TYPE: Final = "text/csv; charset=utf-8"
INTERNAL_FAILURE: Final = "an internal error; see the worker's log"
TIMEOUT_FAILURE: Final = f"the query took longer than {generation.COPY_TIMEOUT_SECONDS} seconds"
DATABASE_FAILURE: Final = "the database became unavailable"


@dataclass(frozen=True)
class ReportContext:
    """The dependencies of the actors of reports."""

    database: Database
    storage: Storage
    retention_days: int


async def make_report(report_context: ReportContext, report_id: int) -> None:
    """Make one attempt to write a report's file."""
    database = report_context.database
    attempt = await database.transaction(lambda session: generation.claim(session, report_id))
    if attempt is None:
        return
    try:
        await _make_with_heartbeat(report_context, attempt)
    except BaseException as error:  # A cancelled attempt has failed as well.
        reason, rejected = _reason(error), isinstance(error, StoreRejected)
        has_failed = await database.transaction(
            lambda session: generation.fail(
                session, attempt, reason=reason, rejected_by_store=rejected
            )
        )
        if has_failed:
            metrics.REPORTS.labels("failed").inc()
        if reason == INTERNAL_FAILURE:
            raise


async def _make_with_heartbeat(report_context: ReportContext, attempt: generation.Attempt) -> None:
    """Write the file, and extend the attempt's lease meanwhile."""
    writing = asyncio.create_task(_write_file(report_context, attempt))
    heartbeats = asyncio.create_task(_send_heartbeats(report_context, attempt))
    tasks = {writing, heartbeats}
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if writing.cancelled():
        # The attempt has lost its lease, and the store may have completed the upload.
        await report_context.database.transaction(
            lambda session: generation.discard_unless_published(session, attempt)
        )


async def _write_file(report_context: ReportContext, attempt: generation.Attempt) -> None:
    # The session stays open during the upload. This is the only exception to the rule in
    # `Database.read`. A query that may take long has its own connection.
    database, storage = report_context.database, report_context.storage
    is_short = attempt.scope.user_id is not None
    reading = (
        database.read() if is_short else database.long_read(seconds=generation.COPY_TIMEOUT_SECONDS)
    )
    async with reading as session:
        csv = CsvExport(session, attempt.scope)
        async with aclosing(csv.chunks()) as chunks:
            size_bytes = await storage.upload(attempt.object_key, chunks, content_type=CONTENT_TYPE)
    seconds = await database.transaction(
        lambda session: generation.finish(
            session, attempt, row_count=csv.rows, size_bytes=size_bytes
        )
    )
    if seconds is None:
        return
    metrics.REPORTS.labels("ready").inc()
    metrics.REPORT_DURATION_SECONDS.observe(seconds)


async def _send_heartbeats(report_context: ReportContext, attempt: generation.Attempt) -> None:
    """Extend the lease at each interval; return when the attempt has lost it."""
    holds_lease = True
    while holds_lease:
        await asyncio.sleep(generation.HEARTBEAT_SECONDS)
        holds_lease = await report_context.database.transaction(
            lambda session: generation.heartbeat(session, attempt)
        )


def _reason(error: BaseException) -> str:
    if isinstance(error, StoreFailed):
        return error.reason
    if isinstance(error, TimedOut):
        return TIMEOUT_FAILURE
    return DATABASE_FAILURE if isinstance(error, Unavailable) else INTERNAL_FAILURE


async def remove_old_reports(report_context: ReportContext) -> None:
    """Remove reports that are older than the retention, and unfinished uploads."""
    database, days = report_context.database, report_context.retention_days
    while await database.transaction(
        lambda session: schedule.remove_old_reports(session, days=days)
    ):
        pass
    await report_context.storage.abort_stale_uploads(
        older_than_seconds=2 * generation.COPY_TIMEOUT_SECONDS
    )


async def find_due(database: Database) -> list[Message]:
    """Return the messages for all reports whose next attempt is overdue."""
    async with database.read() as session:
        due = await schedule.due_reports(session)
    return [Message(MAKE_REPORT, (report_id,)) for report_id in due]


async def seconds_to_next(database: Database) -> float | None:
    """Return the time until the next attempt of a report is due."""
    async with database.read() as session:
        return await schedule.seconds_to_next(session)


async def schedule_cleanup(database: Database) -> list[Message]:
    """Return the message for the removal of old reports."""
    return [Message(REMOVE_OLD_REPORTS)]


ACTORS = (
    JobActor(MAKE_REPORT, make_report),
    JobActor(REMOVE_OLD_REPORTS, remove_old_reports),
)

PERIODIC_CHECKS = (
    PeriodicCheck(find_due, seconds_to_next=seconds_to_next),
    PeriodicCheck(schedule_cleanup, every_seconds=600),
)
