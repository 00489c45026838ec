"""The record of a user."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from segmentql.segments.records import SegmentRecord


@dataclass(frozen=True, slots=True)
class UserRecord:
    """A stored user."""

    user_id: int
    created_at: datetime
    segments: Sequence[SegmentRecord] | None = None
    """The segments that the user is in, by slug. None if the query did not read them."""
