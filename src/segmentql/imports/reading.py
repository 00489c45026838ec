"""Reading the uploaded file of an import: from the object store, through the parser, into staging.

The parser runs in a thread, so that it does not block the event loop. While a batch is stored, the
next one is parsed. No session is held while the store is read.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator

from segmentql.adapters.database import Database
from segmentql.adapters.storage import Storage
from segmentql.errors import HistoryDropped
from segmentql.imports import attempts, staging
from segmentql.imports.file_format import FileRefused
from segmentql.imports.parsing import read_rows
from segmentql.imports.records import ImportRecord, SegmentAlgebra, UploadSource
from segmentql.imports.row_parser import Row

BATCH_ROWS = 10_000
"""The number of rows in one transaction, about 0.05 s. Two batches are in memory."""

PULL_SECONDS = 120
"""How long the parser waits for a chunk. The store's time-outs are shorter, so this is only for an
event loop that has stopped."""

MEMBERS_TIMEOUT_SECONDS = 1800
"""The time limit of the statement that computes a list from the members of segments."""


async def stage_list(
    database: Database, storage: Storage, attempt: attempts.Attempt, record: ImportRecord
) -> None:
    """Read the whole list of an import into the staging tables.

    Raises:
        FileRefused: the file cannot be used, or the list is computed from the members at a time
            whose history was dropped.
        LeaseLost: another attempt reads the list now, or the import was cancelled.
        StoreFailed: the file could not be read.
    """
    last: staging.LastDeleted | None = staging.NOTHING_DELETED
    while last is not None:
        last = await database.transaction(
            lambda session: staging.start_over(session, attempt, after=last)  # noqa: B023
        )
    source = record.source
    if isinstance(source, SegmentAlgebra):
        await _stage_members(database, attempt, source)
        return
    assert record.file_key is not None  # noqa: S101 - a queued import of an upload has its copy
    async with storage.read(record.file_key) as chunks:
        await _stage_file(database, attempt, record, source, chunks)


async def _stage_members(
    database: Database, attempt: attempts.Attempt, source: SegmentAlgebra
) -> None:
    try:
        await database.transaction(
            lambda session: staging.stage_members(
                session,
                attempt,
                any_of=source.any_of,
                all_of=source.all_of,
                none_of=source.none_of,
                as_of=source.as_of,
            ),
            seconds=MEMBERS_TIMEOUT_SECONDS,
        )
    except HistoryDropped as error:
        raise FileRefused(f"The list cannot be computed, because {error.reason}.") from error


async def _stage_file(
    database: Database,
    attempt: attempts.Attempt,
    record: ImportRecord,
    upload: UploadSource,
    chunks: AsyncIterator[bytes],
) -> None:
    digest = hashlib.sha256()
    pulled = _pull(chunks, asyncio.get_running_loop())

    def hashed() -> Iterator[bytes]:
        for chunk in pulled:
            digest.update(chunk)
            yield chunk

    batches = read_rows(hashed(), record.options.list_format, batch_rows=BATCH_ROWS)

    def next_batch() -> asyncio.Task[list[Row] | None]:
        return asyncio.create_task(asyncio.to_thread(next, batches, None))

    parsing = next_batch()
    try:
        while (batch := await asyncio.shield(parsing)) is not None:
            parsing = next_batch()
            await _stage_batch(database, attempt, batch)
    finally:
        # The thread reads the file until it has parsed its batch. The file stays open until then.
        await asyncio.gather(parsing, return_exceptions=True)
    if upload.sha256 is not None and digest.hexdigest() != upload.sha256:
        raise FileRefused(
            f"The SHA-256 of the file is {digest.hexdigest()}, not {upload.sha256}. Upload the file"
            " again."
        )


async def _stage_batch(database: Database, attempt: attempts.Attempt, batch: list[Row]) -> None:
    await database.transaction(lambda session: staging.stage_rows(session, attempt, batch))


def _pull(chunks: AsyncIterator[bytes], loop: asyncio.AbstractEventLoop) -> Iterator[bytes]:
    """Yield the chunks in another thread than the loop's."""

    async def next_chunk() -> bytes | None:
        return await anext(chunks, None)

    def pull() -> bytes | None:
        return asyncio.run_coroutine_threadsafe(next_chunk(), loop).result(PULL_SECONDS)

    while (chunk := pull()) is not None:
        yield chunk
