"""Batched reads of memberships."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import Row

from segmentql.adapters.database import ReadSession
from segmentql.graphql.types.dataloader import Loader
from segmentql.memberships import service
from segmentql.memberships.service import MembersPage

if TYPE_CHECKING:
    from segmentql.memberships.api import Membership
    from segmentql.segments.api import Segment
    from segmentql.users.api import User


class ActiveByUser(Loader[int, "list[Membership]"]):
    """A user's active memberships with their segments, by slug."""

    # An object a row is made of them, and a statement's are made in one turn of the event loop:
    # where there are many, others have their turn before the next.
    max_keys = 50
    max_concurrent_batches = 1

    async def load_batch(
        self, session: ReadSession, keys: Sequence[int]
    ) -> "Mapping[int, list[Membership]]":
        from segmentql.memberships.api import Membership  # noqa: PLC0415 - it has users, they this
        from segmentql.segments.api import Segment  # noqa: PLC0415 - it has members, from here

        segments: dict[int, Segment] = {}  # made once each: there are far fewer than memberships
        memberships: dict[int, list[Membership]] = {}
        for row in await service.active_by_users(session, keys):
            segment = segments.get(row.segment_id)
            if segment is None:
                segment = segments[row.segment_id] = Segment.from_row(row)
            memberships.setdefault(row.user_id, []).append(Membership.from_row(row, segment))
        return memberships

    def on_missing(self, key: int) -> "list[Membership]":
        return []


class SegmentsByUser(Loader[int, "list[Segment]"]):
    """The segments that a user is in now, by slug: the question asked on every request."""

    async def load_batch(
        self, session: ReadSession, keys: Sequence[int]
    ) -> "Mapping[int, list[Segment]]":
        return _segments_by_user(await service.active_segments(session, keys))

    def on_missing(self, key: int) -> "list[Segment]":
        return []


class UserWithSegments(Loader[int, "User | None"]):
    """A user by number, with the segments it is in read along; None where not stored."""

    subsumes = SegmentsByUser

    async def load_batch(self, session: ReadSession, keys: Sequence[int]) -> "Mapping[int, User]":
        from segmentql.users.api import User  # noqa: PLC0415 - as above

        users, rows = await service.users_with_segments(session, keys)
        segments = _segments_by_user(rows)
        return {
            user_id: User.of(user_id, created_at, segments.get(user_id, []))
            for user_id, created_at in users
        }

    def on_missing(self, key: int) -> None:
        return None


def _segments_by_user(rows: Sequence[Row[Any]]) -> "dict[int, list[Segment]]":
    from segmentql.segments.api import Segment  # noqa: PLC0415 - as above

    segments: dict[int, list[Segment]] = {}
    for row in rows:
        segment = Segment.from_row(row)  # made once each
        for user_id in row.user_ids:
            segments.setdefault(user_id, []).append(segment)
    return segments


class IsIn(Loader[tuple[int, str], bool]):
    """Whether a user is an active member of the segment that bears a slug now."""

    async def load_batch(
        self, session: ReadSession, keys: Sequence[tuple[int, str]]
    ) -> Mapping[tuple[int, str], bool]:
        return dict.fromkeys(await service.active_pairs(session, keys), True)

    def on_missing(self, key: tuple[int, str]) -> bool:
        return False


class IsExcluded(Loader[tuple[int, str], bool]):
    """Whether a user was taken out by hand of the segment that bears a slug now."""

    async def load_batch(
        self, session: ReadSession, keys: Sequence[tuple[int, str]]
    ) -> Mapping[tuple[int, str], bool]:
        return dict.fromkeys(await service.excluded_pairs(session, keys), True)

    def on_missing(self, key: tuple[int, str]) -> bool:
        return False


class MemberCount(Loader[int, int]):
    """How many active members a segment has, by its number."""

    max_keys = 20  # each may take long, and a time-out is everybody's who shares the statement

    async def load_batch(self, session: ReadSession, keys: Sequence[int]) -> Mapping[int, int]:
        return await service.member_counts(session, keys)

    def on_missing(self, key: int) -> int:
        return 0


class Members(Loader[MembersPage, "list[Membership]"]):
    """A page of a segment's active members with their users, by user number."""

    max_keys = 100

    async def load_batch(
        self, session: ReadSession, keys: Sequence[MembersPage]
    ) -> "Mapping[MembersPage, list[Membership]]":
        from segmentql.memberships.api import Membership  # noqa: PLC0415 - as above

        found = await service.member_pages(session, keys)
        return {key: [Membership.from_row(row) for row in rows] for key, rows in found.items()}

    def on_missing(self, key: MembersPage) -> "list[Membership]":
        return []
