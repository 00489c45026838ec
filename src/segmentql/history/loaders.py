"""Batched reads of history."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from segmentql import validators
from segmentql.adapters.sessions import ReadSession
from segmentql.graphql.context import Context
from segmentql.graphql.types.dataloader import Loader
from segmentql.graphql.types.pagination import (
    Connection,
    SortKey,
    is_row_id,
    is_slug,
    is_timestamp_sort_key,
    parse_page_arguments,
    timestamp_of_sort_key,
    timestamp_sort_key,
)
from segmentql.graphql.types.times import check_time_range, time_filter, time_out_of_range
from segmentql.graphql.types.validation import optional_argument
from segmentql.history import service
from segmentql.history.member_counts import member_counts
from segmentql.history.records import (
    BEFORE_NEWEST,
    MAX_TIME,
    MIN_TIME,
    HistoryEntryRecord,
    HistoryPage,
    MemberCountRecord,
    MemberCountSeries,
    Position,
)
from segmentql.history.retention import read_earliest_at
from segmentql.segments.records import SegmentRecord
from segmentql.tables import Operation


class HistoryPages(Loader[HistoryPage, list[HistoryEntryRecord]]):
    """A page of history, newest first."""

    max_keys = 100

    async def load_batch(
        self, session: ReadSession, keys: Sequence[HistoryPage]
    ) -> Mapping[HistoryPage, list[HistoryEntryRecord]]:
        return await service.history_pages(session, keys)

    def on_missing(self, key: HistoryPage) -> list[HistoryEntryRecord]:
        return []


class SegmentsAsOf(Loader[tuple[int, datetime], list[SegmentRecord]]):
    """The segments that a user was in at a time in the past, by slug.

    Raises:
        GraphQLError: with code BAD_REQUEST, if the time is in the future of the database's clock,
            or before the beginning of history.
    """

    max_keys = 200
    _earliest_at: datetime | None = None

    async def load_batch(
        self, session: ReadSession, keys: Sequence[tuple[int, datetime]]
    ) -> Mapping[tuple[int, datetime], list[SegmentRecord]]:
        found = await service.segments_as_of(session, keys)
        if len(found) < len(keys):
            self._earliest_at = await read_earliest_at(session)
        return found

    def on_missing(self, key: tuple[int, datetime]) -> list[SegmentRecord]:
        raise time_out_of_range("asOf", key[1], self._earliest_at)


class MemberCountAsOf(Loader[tuple[int, datetime], int]):
    """The number of members of a segment, by segment id, at a time in the past.

    Raises:
        GraphQLError: with code BAD_REQUEST, if the time is in the future of the database's clock,
            or before the beginning of history.
    """

    max_keys = 20  # Each count may take long, and a timeout fails all keys of the statement.
    _earliest_at: datetime | None = None

    async def load_batch(
        self, session: ReadSession, keys: Sequence[tuple[int, datetime]]
    ) -> Mapping[tuple[int, datetime], int]:
        series = {MemberCountSeries(segment_id, at, at, points=1) for segment_id, at in keys}
        counts = await member_counts(session, list(series))
        if len(counts) < len(series):
            self._earliest_at = await read_earliest_at(session)
        return {(key.segment_id, key.until): point.count for key, (point,) in counts.items()}

    def on_missing(self, key: tuple[int, datetime]) -> int:
        raise time_out_of_range("asOf", key[1], self._earliest_at)


class MemberCounts(Loader[MemberCountSeries, list[MemberCountRecord]]):
    """The number of members of a segment at each point of a series.

    Raises:
        GraphQLError: with code BAD_REQUEST, if the series ends in the future of the database's
            clock, or begins before the beginning of history.
    """

    max_keys = 20  # Each series may take long, and a timeout fails all keys of the statement.
    _earliest_at: datetime | None = None

    async def load_batch(
        self, session: ReadSession, keys: Sequence[MemberCountSeries]
    ) -> Mapping[MemberCountSeries, list[MemberCountRecord]]:
        found = await member_counts(session, keys)
        if len(found) < len(keys):
            self._earliest_at = await read_earliest_at(session)
        return found

    def on_missing(self, key: MemberCountSeries) -> list[MemberCountRecord]:
        first = key.times[0]
        is_first = self._earliest_at is not None and first < self._earliest_at and key.points > 1
        raise time_out_of_range("from" if is_first else "to", first, self._earliest_at)


class UserKeyAt(Loader[tuple[int, datetime], str | None]):
    """The key that a user had in the lifetime to which the time of a history entry belongs."""

    async def load_batch(
        self, session: ReadSession, keys: Sequence[tuple[int, datetime]]
    ) -> Mapping[tuple[int, datetime], str | None]:
        return await service.user_keys_at(session, keys)

    def on_missing(self, key: tuple[int, datetime]) -> None:
        return None


async def history_connection(
    context: Context,
    *,
    first: int | None,
    after: str | None,
    since: datetime | None,
    until: datetime | None,
    user_id: int | None,
    slug: str | None,
) -> Connection[HistoryEntryRecord]:
    """Read the page that the arguments of a `history` field select.

    Raises:
        GraphQLError: an argument is invalid.
    """
    known_slug = optional_argument(validators.slug, slug, "slug")
    shape = (is_timestamp_sort_key, is_row_id, _is_operation, is_slug, is_row_id)
    filters = (user_id, known_slug, time_filter(since), time_filter(until))
    page = parse_page_arguments("history", shape, first, after, filters=filters)
    check_time_range(since, until)
    entries = await context.loader(HistoryPages).load(
        HistoryPage(
            rows=page.first + 1,
            after=_position(page.after) if page.after else BEFORE_NEWEST,
            since=since or MIN_TIME,
            until=until or MAX_TIME,
            user_id=user_id,
            slug=known_slug,
        )
    )
    return page.page(entries, _sort_key)


def _is_operation(part: int | str) -> bool:
    return part in frozenset(Operation)


def _sort_key(entry: HistoryEntryRecord) -> SortKey:
    position = entry.position
    return (
        timestamp_sort_key(position.at),
        position.user_id,
        position.operation,
        position.slug,
        position.membership_id,
    )


def _position(key: SortKey) -> Position:
    at, user_id, operation, slug, membership_id = key
    return Position(
        timestamp_of_sort_key(int(at)), int(user_id), str(operation), str(slug), int(membership_id)
    )
