"""SQL of history: pages of it, and what it says a past moment was like.

What reads show is three things put together: the rows that triggers recorded; the leaves of
memberships that have run out; and those of deleted segments. The latter two are not recorded yet,
but true already. When a worker records one it stays the same entry: same moment, same id.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Final

from sqlalchemy import Row, text

from segmentql.adapters.database import ReadSession, WriteSession
from segmentql.segments.service import SEGMENT_COLUMNS
from segmentql.tables import Operation
from segmentql.validators import MAX_PAGE_ROWS

MONTHS_AHEAD: Final = 3
"""Partitions that exist beyond the current month's."""

BEGINNING: Final = datetime(1, 1, 1, tzinfo=UTC)
END: Final = datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)


@dataclass(frozen=True)
class Position:
    """Where an entry stands: history is ordered by this, newest first.

    Leaves sort before joins, so read backwards a join comes before a leave of the same moment.
    """

    at: datetime
    user_id: int
    operation: str
    slug: str
    membership_id: int


NEWEST: Final = Position(END, 2**63 - 1, Operation.JOINED, "\x7f", 2**63 - 1)
"""Before every entry."""


@dataclass(frozen=True)
class HistoryPage:
    """Which page of history: up to `rows` entries after `after`, of what the rest selects.

    `since` is inclusive, `until` exclusive; `slug` means every segment that ever bore it.
    """

    rows: int
    after: Position = NEWEST
    since: datetime = BEGINNING
    until: datetime = END
    user_id: int | None = None
    slug: str | None = None


# A constant, for the planner would take a page's own number for a tenth of the table and sort it.
_LONGEST: Final = MAX_PAGE_ROWS + 1

# Each source reads no more than a page, by an index, before they are put together. The first two
# members of the position are compared on their own so that an index on (at, user_id) can begin
# at the page: a deleted segment's million leaves share one moment.
_NEWEST_FIRST: Final = "at DESC, user_id DESC, operation DESC, slug DESC, membership_id DESC"


def _selected(at: str, user_id: str, operation: str, membership_id: str) -> str:
    return f"""
    {at} >= page.since AND {at} < page.until
    AND ({at}, {user_id}) <= (page.at, page.before_user_id)
    AND ({at}, {user_id}, {operation}, s.slug, {membership_id})
        < (page.at, page.before_user_id, page.operation, page.slug, page.membership_id)
    """


_BY_USER_OR_MOMENT: Final = "history h JOIN segments s ON s.id = h.segment_id"
_BY_SEGMENT: Final = f"""
segments s CROSS JOIN LATERAL (
    SELECT * FROM history h
    WHERE h.segment_id = s.id AND h.at >= page.since AND h.at < page.until
        AND (h.at, h.user_id) <= (page.at, page.before_user_id)
    ORDER BY h.at DESC, h.user_id DESC LIMIT {_LONGEST} + 1
) AS h
"""
"""Few segments bore one slug, so each is read by its index; one entry may be `after` itself."""


EXPIRED: Final = """
m.expires_at <= now() AND (s.deleted_at IS NULL OR m.expires_at <= s.deleted_at)
"""
"""A membership `m` of the segment `s` whose TTL ended it: a leave at `m.expires_at`."""

ENDED_WITH_SEGMENT: Final = """
s.deleted_at IS NOT NULL AND s.leaves_recorded_at IS NULL
AND (m.expires_at IS NULL OR m.expires_at > s.deleted_at)
"""
"""A membership that the deletion of its segment ended: a leave at `s.deleted_at`."""


def _entries(of_one_user: bool, of_one_slug: bool) -> str:  # noqa: FBT001 - private, and it reads
    """One page of history, `page` being the row that says which."""
    user = "AND {0}.user_id = page.user_id" if of_one_user else ""
    slug = "AND s.slug = page.only_slug" if of_one_slug else ""
    return f"""
    SELECT * FROM (
        (SELECT h.at, h.user_id, h.operation, h.membership_id, h.cause, h.actor, h.recorded_at,
            {SEGMENT_COLUMNS}
         FROM {_BY_SEGMENT if of_one_slug and not of_one_user else _BY_USER_OR_MOMENT}
         WHERE {_selected("h.at", "h.user_id", "h.operation", "h.membership_id")}
            {user.format("h")} {slug}
         ORDER BY {_NEWEST_FIRST} LIMIT {_LONGEST})
        UNION ALL
        (SELECT m.expires_at AS at, m.user_id, CAST('LEFT' AS operation) AS operation,
            m.id AS membership_id, CAST('TTL' AS cause), NULL, NULL, {SEGMENT_COLUMNS}
         FROM memberships m JOIN segments s ON s.id = m.segment_id
         WHERE {EXPIRED}
            AND {_selected("m.expires_at", "m.user_id", "CAST('LEFT' AS operation)", "m.id")}
            {user.format("m")} {slug}
         ORDER BY {_NEWEST_FIRST} LIMIT {_LONGEST})
        UNION ALL
        (SELECT s.deleted_at AS at, m.user_id, CAST('LEFT' AS operation) AS operation,
            m.id AS membership_id, CAST('SEGMENT_DELETED' AS cause), s.deleted_by, NULL,
            {SEGMENT_COLUMNS}
         FROM segments s
         CROSS JOIN LATERAL (
            SELECT m.id, m.user_id FROM memberships m
            WHERE m.segment_id = s.id AND (m.expires_at IS NULL OR m.expires_at > s.deleted_at)
                AND m.user_id <= CASE WHEN s.deleted_at < page.at THEN {2**63 - 1}
                    ELSE page.before_user_id END
                {user.format("m")}
            ORDER BY m.user_id DESC LIMIT {_LONGEST} + 1
         ) AS m
         WHERE s.deleted_at IS NOT NULL AND s.leaves_recorded_at IS NULL {slug}
            AND {_selected("s.deleted_at", "m.user_id", "CAST('LEFT' AS operation)", "m.id")}
         ORDER BY {_NEWEST_FIRST} LIMIT {_LONGEST})
    ) AS entry
    ORDER BY {_NEWEST_FIRST} LIMIT page.rows
    """


