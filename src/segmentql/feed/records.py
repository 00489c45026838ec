"""Records of the change feed."""

import enum
from dataclasses import dataclass
from typing import Final

from segmentql.history.records import HistoryEntryRecord
from segmentql.history.settled import HistoryCursor
from segmentql.tables import Operation


class FeedStart(enum.StrEnum):
    """The position at which a consumer without a cursor begins."""

    NOW = "NOW"
    EARLIEST = "EARLIEST"


@dataclass(frozen=True, slots=True)
class ChangeRecord:
    """A recorded join or leave, at its position in the order of recording."""

    cursor: HistoryCursor
    entry: HistoryEntryRecord


@dataclass(frozen=True, slots=True)
class ChangeFilter:
    """The changes that a consumer wants. None means no restriction."""

    slugs: frozenset[str] | None = None
    """The slugs of the segments, deleted ones included."""

    user_ids: frozenset[int] | None = None
    operations: frozenset[Operation] | None = None

    def matches(self, entry: HistoryEntryRecord) -> bool:
        """Return whether an entry meets all restrictions."""
        return (
            (self.slugs is None or entry.segment.slug in self.slugs)
            and (self.user_ids is None or entry.user_id in self.user_ids)
            and (self.operations is None or entry.operation in self.operations)
        )


NO_FILTER: Final = ChangeFilter()


@dataclass(frozen=True, slots=True)
class ChangePage:
    """Changes that follow a cursor, and the cursor after which the next page begins."""

    changes: list[ChangeRecord]
    cursor: HistoryCursor
    """The cursor of the last row that was read, whether it matches the filter or not."""


@dataclass(frozen=True, slots=True)
class ChangeBatchRecord:
    """A page of changes as a consumer gets it."""

    changes: list[ChangeRecord]
    cursor: HistoryCursor
    caught_up: bool
    """Whether the page reaches the newest settled row, and all due ends were recorded."""
