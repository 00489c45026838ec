"""Batched reads of history."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from segmentql import validators
from segmentql.adapters.database import ReadSession
from segmentql.graphql.context import Context
from segmentql.graphql.types.dataloader import Loader
from segmentql.graphql.types.errors import bad_request
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
from segmentql.graphql.types.validation import optional_argument
from segmentql.history import service
from segmentql.history.service import NEWEST, HistoryPage, Position
from segmentql.segments.api import Segment
from segmentql.tables import Operation

if TYPE_CHECKING:
    from segmentql.history.api import HistoryEntry


class HistoryPages(Loader[HistoryPage, "list[HistoryEntry]"]):
    """A page of history, newest first."""

    max_keys = 100

    async def load_batch(
        self, session: ReadSession, keys: Sequence[HistoryPage]
    ) -> "Mapping[HistoryPage, list[HistoryEntry]]":
        from segmentql.history.api import HistoryEntry  # noqa: PLC0415 - it has users, they this

        pages = await service.history_pages(session, keys)
        return {page: [HistoryEntry.from_row(row) for row in rows] for page, rows in pages.items()}

    def on_missing(self, key: HistoryPage) -> "list[HistoryEntry]":
        return []


class SegmentsAsOf(Loader[tuple[int, datetime], list[Segment]]):
    """The segments that a user was in at a past moment, by slug.

    Raises:
        GraphQLError: BAD_REQUEST for a moment that the database's clock has not reached.
    """

    max_keys = 200

    async def load_batch(
        self, session: ReadSession, keys: Sequence[tuple[int, datetime]]
    ) -> Mapping[tuple[int, datetime], list[Segment]]:
        found = await service.segments_as_of(session, keys)
        return {key: [Segment.from_row(row) for row in rows] for key, rows in found.items()}

    def on_missing(self, key: tuple[int, datetime]) -> list[Segment]:
        raise bad_request("asOf", "this moment is yet to come", "a past moment")


async def history_connection(
    context: Context,
    *,
    first: int | None,
    after: str | None,
    since: datetime | None,
    until: datetime | None,
    user_id: int | None,
    slug: str | None,
) -> "Connection[HistoryEntry]":
    """Read the page that a `history` field's arguments ask for.

    Raises:
        GraphQLError: an argument breaks its rule.
    """
    known_slug = optional_argument(validators.slug, slug, "slug")
    shape = (is_timestamp_sort_key, is_row_id, _is_operation, is_slug, is_row_id)
    filters = (user_id, known_slug, _filter(since), _filter(until))
    page = parse_page_arguments("history", shape, first, after, filters=filters)
    if since and until and since > until:
        raise bad_request("from", "it is after `to`", "a moment before `to`")
    entries = await context.loader(HistoryPages).load(
        HistoryPage(
            rows=page.first + 1,
            after=_position(page.after) if page.after else NEWEST,
            since=since or service.BEGINNING,
            until=until or service.END,
            user_id=user_id,
            slug=known_slug,
        )
    )
    return page.page(entries, lambda entry: entry, lambda entry: _sort_key(entry.position))


def _filter(bound: datetime | None) -> int | None:
    return timestamp_sort_key(bound) if bound else None  # UNSET is false


def _is_operation(subsumes: int | str) -> bool:
    return subsumes in frozenset(Operation)


def _sort_key(position: Position) -> SortKey:
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
