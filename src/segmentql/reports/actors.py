"""The actors of reports, and the periodic checks that find work whose message was lost."""

from datetime import UTC, datetime

from segmentql.adapters.database import Database
from segmentql.adapters.jobs import JobActor, Message
from segmentql.adapters.scheduler import PeriodicCheck
from segmentql.csv_files.attempts import Attempt
from segmentql.csv_files.generation import (
    COPY_TIMEOUT_SECONDS,
    FileContext,
    StoredFile,
    generate_file,
    upload_csv,
)
from segmentql.csv_files.schedule import due_files, remove_old_files, seconds_to_next_file
from segmentql.history.retention import check_history_since
from segmentql.reports.csv_export import CsvExport
from segmentql.reports.file_kind import REPORT_FILES
from segmentql.reports.jobs import MAKE_REPORT, REMOVE_OLD_REPORTS
from segmentql.reports.records import ReportScope


async def make_report(context: FileContext, report_id: int) -> None:
    """Generate the file of a report in one attempt."""
    await generate_file(context, REPORT_FILES, report_id, store_file)


async def store_file(context: FileContext, attempt: Attempt[ReportScope]) -> StoredFile:
    """Read the rows of a report and upload them.

    Raises:
        HistoryDropped: the history of the month was dropped after the request.
        StoreFailed: the upload failed.
        TimedOut, Unavailable: the query failed.
    """
    # The session stays open during the upload. This is the only exception to the rule in
    # `Database.read`. A query that may take long has its own connection.
    database, scope = context.database, attempt.content
    is_short = scope.user_id is not None
    reading = database.read() if is_short else database.long_read(seconds=COPY_TIMEOUT_SECONDS)
    async with reading as session:
        stored = await upload_csv(context.storage, attempt.object_key, CsvExport(session, scope))
    # After the session, which would need a second connection for this statement.
    first_day = datetime(scope.year, scope.month, 1, tzinfo=UTC)
    await database.read_one(lambda session: check_history_since(session, first_day))
    return stored


async def remove_old_reports(context: FileContext) -> None:
    """Remove reports that are older than the retention, and unfinished uploads."""
    await remove_old_files(context.database, REPORT_FILES, days=context.retention_days)
    await context.storage.abort_stale_uploads(older_than_seconds=2 * COPY_TIMEOUT_SECONDS)


async def find_due(database: Database) -> list[Message]:
    """Return the messages for all reports whose next attempt is overdue."""
    return await due_files(database, REPORT_FILES)


async def seconds_to_next(database: Database) -> float | None:
    """Return the time until the next attempt of a report is due."""
    return await seconds_to_next_file(database, REPORT_FILES)


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
