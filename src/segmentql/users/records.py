"""The record of a user."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from segmentql.segments.records import SegmentRecord


@dataclass(slots=True)
class UserRecord:
    """A stored user.

    It is not frozen, because a frozen record takes four times as long to create.
    """

    user_id: int
    created_at: datetime
    key: str | None
    """The client's own name of the user; None if the user has none."""
    segments: Sequence[SegmentRecord] | None = None
    """The segments that the user is in, by slug. None if the query did not read them."""


@dataclass(frozen=True, slots=True)
class UserDeletion:
    """The result of `delete_user`."""

    user_id: int
    users_with_erased_key: Sequence[int] = ()
    """The ids of the users of whose history a key was erased."""
    erased_keys: Sequence[str] = ()
    """The keys that were erased."""
