"""A stream of the feed: the batches of one subscription."""

import asyncio
from typing import Final

from segmentql.errors import TimedOut, Unavailable
from segmentql.feed.reader import FeedReader
from segmentql.feed.records import ChangeBatchRecord, ChangeFilter, FeedStart
from segmentql.history.settled import BEFORE_FIRST_ROW, HistoryCursor

RETRY_SECONDS: Final = 0.5
"""The pause after the database could not be read."""


class ChangeStream:
    """An asynchronous iterator of batches.

    The first batch is empty and has the cursor at which the stream begins. The stream reads on only
    when the consumer asks for the next batch, so it has no buffer. It ends when the process stops;
    the consumer can resume from its last cursor. The consumer must call `aclose`.
    """

    def __init__(
        self,
        reader: FeedReader,
        cursor: HistoryCursor,
        *,
        wanted: ChangeFilter,
        rows: int,
        key_id: str | None,
        stopping: asyncio.Event,
    ) -> None:
        self._reader = reader
        self._cursor = cursor
        self._wanted = wanted
        self._rows = rows
        self._key_id = key_id
        self._stopping = stopping
        self._has_begun = False
        self._is_open = False
        reader.consumers.add(key_id, "stream")
        self._is_open = True

    @classmethod
    async def open(
        cls,
        reader: FeedReader,
        *,
        after: HistoryCursor | None,
        start: FeedStart,
        wanted: ChangeFilter,
        rows: int,
        key_id: str | None,
        stopping: asyncio.Event,
    ) -> "ChangeStream":
        """Open a stream after a cursor, or at `start` if there is none.

        Args:
            reader: The reader of the process.
            after: The cursor that the consumer has stored, if any.
            start: The position if there is no cursor.
            wanted: The filter.
            rows: The maximum number of changes in a batch.
            key_id: The API key of the consumer; None if authentication is off.
            stopping: The event that ends the stream, because the process stops.

        Raises:
            CursorExpired, FeedReset: The consumer cannot continue after its cursor.
            FeedConsumersExceeded: There are too many consumers.
            Unavailable, TimedOut: The database cannot be read.
        """
        # Counted before the first read, so that the limit also bounds the streams that are opened.
        stream = cls(
            reader,
            after or BEFORE_FIRST_ROW,
            wanted=wanted,
            rows=rows,
            key_id=key_id,
            stopping=stopping,
        )
        try:
            await reader.record_due()
            stream._cursor = await reader.start(after, start)
        except BaseException:
            await stream.aclose()
            raise
        return stream

    def __aiter__(self) -> "ChangeStream":
        return self

    async def __anext__(self) -> ChangeBatchRecord:
        """Return the next batch that has changes; wait until there are some.

        Raises:
            CursorExpired, FeedReset: The database has lost changes. The stream is closed.
        """
        if not self._has_begun:
            self._has_begun = True
            return self._reader.begin(self._cursor)
        while self._is_open and not self._stopping.is_set():
            try:
                batch = await self._reader.read(self._cursor, wanted=self._wanted, rows=self._rows)
            except (Unavailable, TimedOut):
                await self._pause()
                continue
            except BaseException:
                await self.aclose()
                raise
            self._cursor = batch.cursor
            if batch.changes:
                return batch
            await self._reader.wait_beyond(self._cursor, self._stopping)
        raise StopAsyncIteration

    async def _pause(self) -> None:
        """Pause after an error, or until the process stops."""
        stopped = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait((stopped,), timeout=RETRY_SECONDS)
        finally:
            stopped.cancel()

    async def aclose(self) -> None:
        """Close the stream. It may be called several times."""
        self._close()

    def __del__(self) -> None:
        # graphql-core does not close a stream from which it has read nothing.
        self._close()

    def _close(self) -> None:
        if self._is_open:
            self._is_open = False
            self._reader.consumers.remove(self._key_id, "stream")