_PAGES: Final = """
SELECT page.number, entry.*
FROM unnest(
    CAST(:rows AS int[]), CAST(:ats AS timestamptz[]), CAST(:before_user_ids AS bigint[]),
    CAST(:operations AS operation[]), CAST(:slugs AS text[]), CAST(:membership_ids AS bigint[]),
    CAST(:sinces AS timestamptz[]), CAST(:untils AS timestamptz[]),
    CAST(:user_ids AS bigint[]), CAST(:only_slugs AS text[])
) WITH ORDINALITY AS page (
    rows, at, before_user_id, operation, slug, membership_id, since, until, user_id, only_slug,
    number
)
CROSS JOIN LATERAL ({entries}) AS entry
ORDER BY page.number, {order}
"""

_STATEMENTS: Final = {
    (of_one_user, of_one_slug): text(
        _PAGES.format(entries=_entries(of_one_user, of_one_slug), order=_NEWEST_FIRST)
    )
    for of_one_user in (False, True)
    for of_one_slug in (False, True)
}

# The last thing that happened before the moment, segment by segment, if it was a join and its
# leave, recorded or only due, came later.
_SEGMENTS_AS_OF = text(f"""
SELECT asked.number, asked.at > now() AS in_the_future, was.*
FROM unnest(CAST(:user_ids AS bigint[]), CAST(:ats AS timestamptz[]))
    WITH ORDINALITY AS asked (user_id, at, number)
LEFT JOIN LATERAL (
    SELECT {SEGMENT_COLUMNS}
    FROM (
        SELECT DISTINCT ON (h.segment_id) h.segment_id, h.operation, h.membership_id
        FROM history h
        WHERE h.user_id = asked.user_id AND h.at <= asked.at
        ORDER BY h.segment_id, h.at DESC
    ) AS last
    JOIN segments s ON s.id = last.segment_id
    LEFT JOIN memberships m ON m.user_id = asked.user_id AND m.segment_id = last.segment_id
        AND m.id = last.membership_id
    WHERE last.operation = 'JOINED'
      AND (m.id IS NULL OR least(m.expires_at, s.deleted_at) IS NULL
           OR least(m.expires_at, s.deleted_at) > asked.at)
) AS was ON true
ORDER BY asked.number, was.slug
""")

_MAKE_PARTITIONS = text("SELECT make_history_partitions(CAST(:first AS date), :months)")
_MAKE_PARTITIONS_AHEAD = text(
    "SELECT make_history_partitions(CAST(now() AT TIME ZONE 'UTC' AS date), :months)"
)


async def history_pages(
    session: ReadSession, pages: Sequence[HistoryPage]
) -> dict[HistoryPage, list[Row[Any]]]:
    """Read pages of history, newest first; empty pages are absent.

    One statement, where all pages select alike (by user, by slug, by both or by neither);
    otherwise one for each of those ways.
    """
    found: dict[HistoryPage, list[Row[Any]]] = {}
    for (of_one_user, of_one_slug), statement in _STATEMENTS.items():
        alike = [
            page
            for page in pages
            if (page.user_id is not None) is of_one_user and (page.slug is not None) is of_one_slug
        ]
        if alike:
            for row in await session.execute(statement, _columns(alike)):
                found.setdefault(alike[row.number - 1], []).append(row)
    return found


def _columns(pages: Sequence[HistoryPage]) -> dict[str, list[Any]]:
    return {
        "rows": [page.rows for page in pages],
        "ats": [page.after.at for page in pages],
        "before_user_ids": [page.after.user_id for page in pages],
        "operations": [page.after.operation for page in pages],
        "slugs": [page.after.slug for page in pages],
        "membership_ids": [page.after.membership_id for page in pages],
        "sinces": [page.since for page in pages],
        "untils": [page.until for page in pages],
        "user_ids": [page.user_id for page in pages],
        "only_slugs": [page.slug for page in pages],
    }


async def segments_as_of(
    session: ReadSession, moments: Sequence[tuple[int, datetime]]
) -> dict[tuple[int, datetime], list[Row[Any]]]:
    """Read which segments users were in at past moments, by slug; future moments are absent."""
    values = {
        "user_ids": [user_id for user_id, _ in moments],
        "ats": [at for _, at in moments],
    }
    found: dict[tuple[int, datetime], list[Row[Any]]] = {}
    for row in await session.execute(_SEGMENTS_AS_OF, values):
        if not row.in_the_future:
            segments = found.setdefault(moments[row.number - 1], [])
            if row.slug is not None:
                segments.append(row)
    return found


async def make_partitions(session: WriteSession, first_month: date, months: int) -> int:
    """Make the partitions of history for `months` months that are missing; how many it were.

    Months are UTC's. Rows that the DEFAULT partition holds for them are moved.
    """
    values = {"first": first_month, "months": months}
    return int((await session.execute(_MAKE_PARTITIONS, values)).scalar_one())


async def make_partitions_ahead(session: WriteSession) -> int:
    """Make the partitions of this month and the `MONTHS_AHEAD` next that are missing."""
    values = {"months": 1 + MONTHS_AHEAD}
    return int((await session.execute(_MAKE_PARTITIONS_AHEAD, values)).scalar_one())
