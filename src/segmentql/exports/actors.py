"""The actors of exports, and the periodic checks that find work whose message was lost."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from segmentql import metrics
from segmentql.adapters.database import Database
from segmentql.adapters.gzip_stream import gzip_chunks
from segmentql.adapters.jobs import JobActor, Message
from segmentql.adapters.scheduler import PeriodicCheck
from segmentql.adapters.storage import CSV_TYPE, GZIP_TYPE, Storage
from segmentql.errors import StoreFailed, StoreRejected, TimedOut, Unavailable
from segmentql.exports import generation, schedule
from segmentql.exports.jobs import MAKE_EXPORT, REMOVE_OLD_EXPORTS
from segmentql.exports.members_csv import members_csv

INTERNAL_FAILURE: Final = "an internal error; see the worker's log"
TIMEOUT_FAILURE: Final = f"the query took longer than {generation.COPY_TIMEOUT_SECONDS} seconds"
DATABASE_FAILURE: Final = "the database became unavailable"


@dataclass(frozen=True)
class ExportContext:
    """The dependencies of the actors of exports."""

    database: Database
    storage: Storage
    retention_days: int


async def make_export(context: ExportContext, export_id: int) -> None:
    """Make one attempt to write an export's file."""
    database = context.database
    attempt = await database.transaction(lambda session: generation.claim(session, export_id))
    if attempt is None:
        return
    try:
        await _make_with_heartbeat(context, attempt)
    except BaseException as error:  # A cancelled attempt has failed as well.
        reason, rejected = _reason(error), isinstance(error, StoreRejected)
        has_failed = await database.transaction(
            lambda session: generation.fail(
                session, attempt, reason=reason, rejected_by_store=rejected
            )
        )
        if has_failed:
            metrics.EXPORTS.labels("failed").inc()
        if reason == INTERNAL_FAILURE:
            raise


async def _make_with_heartbeat(context: ExportContext, attempt: generation.Attempt) -> None:
    """Write the file, and extend the attempt's lease meanwhile."""
    tasks = {
        asyncio.create_task(_write_file(context, attempt)),
        asyncio.create_task(_send_heartbeats(context.database, attempt)),
    }
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _write_file(context: ExportContext, attempt: generation.Attempt) -> None:
    # The session stays open during the upload. See the exception to the rule in `Database.read`.
    database, storage = context.database, context.storage
    async with database.long_read(seconds=generation.COPY_TIMEOUT_SECONDS) as session:
        csv = members_csv(session, attempt.segment_id, attempt.as_of)
        async with aclosing(_file(csv.chunks(), is_gzip=attempt.is_gzip)) as chunks:
            size_bytes = await storage.upload(
                attempt.object_key, chunks, content_type=GZIP_TYPE if attempt.is_gzip else CSV_TYPE
            )
    seconds = await database.transaction(
        lambda session: generation.finish(
            session, attempt, row_count=csv.rows, size_bytes=size_bytes
        )
    )
    if seconds is None:
        return
    metrics.EXPORTS.labels("ready").inc()
    metrics.EXPORT_DURATION_SECONDS.observe(seconds)


async def _file(csv: AsyncGenerator[bytes], *, is_gzip: bool) -> AsyncGenerator[bytes]:
    """Yield the chunks of the file; close the CSV at the end."""
    async with aclosing(csv), aclosing(gzip_chunks(csv)) as compressed:
        async for chunk in compressed if is_gzip else csv:
            yield chunk


async def _send_heartbeats(database: Database, attempt: generation.Attempt) -> None:
    """Extend the lease at each interval; return when the attempt has lost it."""
    holds_lease = True
    while holds_lease:
        await asyncio.sleep(generation.HEARTBEAT_SECONDS)
        holds_lease = await database.transaction(
            lambda session: generation.heartbeat(session, attempt)
        )


def _reason(error: BaseException) -> str:
    if isinstance(error, StoreFailed):
        return error.reason
    if isinstance(error, TimedOut):
        return TIMEOUT_FAILURE
    return DATABASE_FAILURE if isinstance(error, Unavailable) else INTERNAL_FAILURE


async def remove_old_exports(context: ExportContext) -> None:
    """Remove exports that are older than the retention."""
    database, days = context.database, context.retention_days
    while await database.transaction(
        lambda session: schedule.remove_old_exports(session, days=days)
    ):
        pass


async def find_due(database: Database) -> list[Message]:
    """Return the messages for all exports whose next attempt is overdue."""
    async with database.read() as session:
        due = await schedule.due_exports(session)
    return [Message(MAKE_EXPORT, (export_id,)) for export_id in due]


async def seconds_to_next(database: Database) -> float | None:
    """Return the time until the next attempt of an export is due."""
    async with database.read() as session:
        return await schedule.seconds_to_next(session)


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
