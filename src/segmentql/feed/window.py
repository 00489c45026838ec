"""The window: the newest rows of history, which all consumers of a process share.

The window is read without a filter. Each consumer applies its own filter to the rows. It is bounded
by rows, bytes and age. The age bounds how old the name and the description of a segment can be.
"""

import time
from bisect import bisect_right
from dataclasses import dataclass
from typing import Final

from segmentql.feed.records import ChangeFilter, ChangePage, ChangeRecord
from segmentql.feed.service import MAX_SCANNED_ROWS
from segmentql.history.settled import HistoryCursor

MAX_ROWS: Final = 10_000
MAX_BYTES: Final = 16_777_216
MAX_AGE_SECONDS: Final = 5.0

_ROW_BYTES: Final = 1000
"""An upper estimate of the memory of a row without its texts."""

_BYTES_PER_CHARACTER: Final = 4


@dataclass(frozen=True, slots=True)
class _Row:
    change: ChangeRecord
    read_at: float
    """The monotonic time before the row was read."""
    size: int
    """An upper estimate of its memory, in bytes."""


class ChangeWindow:
    """Consecutive rows of history, from `start`, which is excluded, to `end`, which is included."""

    def __init__(self, start: HistoryCursor, generation: int) -> None:
        self.start = start
        self.end = start
        self.generation = generation
        """The generation of the head up to which the rows were read."""

        self.size = 0
        self._rows: list[_Row] = []

    def __len__(self) -> int:
        return len(self._rows)

    def covers(self, cursor: HistoryCursor) -> bool:
        """Return whether the window has the row of a cursor, unchanged, or begins after it."""
        if cursor in (self.start, self.end):
            return True
        index = bisect_right(self._rows, cursor.position, key=_position)
        return index > 0 and self._rows[index - 1].change.cursor == cursor

    def append(self, page: ChangePage, *, read_at: float) -> None:
        """Append the rows that follow `end`, and drop the oldest rows beyond the limits.

        Args:
            page: The page after `end`, without a filter.
            read_at: The monotonic time before the page was read.
        """
        added = [_Row(change, read_at, _size(change)) for change in page.changes]
        self._rows += added
        self.size += sum(row.size for row in added)
        self.end = page.cursor
        self.trim()

    def trim(self) -> None:
        """Drop the oldest rows beyond the limits."""
        oldest = time.monotonic() - MAX_AGE_SECONDS
        size = self.size
        dropped = max(0, len(self._rows) - MAX_ROWS)
        size -= sum(row.size for row in self._rows[:dropped])
        for row in self._rows[dropped:]:
            if size <= MAX_BYTES and row.read_at >= oldest:
                break
            size -= row.size
            dropped += 1
        if dropped:
            self.start = self._rows[dropped - 1].change.cursor
            self.size = size
            del self._rows[:dropped]

    def read(self, after: HistoryCursor, *, wanted: ChangeFilter, rows: int) -> ChangePage:
        """Return the changes after a cursor that the window covers.

        Args:
            after: The cursor.
            wanted: The filter.
            rows: The maximum number of changes.
        """
        changes: list[ChangeRecord] = []
        index = bisect_right(self._rows, after.position, key=_position)
        last = after
        for row in self._rows[index : index + MAX_SCANNED_ROWS]:
            last = row.change.cursor
            if wanted.matches(row.change.entry):
                changes.append(row.change)
                if len(changes) == rows:
                    break
        return ChangePage(changes, last)


def _position(row: _Row) -> int:
    return row.change.cursor.position


def _size(change: ChangeRecord) -> int:
    segment = change.entry.segment
    texts = (segment.slug, segment.name, segment.description, change.entry.actor)
    return _ROW_BYTES + _BYTES_PER_CHARACTER * sum(len(text or "") for text in texts)
