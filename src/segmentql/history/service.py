"""SQL of history: pages of entries, and the state at a time in the past.

A read combines three sources: the rows that triggers recorded, the leaves of expired memberships,
and the leaves of members of deleted segments. The latter two have happened and are not recorded
yet. When a worker records such a leave, the entry keeps its time and its id.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Row, text

from segmentql.adapters.sessions import ReadSession
from segmentql.history.records import HistoryEntryRecord, HistoryPage
from segmentql.history.retention import EARLIEST_AT
from segmentql.segments.records import SegmentRecord
from segmentql.segments.rows import SEGMENT_COLUMNS, segment_record
from segmentql.tables import Cause, Operation
from segmentql.validators import MAX_PAGE_ROWS

# A constant, because the planner estimates a LIMIT from a column as a tenth of the table and sorts.
_MAX_ROWS: Final = MAX_PAGE_ROWS + 1

_NEWEST_FIRST: Final = "at DESC, user_id DESC, operation DESC, slug DESC, membership_id DESC"


# Each source reads at most one page by an index before the sources are combined. The first two
# columns of the position are also compared separately, so that an index on (at, user_id) can start
# at the page: a million leaves of a deleted segment have the same time.
def _conditions(at: str, user_id: str, operation: str, membership_id: str) -> str:
    return f"""
    {at} >= page.since AND {at} < page.until
    AND ({at}, {user_id}) <= (page.at, page.before_user_id)
    AND ({at}, {user_id}, {operation}, s.slug, {membership_id})
        < (page.at, page.before_user_id, page.operation, page.slug, page.membership_id)
    """


_FROM_HISTORY: Final = "history h JOIN segments s ON s.id = h.segment_id"
_FROM_HISTORY_OF_SLUG: Final = f"""
segments s CROSS JOIN LATERAL (
    SELECT * FROM history h
    WHERE h.segment_id = s.id AND h.at >= page.since AND h.at < page.until
        AND (h.at, h.user_id) <= (page.at, page.before_user_id)
    ORDER BY h.at DESC, h.user_id DESC LIMIT {_MAX_ROWS} + 1
) AS h
"""
"""Reads the entries of each segment with the slug by the index on (segment_id, at, user_id),
because few segments have had the same slug. It reads one row more than a page, because `<=` also
returns the entry `after`."""


EXPIRED: Final = """
m.expires_at <= now() AND (s.deleted_at IS NULL OR m.expires_at <= s.deleted_at)
"""
"""SQL condition: the membership `m` of the segment `s` ended by its TTL, at `m.expires_at`."""

ENDED_WITH_SEGMENT: Final = """
s.deleted_at IS NOT NULL AND s.leaves_recorded_at IS NULL
AND (m.expires_at IS NULL OR m.expires_at > s.deleted_at)
"""
"""SQL condition: the membership `m` ended by the deletion of the segment `s`, at `s.deleted_at`."""


def _entries(*, of_one_user: bool, of_one_slug: bool) -> str:
    """Return the query of the page of history that the row `page` describes."""
    user = "AND {0}.user_id = page.user_id" if of_one_user else ""
    slug = "AND s.slug = page.only_slug" if of_one_slug else ""
    return f"""
    SELECT * FROM (
        (SELECT h.at, h.user_id, h.operation, h.membership_id, h.cause, h.actor, h.recorded_at,
            h.import_id, {SEGMENT_COLUMNS}
         FROM {_FROM_HISTORY_OF_SLUG if of_one_slug and not of_one_user else _FROM_HISTORY}
         WHERE {_conditions("h.at", "h.user_id", "h.operation", "h.membership_id")}
            {user.format("h")} {slug}
         ORDER BY {_NEWEST_FIRST} LIMIT {_MAX_ROWS})
        UNION ALL
        (SELECT m.expires_at AS at, m.user_id, CAST('LEFT' AS operation) AS operation,
            m.id AS membership_id, CAST('TTL' AS cause), NULL, NULL, NULL,
            {SEGMENT_COLUMNS}
         FROM memberships m JOIN segments s ON s.id = m.segment_id
         WHERE {EXPIRED}
            AND {_conditions("m.expires_at", "m.user_id", "CAST('LEFT' AS operation)", "m.id")}
            {user.format("m")} {slug}
         ORDER BY {_NEWEST_FIRST} LIMIT {_MAX_ROWS})
        UNION ALL
        (SELECT s.deleted_at AS at, m.user_id, CAST('LEFT' AS operation) AS operation,
            m.id AS membership_id, CAST('SEGMENT_DELETED' AS cause), s.deleted_by, NULL,
            NULL, {SEGMENT_COLUMNS}
         FROM segments s
         CROSS JOIN LATERAL (
            SELECT m.id, m.user_id FROM memberships m
            WHERE m.segment_id = s.id AND (m.expires_at IS NULL OR m.expires_at > s.deleted_at)
                AND m.user_id <= CASE WHEN s.deleted_at < page.at THEN {2**63 - 1}
                    ELSE page.before_user_id END
                {user.format("m")}
            ORDER BY m.user_id DESC LIMIT {_MAX_ROWS} + 1
         ) AS m
         WHERE s.deleted_at IS NOT NULL AND s.leaves_recorded_at IS NULL {slug}
            AND {_conditions("s.deleted_at", "m.user_id", "CAST('LEFT' AS operation)", "m.id")}
         ORDER BY {_NEWEST_FIRST} LIMIT {_MAX_ROWS})
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
        _PAGES.format(
            entries=_entries(of_one_user=of_one_user, of_one_slug=of_one_slug), order=_NEWEST_FIRST
        )
    )
    for of_one_user in (False, True)
    for of_one_slug in (False, True)
}

