"""Jobs of reports, and how the scheduler finds what their messages lost."""

import asyncio
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from segmentql.adapters.database import Database
from segmentql.adapters.jobs import Actor, Message
from segmentql.adapters.scheduler import PeriodicCheck
from segmentql.adapters.storage import Storage
from segmentql.errors import StoreFailed, StoreRejected, TimedOut, Unavailable
from segmentql.reports import generation
from segmentql.reports.csv_export import Csv
from segmentql.reports.jobs import MAKE_REPORT, REMOVE_OLD_REPORTS

CONTENT_TYPE: Final = "text/csv; charset=utf-8"
FAULT: Final = "a fault of ours; the worker's log has it"
TOO_SLOW: Final = f"it took longer than {generation.COPY_SECONDS} seconds"
DATABASE_AWAY: Final = "the database went away"


@dataclass(frozen=True)
class ReportContext:
    """What the work on reports needs."""

    database: Database
    storage: Storage
    retention_days: int


async def make_report(report_context: ReportContext, report_id: int) -> None:
    attempt = await report_context.database.transaction(
        lambda session: generation.claim(session, report_id)
    )
    if attempt is None:
        return
    try:
        if attempt.abandoned_key:  # by a worker that died, perhaps in the middle of it
            await report_context.storage.abandon(attempt.abandoned_key)
        await _make_with_heartbeat(report_context, attempt)
    except BaseException as error:  # a try that is cancelled has failed as well
        reason, refused = _reason(error), isinstance(error, StoreRejected)
        await report_context.database.transaction(
            lambda session: generation.fail(session, attempt, reason=reason, refused=refused)
        )
        if reason == FAULT:
            raise


async def _make_with_heartbeat(report_context: ReportContext, attempt: generation.Attempt) -> None:
    """Make the file, and say every few seconds that its worker lives."""
    tasks = {
        asyncio.create_task(_write_file(report_context, attempt)),
        asyncio.create_task(_send_heartbeats(report_context, attempt)),
    }
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _write_file(report_context: ReportContext, attempt: generation.Attempt) -> None:
    # The session is held while the store takes the file: the one exception to the rule that
    # nobody awaits others with a session open. What may take long is on a connection of its own.
    of_one = attempt.scope.user_id is not None
    reading = (
        report_context.database.read()
        if of_one
        else report_context.database.long_read(seconds=generation.COPY_SECONDS)
    )
    async with reading as session:
        csv = Csv(session, attempt.scope)
        async with aclosing(csv.chunks()) as chunks:
            size_bytes = await report_context.storage.upload(
                attempt.object_key, chunks, content_type=CONTENT_TYPE
            )
    known = await report_context.database.transaction(
        lambda session: generation.finish(
            session, attempt, row_count=csv.rows, size_bytes=size_bytes
        )
    )
    if not known:
        await report_context.storage.abandon(attempt.object_key)


async def _send_heartbeats(report_context: ReportContext, attempt: generation.Attempt) -> None:
    """End when the report is another's by now."""
    is_ours = True
    while is_ours:
        await asyncio.sleep(generation.HEARTBEAT_SECONDS)
        is_ours = await report_context.database.transaction(
            lambda session: generation.heartbeat(session, attempt)
        )


def _reason(error: BaseException) -> str:
    if isinstance(error, StoreFailed):
        return error.reason
    if isinstance(error, TimedOut):
        return TOO_SLOW
    return DATABASE_AWAY if isinstance(error, Unavailable) else FAULT


async def remove_old_reports(report_context: ReportContext) -> None:
    while await _removed_some(report_context):
        pass
    await report_context.storage.abort_stale_uploads(older_than_seconds=2 * generation.COPY_SECONDS)


async def _removed_some(report_context: ReportContext) -> bool:
    async with report_context.database.read() as session:
        old = await generation.old_reports(session, days=report_context.retention_days)
    # The objects first: what is forgotten cannot be removed any more.
    await report_context.storage.delete([row.object_key for row in old if row.object_key])
    await report_context.database.transaction(
        lambda session: generation.remove_reports(session, [row.report_id for row in old])
    )
    return bool(old)


async def find_due(database: Database) -> list[Message]:
    """What must be sent so that every report is made."""
    async with database.read() as session:
        due = await generation.due_reports(session)
    return [Message(MAKE_REPORT, (report_id,)) for report_id in due]


async def seconds_to_next(database: Database) -> float | None:
    """Return how soon a report needs another try, or its worker counts as dead."""
    async with database.read() as session:
        return await generation.seconds_to_next(session)


async def schedule_cleanup(database: Database) -> list[Message]:
    """Have old reports removed; the job looks whether there are any."""
    return [Message(REMOVE_OLD_REPORTS)]


ACTORS = (
    Actor(MAKE_REPORT, make_report),
    Actor(REMOVE_OLD_REPORTS, remove_old_reports),
)

PERIODIC_CHECKS = (
    PeriodicCheck(find_due, seconds_to_next=seconds_to_next),
    PeriodicCheck(schedule_cleanup, every_seconds=600),
)
