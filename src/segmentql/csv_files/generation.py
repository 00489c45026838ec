"""The generation of a file of reports and exports: one attempt, from its claim to its end."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, TypeAlias

from segmentql.adapters.csv_stream import CsvStream
from segmentql.adapters.database import Database
from segmentql.adapters.gzip_stream import gzip_chunks
from segmentql.adapters.storage import CSV_TYPE, GZIP_TYPE, Storage
from segmentql.csv_files import attempts
from segmentql.csv_files.attempts import Attempt
from segmentql.csv_files.file_kind import ContentT, FileKind
from segmentql.csv_files.heartbeats import run_with_heartbeats
from segmentql.errors import HistoryDropped, StoreFailed, StoreRejected, TimedOut, Unavailable

COPY_TIMEOUT_SECONDS: Final = 1800
"""The time limit of the query that reads the rows of one file."""

INTERNAL_FAILURE: Final = "an internal error; see the worker's log"
TIMEOUT_FAILURE: Final = f"the query took longer than {COPY_TIMEOUT_SECONDS} seconds"
DATABASE_FAILURE: Final = "the database became unavailable"


@dataclass(frozen=True)
class FileContext:
    """The dependencies of the actors that make and remove files."""

    database: Database
    storage: Storage
    retention_days: int


@dataclass(frozen=True, slots=True)
class StoredFile:
    """The size of a file that an attempt has uploaded."""

    row_count: int
    size_bytes: int


StoreFile: TypeAlias = Callable[[FileContext, Attempt[ContentT]], Awaitable[StoredFile]]
"""A function that reads the rows of an attempt's file and uploads it."""


async def generate_file(
    context: FileContext,
    kind: FileKind[ContentT],
    file_id: int,
    store_file: StoreFile[ContentT],
) -> None:
    """Generate a file in one attempt, if it is due."""
    database = context.database
    attempt = await database.transaction(lambda session: attempts.claim(session, kind, file_id))
    if attempt is None:
        return
    try:
        await _store_with_heartbeats(context, attempt, store_file)
    except BaseException as error:  # A cancelled attempt has failed as well.
        reason, max_attempts = _reason(error), _max_attempts(error)
        has_failed = await database.transaction(
            lambda session: attempts.fail(
                session, attempt, reason=reason, max_attempts=max_attempts
            )
        )
        if has_failed:
            kind.outcomes.labels("failed").inc()
        if reason == INTERNAL_FAILURE:
            raise


async def _store_with_heartbeats(
    context: FileContext, attempt: Attempt[ContentT], store_file: StoreFile[ContentT]
) -> None:
    """Store the file and publish it, and extend the attempt's lease meanwhile."""
    has_ended = await run_with_heartbeats(
        store_and_publish(context, attempt, store_file),
        lambda: context.database.transaction(lambda session: attempts.heartbeat(session, attempt)),
        interval_seconds=attempts.HEARTBEAT_SECONDS,
    )
    if not has_ended:
        # The attempt has lost its lease, and the store may have completed the upload.
        await context.database.transaction(
            lambda session: attempts.discard_unless_published(session, attempt)
        )


async def store_and_publish(
    context: FileContext, attempt: Attempt[ContentT], store_file: StoreFile[ContentT]
) -> None:
    """Store the file of an attempt, and publish it if the attempt still holds its lease.

    Raises:
        StoreFailed, TimedOut, Unavailable: the file could not be stored or published.
    """
    stored = await store_file(context, attempt)
    seconds = await context.database.transaction(
        lambda session: attempts.finish(
            session, attempt, row_count=stored.row_count, size_bytes=stored.size_bytes
        )
    )
    if seconds is not None:
        attempt.kind.outcomes.labels("ready").inc()
        attempt.kind.durations.observe(seconds)


async def upload_csv(
    storage: Storage, object_key: str, csv: CsvStream, *, is_gzip: bool = False
) -> StoredFile:
    """Upload the CSV of a query, whose session stays open meanwhile.

    Raises:
        StoreFailed: the upload failed.
        TimedOut, Unavailable: the query failed.
    """
    async with aclosing(_file_chunks(csv, is_gzip=is_gzip)) as chunks:
        size_bytes = await storage.upload(
            object_key, chunks, content_type=GZIP_TYPE if is_gzip else CSV_TYPE
        )
    return StoredFile(csv.rows, size_bytes)


async def _file_chunks(csv: CsvStream, *, is_gzip: bool) -> AsyncGenerator[bytes]:
    """Yield the chunks of the file; close the CSV at the end."""
    async with aclosing(csv.chunks()) as plain, aclosing(gzip_chunks(plain)) as compressed:
        async for chunk in compressed if is_gzip else plain:
            yield chunk


def _reason(error: BaseException) -> str:
    if isinstance(error, StoreFailed | HistoryDropped):
        return error.reason
    if isinstance(error, TimedOut):
        return TIMEOUT_FAILURE
    return DATABASE_FAILURE if isinstance(error, Unavailable) else INTERNAL_FAILURE


def _max_attempts(error: BaseException) -> int:
    if isinstance(error, HistoryDropped):
        return 1  # dropped history does not return
    return (
        attempts.MAX_STORE_REJECTIONS if isinstance(error, StoreRejected) else attempts.MAX_ATTEMPTS
    )
