"""The reader of the feed: one for each process and database.

It follows the settled position by the tracker of history. Rows near the head are read once, into a
window that all consumers share. A consumer that is behind the window reads pages of its own. While
consumers wait, the tracker polls for all of them, and leaves are recorded at their time. Nothing
polls while nobody waits, and while consumers wait they hold no connection.
"""

import asyncio
import time
from typing import Final

from segmentql import metrics
from segmentql.adapters.change_hints import ChangeHints
from segmentql.adapters.concurrency import ConcurrencyLimit
from segmentql.adapters.database import Database
from segmentql.errors import Unavailable
from segmentql.feed.consumers import Consumers
from segmentql.feed.leave_recorder import UnrecordedLeaveRecorder
from segmentql.feed.records import (
    ChangeBatchRecord,
    ChangeFilter,
    ChangePage,
    ChangeRecord,
    FeedStart,
)
from segmentql.feed.service import MAX_BATCH_CHANGES, HistoryMoved, read_page, validate_cursor
from segmentql.feed.window import ChangeWindow
from segmentql.history.retention import read_dropped_position
from segmentql.history.settled import BEFORE_FIRST_ROW, HistoryCursor, first_cursor
from segmentql.history.tracker import SettledHead, SettledPositionTracker

NEAR_HEAD_POSITIONS: Final = 10_000
"""A consumer that is at most so many positions behind the head reads through the window."""

MAX_PAGE_READS: Final = 2
"""The maximum number of concurrent pages of consumers that are behind. Each page may read 10,000
rows, so that other requests need the rest of the connection pool."""

MAX_ATTEMPTS: Final = 5
"""The maximum number of attempts of a read while the server restarts."""


