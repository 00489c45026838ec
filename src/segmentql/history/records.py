"""Records of history."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from segmentql.segments.records import SegmentRecord
from segmentql.tables import Cause, Operation

MIN_TIME: Final = datetime(1, 1, 1, tzinfo=UTC)
MAX_TIME: Final = datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Position:
    """The sort key of an entry. History is sorted by it, newest first.

    Leaves sort before joins. So if history is read from the oldest entry, a join comes before a
    leave of the same time.
    """

    at: datetime
    user_id: int
    operation: str
    slug: str
    membership_id: int


BEFORE_NEWEST: Final = Position(MAX_TIME, 2**63 - 1, Operation.JOINED, "\x7f", 2**63 - 1)
"""A position before the newest possible entry."""


@dataclass(frozen=True, slots=True)
class HistoryEntryRecord:
    """A join or a leave. It is the same entry before and after a worker records it."""

    membership_id: int
    user_id: int
    segment: SegmentRecord
    operation: Operation
    at: datetime
    recorded_at: datetime | None
    """None if no worker has recorded the leave yet."""
    cause: Cause
    actor: str | None
    import_id: int | None = None
    """The import that made the change, if any."""

    @property
    def position(self) -> Position:
        """The sort key of this entry."""
        return Position(
            self.at, self.user_id, self.operation, self.segment.slug, self.membership_id
        )


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """A page of history: up to `rows` entries that follow `after` and match the filters."""

    rows: int
    after: Position = BEFORE_NEWEST
    since: datetime = MIN_TIME
    """The earliest time, inclusive."""
    until: datetime = MAX_TIME
    """The latest time, exclusive."""
    user_id: int | None = None
    slug: str | None = None
    """The slug of the entries' segments. Deleted segments with this slug count as well."""


@dataclass(frozen=True, slots=True)
class MemberCountSeries:
    """Points in time at which the members of a segment are counted, at equal distances.

    The first point is `since` and the last one is `until`. A single point is `until`. Points
    between two microseconds are rounded down.
    """

    segment_id: int
    since: datetime
    until: datetime
    points: int
    """The number of points, 1 or more."""

    @property
    def times(self) -> list[datetime]:
        """The points, in ascending order."""
        if self.points == 1:
            return [self.until]
        span = self.until - self.since
        return [self.since + span * index // (self.points - 1) for index in range(self.points)]


@dataclass(frozen=True, slots=True)
class MemberCountRecord:
    """The number of members of a segment at a point in time."""

    at: datetime
    count: int