# Selects the last entry of each segment at or before the time, if it is a join and the membership
# had not ended at that time.
_SEGMENTS_AS_OF = text(f"""
SELECT requested.number, past.*,
    requested.at > now() OR requested.at < {EARLIEST_AT} AS is_unknown
FROM unnest(CAST(:user_ids AS bigint[]), CAST(:ats AS timestamptz[]))
    WITH ORDINALITY AS requested (user_id, at, number)
LEFT JOIN LATERAL (
    SELECT {SEGMENT_COLUMNS}
    FROM (
        SELECT DISTINCT ON (h.segment_id) h.segment_id, h.operation, h.membership_id
        FROM history h
        WHERE h.user_id = requested.user_id AND h.at <= requested.at
        ORDER BY h.segment_id, h.at DESC
    ) AS last
    JOIN segments s ON s.id = last.segment_id
    LEFT JOIN memberships m ON m.user_id = requested.user_id AND m.segment_id = last.segment_id
        AND m.id = last.membership_id
    WHERE last.operation = 'JOINED'
      AND (m.id IS NULL OR least(m.expires_at, s.deleted_at) IS NULL
           OR least(m.expires_at, s.deleted_at) > requested.at)
      -- If the clock was set back, two segments of one slug can exist at one time. The one that was
      -- created last counts, as for `explain`.
      AND NOT EXISTS (
          SELECT FROM segments later
          WHERE later.slug = s.slug AND later.id > s.id AND later.created_at <= requested.at)
) AS past ON true
ORDER BY requested.number, past.slug
""")


def user_key_at(user_id: str, at: str) -> str:
    """Return the SQL expression of the key of a user in the lifetime to which a time belongs.

    Args:
        user_id: The SQL expression of the user's id.
        at: The SQL expression of the time, for instance of a history entry.
    """
    return f"""(
    SELECT lifetime.key FROM (
        SELECT key, created_at, deleted_at FROM user_lifetimes WHERE user_id = {user_id}
        UNION ALL
        SELECT key, created_at, 'infinity' FROM users WHERE id = {user_id}
    ) AS lifetime
    WHERE {at} BETWEEN lifetime.created_at AND lifetime.deleted_at
    ORDER BY lifetime.deleted_at LIMIT 1
    )"""


_USER_KEYS = text(f"""
SELECT requested.number, {user_key_at("requested.user_id", "requested.at")} AS user_key
FROM unnest(CAST(:user_ids AS bigint[]), CAST(:ats AS timestamptz[]))
    WITH ORDINALITY AS requested (user_id, at, number)
""")


async def history_pages(
    session: ReadSession, pages: Sequence[HistoryPage]
) -> dict[HistoryPage, list[HistoryEntryRecord]]:
    """Return pages of history, newest first; empty pages are absent.

    One statement reads all pages with the same kinds of filters (user, slug, both or none), so this
    runs at most four statements.
    """
    found: dict[HistoryPage, list[HistoryEntryRecord]] = {}
    for (of_one_user, of_one_slug), statement in _STATEMENTS.items():
        batch = [
            page
            for page in pages
            if (page.user_id is not None) is of_one_user and (page.slug is not None) is of_one_slug
        ]
        if batch:
            for row in await session.execute(statement, _parameters(batch)):
                found.setdefault(batch[row.number - 1], []).append(_entry_record(row))
    return found


def _entry_record(row: Row[Any]) -> HistoryEntryRecord:
    return HistoryEntryRecord(
        membership_id=row.membership_id,
        user_id=row.user_id,
        segment=segment_record(row),
        operation=Operation(row.operation),
        at=row.at,
        recorded_at=row.recorded_at,
        cause=Cause(row.cause),
        actor=row.actor,
        import_id=row.import_id,
    )


def _parameters(pages: Sequence[HistoryPage]) -> dict[str, list[Any]]:
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
) -> dict[tuple[int, datetime], list[SegmentRecord]]:
    """Return the segments that users were in at times in the past, by slug.

    Args:
        session: The session.
        moments: Pairs of a user id and a time. Pairs with a time in the future, or before the
            beginning of history, are absent from the result.
    """
    values = {
        "user_ids": [user_id for user_id, _ in moments],
        "ats": [at for _, at in moments],
    }
    found: dict[tuple[int, datetime], list[SegmentRecord]] = {}
    for row in await session.execute(_SEGMENTS_AS_OF, values):
        if not row.is_unknown:
            segments = found.setdefault(moments[row.number - 1], [])
            if row.slug is not None:
                segments.append(segment_record(row))
    return found


async def user_keys_at(
    session: ReadSession, moments: Sequence[tuple[int, datetime]]
) -> dict[tuple[int, datetime], str | None]:
    """Return the keys that users had in the lifetimes to which times belong.

    Args:
        session: The session.
        moments: Pairs of a user id and the time of a history entry of the user.

    Returns:
        The keys; None if the user had no key, or if it was erased.
    """
    values = {
        "user_ids": [user_id for user_id, _ in moments],
        "ats": [at for _, at in moments],
    }
    rows = await session.execute(_USER_KEYS, values)
    return {moments[row.number - 1]: row.user_key for row in rows}