class FeedReader:
    """Reads the feed for all consumers of a process."""

    def __init__(
        self, database: Database, limit: ConcurrencyLimit, hints: ChangeHints | None = None
    ) -> None:
        """Create the reader. It polls and records nothing until there is a consumer.

        Args:
            database: The database, of which the primary is read.
            limit: The maximum numbers of consumers.
            hints: The hints of other processes that history has changed; None to poll only.
        """
        self._database = database
        self._hints = hints
        self._tracker = SettledPositionTracker(database)
        self._leave_recorder = UnrecordedLeaveRecorder(database, on_recorded=self._tracker.hint)
        self._window = ChangeWindow(BEFORE_FIRST_ROW, generation=-1)
        self._window_lock = asyncio.Lock()
        self._page_reads = asyncio.Semaphore(MAX_PAGE_READS)
        self.consumers = Consumers(limit, on_first=self._on_first, on_last=self._on_last)

    async def close(self) -> None:
        """Stop the background tasks."""
        if self._hints:
            self._hints.stop_listening()
        await self._leave_recorder.close()
        await self._tracker.close()

    def _on_first(self) -> None:
        self._leave_recorder.start()
        if self._hints:
            self._hints.listen(self._tracker.hint)

    def _on_last(self) -> None:
        self._leave_recorder.stop()
        if self._hints:
            self._hints.stop_listening()

    async def record_leaves(self) -> None:
        """Record unrecorded leaves, up to a bound. If some are left, no batch is `caught_up`."""
        # If the database cannot be read either, the read that follows raises the error.
        with self._leave_recorder.log_errors():
            await self._leave_recorder.record()

    async def resolve_start(self, after: HistoryCursor | None, start: FeedStart) -> HistoryCursor:
        """Return the cursor at which a consumer begins.

        Args:
            after: The cursor that the consumer has stored, if any. It wins over `start`.
            start: The position if there is no cursor.

        Raises:
            CursorExpired, FeedReset: The consumer cannot continue after its cursor.
            Unavailable, TimedOut: The database cannot be read.
        """
        await self._tracker.advance()
        if after is not None:
            await self._validate(after)
            return after
        if start is FeedStart.EARLIEST:
            return first_cursor(await self._database.read_one(read_dropped_position))
        head = self._tracker.head
        return head.newest_row if head else await self._tracker.wait_beyond(-1)

    async def read(
        self, after: HistoryCursor, *, change_filter: ChangeFilter, max_changes: int
    ) -> ChangeBatchRecord:
        """Return the changes after a cursor, up to the settled head of the last step.

        Args:
            after: The cursor.
            change_filter: The filter. The cursor of the batch advances also if nothing matches.
            max_changes: The maximum number of changes, 1 to `MAX_BATCH_CHANGES`.

        Raises:
            CursorExpired, FeedReset: The consumer cannot continue after the cursor.
            Unavailable, TimedOut: The database cannot be read.
        """
        for _ in range(MAX_ATTEMPTS):
            head = self._tracker.head
            if head is None or after.position >= head.newest_row.position:
                if not head or after != head.newest_row:
                    await self._validate(after)
                return ChangeBatchRecord(
                    [], after, caught_up=head is not None and self._leave_recorder.is_complete
                )
            try:
                page = await self._read_page(after, head, change_filter, max_changes)
            except HistoryMoved:
                if self._tracker.head is head:
                    self._tracker.forget()
                await self._validate(after)
                await self._tracker.advance()
                continue
            metrics.FEED_CHANGES.inc(len(page.changes))
            metrics.FEED_LAG_POSITIONS.observe(
                max(0, head.newest_row.position - page.cursor.position)
            )
            return self._batch(page.changes, page.cursor)
        raise Unavailable

    def empty_batch(self, cursor: HistoryCursor) -> ChangeBatchRecord:
        """Return the empty batch with which a stream begins."""
        return self._batch([], cursor)

    def _batch(self, changes: list[ChangeRecord], cursor: HistoryCursor) -> ChangeBatchRecord:
        head = self._tracker.head
        caught_up = head is not None and cursor.position >= head.newest_row.position
        return ChangeBatchRecord(changes, cursor, caught_up and self._leave_recorder.is_complete)

    async def wait_beyond(
        self, cursor: HistoryCursor, *ends: asyncio.Event, wait_seconds: float | None = None
    ) -> None:
        """Wait until there may be changes after a cursor. The caller holds no connection meanwhile.

        Args:
            cursor: The cursor.
            ends: The events that end the wait, for instance because the process stops.
            wait_seconds: The maximum time to wait; None for no maximum.
        """
        head = self._tracker.head
        if head is not None and head.newest_row.position > cursor.position:
            await asyncio.sleep(0)  # so that a filter that matches nothing yields to the loop
            return
        waiting = asyncio.create_task(self._tracker.wait_beyond(cursor.position))
        ended = [asyncio.create_task(end.wait()) for end in ends]
        try:
            await asyncio.wait(
                (waiting, *ended), timeout=wait_seconds, return_when=asyncio.FIRST_COMPLETED
            )
            if waiting.done():
                waiting.result()  # raises the error of the tracker
        finally:
            waiting.cancel()
            for task in ended:
                task.cancel()

    async def _validate(self, cursor: HistoryCursor) -> None:
        if not self._is_known(cursor):
            await self._database.read_one(lambda session: validate_cursor(session, cursor))

    def _is_known(self, cursor: HistoryCursor) -> bool:
        """Return whether the process has read the row of a cursor since the database started."""
        head = self._tracker.head
        return head is not None and (
            cursor == head.newest_row
            or (self._window.generation == head.generation and self._window.covers(cursor))
        )

    async def _read_page(
        self, after: HistoryCursor, head: SettledHead, change_filter: ChangeFilter, max_changes: int
    ) -> ChangePage:
        if self._can_use_window(after, head):
            if self._window.end == after or not self._covers(after, head):
                await self._extend_window(after, head)
            # Another consumer may have moved the window meanwhile.
            if self._covers(after, head) and self._window.end != after:
                metrics.FEED_PAGES.labels("window").inc()
                return self._window.read(
                    after, change_filter=change_filter, max_changes=max_changes
                )
        metrics.FEED_PAGES.labels("database").inc()
        async with self._page_reads:
            page = await self._database.read_one(
                lambda session: read_page(
                    session, after, head, change_filter=change_filter, max_changes=max_changes
                )
            )
            await asyncio.sleep(0)  # so that other requests run between two pages
            return page

    def _covers(self, cursor: HistoryCursor, head: SettledHead) -> bool:
        window = self._window
        return window.generation == head.generation and window.covers(cursor)

    def _can_use_window(self, after: HistoryCursor, head: SettledHead) -> bool:
        """Return whether the window covers a cursor, or may begin there."""
        self._window.trim()
        if self._covers(after, head):
            return True
        if head.newest_row.position - after.position > NEAR_HEAD_POSITIONS:
            return False
        return (
            self._window.generation != head.generation or self._window.end.position < after.position
        )

    async def _extend_window(self, after: HistoryCursor, head: SettledHead) -> None:
        """Append a page to the window, or begin another window at the cursor."""
        async with self._window_lock:
            covers = self._covers(after, head)
            if covers and self._window.end != after:
                return  # another consumer has extended it meanwhile
            if not covers and not self._can_use_window(after, head):
                return
            read_at = time.monotonic()
            page = await self._database.read_one(
                lambda session: read_page(session, after, head, max_changes=MAX_BATCH_CHANGES)
            )
            if not covers:
                self._window = ChangeWindow(after, head.generation)
            self._window.append(page, read_at=read_at)
