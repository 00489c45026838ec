"""Batched reads of memberships."""

from collections.abc import Mapping, Sequence

from segmentql.adapters.sessions import ReadSession
from segmentql.graphql.types.dataloader import Loader
from segmentql.memberships import reads
from segmentql.memberships.records import MembershipRecord, MembersPage
from segmentql.segments.records import SegmentRecord
from segmentql.users.records import UserRecord


class MembershipsByUser(Loader[int, list[MembershipRecord]]):
    """A user's active memberships, by slug."""

    # Each row becomes a record, and all rows of a statement are converted in one step of the event
    # loop. Small batches let other requests run in between.
    max_keys = 50
    max_concurrent_batches = 1

    async def load_batch(
        self, session: ReadSession, keys: Sequence[int]
    ) -> Mapping[int, list[MembershipRecord]]:
        return await reads.memberships_by_user(session, keys)

    def on_missing(self, key: int) -> list[MembershipRecord]:
        return []


class SegmentsByUser(Loader[int, list[SegmentRecord]]):
    """The segments that a user is in, by slug. Services query this on every request they serve."""

    async def load_batch(
        self, session: ReadSession, keys: Sequence[int]
    ) -> Mapping[int, list[SegmentRecord]]:
        return await reads.segments_by_user(session, keys)

    def on_missing(self, key: int) -> list[SegmentRecord]:
        return []


class UserWithSegments(Loader[int, UserRecord | None]):
    """A user by id with the segments that the user is in; None if the user is not stored."""

    subsumes = SegmentsByUser

    async def load_batch(
        self, session: ReadSession, keys: Sequence[int]
    ) -> Mapping[int, UserRecord]:
        return await reads.users_with_segments(session, keys)

    def on_missing(self, key: int) -> None:
        return None


class MembershipBySlug(Loader[tuple[int, str], MembershipRecord | None]):
    """A user's active membership in the existing segment with a slug; None if there is none."""

    async def load_batch(
        self, session: ReadSession, keys: Sequence[tuple[int, str]]
    ) -> Mapping[tuple[int, str], MembershipRecord]:
        return await reads.memberships_by_slug(session, keys)

    def on_missing(self, key: tuple[int, str]) -> None:
        return None


class UserWithSegmentsByKey(Loader[str, UserRecord | None]):
    """A user by key with the segments that the user is in; None if no stored user has the key."""

    subsumes = SegmentsByUser

    async def load_batch(
        self, session: ReadSession, keys: Sequence[str]
    ) -> Mapping[str, UserRecord]:
        return await reads.users_with_segments_by_key(session, keys)

    def on_missing(self, key: str) -> None:
        return None


class IsIn(Loader[tuple[int, str], bool]):
    """Whether a user is an active member of the existing segment with a slug."""

    async def load_batch(
        self, session: ReadSession, keys: Sequence[tuple[int, str]]
    ) -> Mapping[tuple[int, str], bool]:
        return dict.fromkeys(await reads.active_pairs(session, keys), True)

    def on_missing(self, key: tuple[int, str]) -> bool:
        return False


class IsExcluded(Loader[tuple[int, str], bool]):
    """Whether a user was removed manually from the existing segment with a slug."""

    async def load_batch(
        self, session: ReadSession, keys: Sequence[tuple[int, str]]
    ) -> Mapping[tuple[int, str], bool]:
        return dict.fromkeys(await reads.excluded_pairs(session, keys), True)

    def on_missing(self, key: tuple[int, str]) -> bool:
        return False


class MemberCount(Loader[int, int]):
    """The number of active members of a segment, by segment id."""

    max_keys = 20  # Each count may take long, and a timeout fails all keys of the statement.

    async def load_batch(self, session: ReadSession, keys: Sequence[int]) -> Mapping[int, int]:
        return await reads.member_counts(session, keys)

    def on_missing(self, key: int) -> int:
        return 0


class MemberPages(Loader[MembersPage, list[MembershipRecord]]):
    """A page of a segment's active members, by user id."""

    max_keys = 100

    async def load_batch(
        self, session: ReadSession, keys: Sequence[MembersPage]
    ) -> Mapping[MembersPage, list[MembershipRecord]]:
        return await reads.member_pages(session, keys)

    def on_missing(self, key: MembersPage) -> list[MembershipRecord]:
        return []
