"""Consumers of the feed that collect rows, for tests of order and completeness."""

import asyncio
import random
from contextlib import aclosing

from segmentql.feed.reader import FeedReader
from segmentql.feed.records import NO_FILTER, ChangeFilter, ChangeRecord, FeedStart
from segmentql.feed.stream import ChangeStream
from segmentql.history.settled import BEFORE_FIRST_ROW, HistoryCursor
from tests.history.writers import Row


def row_of(change: ChangeRecord) -> Row:
    """Return a change as `stored_rows` returns it."""
    entry = change.entry
    return (
        change.cursor.position,
        entry.user_id,
        entry.segment.segment_id,
        entry.operation.value,
        entry.at,
    )


async def open_stream(
    reader: FeedReader,
    after: HistoryCursor | None = BEFORE_FIRST_ROW,
    *,
    change_filter: ChangeFilter = NO_FILTER,
    max_changes: int = 100,
    key_id: str | None = None,
    stopping: asyncio.Event | None = None,
) -> ChangeStream:
    """Open a stream, by default of all changes."""
    return await ChangeStream.open(
        reader,
        after=after,
        start=FeedStart.NOW,
        change_filter=change_filter,
        max_changes=max_changes,
        key_id=key_id,
        stopping=stopping or asyncio.Event(),
    )


class Consumer:
    """A consumer that stores the cursor after each batch, and reconnects at random."""

    def __init__(self, number: int) -> None:
        self._dice = random.Random(number)  # noqa: S311 - similar each time
        self.cursor = BEFORE_FIRST_ROW
        self.rows: list[Row] = []
        self.connections = 0

    async def follow(self, reader: FeedReader) -> None:
        """Read until cancelled."""
        while True:
            stream = await open_stream(reader, self.cursor, max_changes=self._dice.randint(1, 50))
            self.connections += 1
            batches = self._dice.randint(1, 20)
            async with aclosing(stream):
                async for batch in stream:
                    self.rows += map(row_of, batch.changes)
                    self.cursor = batch.cursor
                    await asyncio.sleep(self._dice.choice([0, 0, 0.01, 0.2]))
                    batches -= 1
                    if not batches:
                        break
