"""Records of memberships, and of what changes them."""

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from segmentql.segments.records import SegmentRecord
from segmentql.tables import Cause, RowOutcome
from segmentql.users.records import UserRecord


class OnExisting(enum.StrEnum):
    """The effect of adding a user who is already an active member."""

    EXTEND = "EXTEND"
    REPLACE = "REPLACE"
    KEEP = "KEEP"


class OnExcluded(enum.StrEnum):
    """The effect of adding a user who is excluded from the segment's rollout."""

    SKIP = "SKIP"
    ADMIT = "ADMIT"


@dataclass(frozen=True, slots=True)
class OutcomeCount:
    """The number of rows with an outcome."""

    outcome: RowOutcome
    count: int


@dataclass(frozen=True, slots=True)
class Expiry:
    """The requested end of memberships. At most one field is set; if none is, they have no end."""

    ttl: timedelta | None = None
    """The time from the join, or for active members from the change, to the end."""
    expires_at: datetime | None = None


NO_EXPIRY: Final = Expiry()


@dataclass(frozen=True, slots=True)
class MembershipRecord:
    """One user in one segment, from a join until the membership ends."""

    membership_id: int
    user: UserRecord
    segment: SegmentRecord
    joined_at: datetime
    updated_at: datetime
    expires_at: datetime | None
    cause: Cause
    actor: str | None
    import_id: int | None = None
    """The import that added the user, if any."""


@dataclass(frozen=True, slots=True)
class MembersPage:
    """A page of a segment's members: up to `rows` members with user ids above `after`."""

    segment_id: int
    after: int
    rows: int


@dataclass(frozen=True, slots=True)
class UserSegmentsUpdate:
    """The result of `update_user_segments`."""

    user: UserRecord
    added: int
    """The number of joins."""
    removed: int
    """The number of leaves."""
    extended: int
    """The number of memberships that stayed and whose end changed."""


@dataclass(frozen=True, slots=True)
class MemberLists:
    """The users to add to a segment and to remove from it, each list in the client's order."""

    add: Sequence[int] = ()
    remove: Sequence[int] = ()
    add_keys: Sequence[str] = ()
    remove_keys: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class SegmentMembersUpdate:
    """The result of `update_segment_members`."""

    segment: SegmentRecord
    counts: list[OutcomeCount]
    """The counts above 0, in the order of `RowOutcome`. They sum to the number of rows."""


@dataclass(frozen=True, slots=True)
class UnrecordedLeaves:
    """The number of memberships that have ended and whose leave is not yet recorded."""

    by_ttl: int
    by_segment: int
    """Those that ended because their segment was deleted."""
    oldest_seconds: float
    """The time since the oldest of them ended; 0 if there is none."""
