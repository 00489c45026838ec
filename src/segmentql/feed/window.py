"""The window: the newest changes of history, which all consumers of a process share.

The window is read without a filter. Each consumer applies its own filter to its changes. The
number, the bytes and the age of the changes are limited. The age bounds how old the name and
the description of a segment can be.
"""

import time
from bisect import bisect_right
from dataclasses import dataclass
from typing import Final

from segmentql.feed.records import ChangeFilter, ChangePage, ChangeRecord
from segmentql.feed.service import MAX_SCANNED_ROWS
from segmentql.history.settled import HistoryCursor

MAX_CHANGES: Final = 10_000
MAX_BYTES: Final = 16_777_216
MAX_AGE_SECONDS: Final = 5.0

_CHANGE_BYTES: Final = 1000
"""An upper estimate of the memory of a change without its texts."""

_BYTES_PER_CHARACTER: Final = 4


@dataclass(frozen=True, slots=True)
class _SharedChange:
    change: ChangeRecord
    read_at: float
    """The monotonic time before it was read."""
    size: int
    """An upper estimate of its memory, in bytes."""


class ChangeWindow:
    """Consecutive changes, from `start`, which is excluded, to `end`, which is included."""

    def __init__(self, start: HistoryCursor, generation: int) -> None:
        self.start = start
        self.end = start
        self.generation = generation
        """The generation of the head up to which the changes were read."""

        self.size = 0
        self._changes: list[_SharedChange] = []

    def __len__(self) -> int:
        return len(self._changes)

    def covers(self, cursor: HistoryCursor) -> bool:
        """Return whether the window has the row of a cursor, unchanged, or begins after it."""
        if cursor in (self.start, self.end):
            return True
        index = bisect_right(self._changes, cursor.position, key=_position)
        return index > 0 and self._changes[index - 1].change.cursor == cursor

    def append(self, page: ChangePage, *, read_at: float) -> None:
        """Append the changes that follow `end`, and drop the oldest changes beyond the limits.

        Args:
            page: The page after `end`, without a filter.
            read_at: The monotonic time before the page was read.
        """
        added = [_SharedChange(change, read_at, _size(change)) for change in page.changes]
        self._changes += added
        self.size += sum(shared.size for shared in added)
        self.end = page.cursor
        self.trim()

    def trim(self) -> None:
        """Drop the oldest changes beyond the limits."""
        oldest = time.monotonic() - MAX_AGE_SECONDS
        size = self.size
        dropped = max(0, len(self._changes) - MAX_CHANGES)
        size -= sum(shared.size for shared in self._changes[:dropped])
        for shared in self._changes[dropped:]:
            if size <= MAX_BYTES and shared.read_at >= oldest:
                break
            size -= shared.size
            dropped += 1
        if dropped:
            self.start = self._changes[dropped - 1].change.cursor
            self.size = size
            del self._changes[:dropped]

    def read(
        self, after: HistoryCursor, *, change_filter: ChangeFilter, max_changes: int
    ) -> ChangePage:
        """Return the changes after a cursor that the window covers.

        Args:
            after: The cursor.
            change_filter: The filter.
            max_changes: The maximum number of changes.
        """
        changes: list[ChangeRecord] = []
        index = bisect_right(self._changes, after.position, key=_position)
        last = after
        for shared in self._changes[index : index + MAX_SCANNED_ROWS]:
            last = shared.change.cursor
            if change_filter.matches(shared.change.entry):
                changes.append(shared.change)
                if len(changes) == max_changes:
                    break
        return ChangePage(changes, last)


def _position(shared: _SharedChange) -> int:
    return shared.change.cursor.position


def _size(change: ChangeRecord) -> int:
    segment = change.entry.segment
    texts = (segment.slug, segment.name, segment.description, change.entry.actor)
    return _CHANGE_BYTES + _BYTES_PER_CHARACTER * sum(len(text or "") for text in texts)
