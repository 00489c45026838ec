"""The actors of exports, and the periodic checks that find work whose message was lost."""

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
from segmentql.exports.file_kind import EXPORT_FILES
from segmentql.exports.jobs import MAKE_EXPORT, REMOVE_OLD_EXPORTS
from segmentql.exports.members_csv import members_csv
from segmentql.exports.records import ExportContent
from segmentql.history.retention import check_history_since


async def make_export(context: FileContext, export_id: int) -> None:
    """Generate the file of an export in one attempt."""
    await generate_file(context, EXPORT_FILES, export_id, store_file)


async def store_file(context: FileContext, attempt: Attempt[ExportContent]) -> StoredFile:
    """Read the members of an export and upload them.

    Raises:
        HistoryDropped: the history of the time was dropped after the request.
        StoreFailed: the upload failed.
        TimedOut, Unavailable: the query failed.
    """
    # The session stays open during the upload. See the exception to the rule in `Database.read`.
    content = attempt.content
    async with context.database.long_read(seconds=COPY_TIMEOUT_SECONDS) as session:
        csv = members_csv(session, content.segment_id, content.as_of)
        stored = await upload_csv(context.storage, attempt.object_key, csv, is_gzip=content.is_gzip)
        await check_history_since(session, content.as_of)
        return stored


async def remove_old_exports(context: FileContext) -> None:
    """Remove exports that are older than the retention."""
    await remove_old_files(context.database, EXPORT_FILES, days=context.retention_days)


async def find_due(database: Database) -> list[Message]:
    """Return the messages for all exports whose next attempt is overdue."""
    return await due_files(database, EXPORT_FILES)


async def seconds_to_next(database: Database) -> float | None:
    """Return the time until the next attempt of an export is due."""
    return await seconds_to_next_file(database, EXPORT_FILES)


async def schedule_cleanup(database: Database) -> list[Message]:
    """Return the message for the removal of old exports."""
    return [Message(REMOVE_OLD_EXPORTS)]


ACTORS = (
    JobActor(MAKE_EXPORT, make_export),
    JobActor(REMOVE_OLD_EXPORTS, remove_old_exports),
)

PERIODIC_CHECKS = (
    PeriodicCheck(find_due, seconds_to_next=seconds_to_next),
    PeriodicCheck(schedule_cleanup, every_seconds=600),
)
