"""The work of the jobs that make the files of results, and the end of imports."""

import uuid
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager

import structlog

from segmentql import metrics
from segmentql.adapters.database import Database
from segmentql.adapters.storage import CSV_TYPE, Storage
from segmentql.errors import StoreFailed
from segmentql.imports import cleanup, reads, result, staging
from segmentql.objects import service as objects
from segmentql.tables import ImportStatus

log = structlog.get_logger(__name__)


async def finish(database: Database, storage: Storage, import_id: int) -> None:
    """Make the result of a finished import, then delete its staged rows and uploaded files."""
    async with database.read() as session:
        version = await result.missing_result(session, import_id)
    if version is not None:
        try:
            async with database.long_read(seconds=result.RESULT_TIMEOUT_SECONDS) as session:
                stream = await result.result_csv(session, import_id)
                object_key = await _upload(database, storage, aclosing(stream.chunks()))
        except StoreFailed as error:
            log.warning("import_result_not_stored", import_id=import_id, reason=error.reason)
            await database.transaction(lambda session: cleanup.postpone_cleanup(session, import_id))
            return
        await database.transaction(
            lambda session: result.publish_result(session, import_id, object_key, version=version)
        )
    if not await database.transaction(lambda session: cleanup.begin_cleanup(session, import_id)):
        return
    last: staging.LastDeleted | None = staging.NOTHING_DELETED
    while last is not None:
        last = await database.transaction(
            lambda session: staging.delete_staged_rows(session, import_id, after=last)  # noqa: B023
        )
    finished = await database.transaction(lambda session: cleanup.end_cleanup(session, import_id))
    if finished is not None:
        _count(finished)


def _count(finished: cleanup.FinishedImport) -> None:
    """Count a finished import after the commit of its clean-up, which happens once."""
    metrics.IMPORTS.labels(finished.status).inc()
    for outcome, rows in finished.counts.items():
        metrics.IMPORT_ROWS.labels(outcome).inc(rows)
    if finished.status is ImportStatus.COMPLETED:
        metrics.IMPORT_DURATION_SECONDS.observe(finished.seconds)


async def make_filtered(database: Database, storage: Storage, import_id: int, mask: int) -> None:
    """Make the file with the outcomes of a mask, unless it exists."""
    async with database.read() as session:
        record = (await reads.imports_by_id(session, [import_id])).get(import_id)
    if record is None or record.result_key is None or str(mask) in record.filtered_keys:
        return
    result_key = record.result_key
    object_key = await _upload(database, storage, _filtered(storage.read(result_key), mask))
    await database.transaction(
        lambda session: result.publish_filtered(
            session, import_id, mask, object_key, result_key=result_key
        )
    )


@asynccontextmanager
async def _filtered(
    source: AbstractAsyncContextManager[AsyncIterator[bytes]], mask: int
) -> AsyncIterator[AsyncIterator[bytes]]:
    async with (
        source as chunks_of_result,
        aclosing(result.filter_csv(chunks_of_result, result.masked_outcomes(mask))) as filtered,
    ):
        yield filtered


async def _upload(
    database: Database, storage: Storage, source: AbstractAsyncContextManager[AsyncIterator[bytes]]
) -> str:
    """Upload a result; return its key. The caller stores the key, or the object is deleted."""
    object_key = f"imports/results/{uuid.uuid4()}.csv"
    await database.transaction(
        lambda session: objects.begin_upload(
            session, object_key, max_seconds=2 * result.RESULT_TIMEOUT_SECONDS
        )
    )
    async with source as stream:
        await storage.upload(object_key, stream, content_type=CSV_TYPE)
    return object_key
