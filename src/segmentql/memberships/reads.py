"""Reads of memberships."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from sqlalchemy import Row, TextClause, text

from segmentql.adapters.autocommit import DriverRow, array_parameter
from segmentql.adapters.sessions import ReadSession
from segmentql.memberships.records import MembershipRecord, MembersPage
from segmentql.segments.records import SegmentRecord
from segmentql.segments.rows import (
    ACTIVE_SEGMENT_COLUMN_COUNT,
    ACTIVE_SEGMENT_COLUMNS,
    SEGMENT_COLUMNS,
    active_segment,
    segment_record,
)
from segmentql.tables import Cause
from segmentql.users.records import UserRecord
from segmentql.users.service import user_record
from segmentql.validators import MAX_PAGE_ROWS

NOT_EXPIRED: Final = "(m.expires_at IS NULL OR m.expires_at > now())"
"""SQL condition: the TTL of the membership `m` has not ended, by the database's clock."""

ACTIVE: Final = f"s.deleted_at IS NULL AND {NOT_EXPIRED}"
"""SQL condition: the membership `m` of the segment `s` is active."""

ACTIVE_AT_CHANGE: Final = "(m.expires_at IS NULL OR m.expires_at > change.at)"
"""SQL condition: the TTL of the membership `m` has not ended at the time of the CTE `change`."""

MEMBERSHIP_COLUMNS: Final = """
m.id AS membership_id, m.user_id, m.joined_at, m.updated_at, m.expires_at, m.cause, m.actor,
m.import_id, u.created_at AS user_created_at, u.key AS user_key
"""
"""The columns of `membership_record`, for statements that read memberships as `m`, users as `u`."""

_USER_KEYS: Final = array_parameter("user_keys", "text")

_USER_IDS: Final = array_parameter("user_ids", "bigint")

# The lengths of these arrays decide whether an index finds the segments.
_REQUESTED_PAIRS: Final = """
unnest(CAST(:user_ids AS bigint[]), CAST(:slugs AS text[])) AS requested (user_id, slug)
"""

_ACTIVE_BY_USERS = text(f"""
SELECT {MEMBERSHIP_COLUMNS}, {SEGMENT_COLUMNS}
FROM memberships m
JOIN segments s ON s.id = m.segment_id
JOIN users u ON u.id = m.user_id
WHERE m.user_id = ANY({_USER_IDS}) AND {ACTIVE}
ORDER BY m.user_id, s.slug
""")

# Grouped by segment, because many users are in few segments. So each segment is sent once.
_BY_SEGMENT: Final = f"""
FROM memberships m JOIN segments s ON s.id = m.segment_id
WHERE m.user_id = ANY({_USER_IDS}) AND {ACTIVE}
GROUP BY s.id
"""

_ACTIVE_SEGMENTS = text(f"""
SELECT {ACTIVE_SEGMENT_COLUMNS}, array_agg(m.user_id) {_BY_SEGMENT} ORDER BY s.slug
""")

# The first row has no segment and lists the stored users, so that one round trip reads the users
# and their segments.
_STORED_USERS: Final = f"""
SELECT {ACTIVE_SEGMENT_COLUMNS}, array_agg(u.id), array_agg(u.created_at), array_agg(u.key)
FROM {{users}} u LEFT JOIN segments s ON false
WHERE {{condition}}
GROUP BY s.id
UNION ALL
SELECT {ACTIVE_SEGMENT_COLUMNS}, array_agg(m.user_id), NULL, NULL
"""

_USERS_WITH_SEGMENTS = text(f"""
{_STORED_USERS.format(users="users", condition=f"u.id = ANY({_USER_IDS})")} {_BY_SEGMENT}
ORDER BY slug NULLS FIRST
""")

_USERS_WITH_SEGMENTS_BY_KEY = text(f"""
WITH found AS MATERIALIZED (SELECT id, created_at, key FROM users WHERE key = ANY({_USER_KEYS}))
{_STORED_USERS.format(users="found", condition="true")}
{_BY_SEGMENT.replace(_USER_IDS, "ARRAY(SELECT id FROM found)")}
ORDER BY slug NULLS FIRST
""")

_ACTIVE_PAIRS = text(f"""
SELECT m.user_id, s.slug
FROM {_REQUESTED_PAIRS}
JOIN segments s ON s.slug = requested.slug AND s.deleted_at IS NULL
JOIN memberships m ON m.user_id = requested.user_id AND m.segment_id = s.id AND {ACTIVE}
""")

_ACTIVE_MEMBERSHIPS = text(f"""
SELECT {MEMBERSHIP_COLUMNS}, {SEGMENT_COLUMNS}
FROM {_REQUESTED_PAIRS}
JOIN segments s ON s.slug = requested.slug AND s.deleted_at IS NULL
JOIN memberships m ON m.user_id = requested.user_id AND m.segment_id = s.id AND {ACTIVE}
JOIN users u ON u.id = m.user_id
""")

_EXCLUDED_PAIRS = text(f"""
SELECT e.user_id, s.slug
FROM {_REQUESTED_PAIRS}
JOIN segments s ON s.slug = requested.slug AND s.deleted_at IS NULL
JOIN exclusions e ON e.user_id = requested.user_id AND e.segment_id = s.id
""")

_MEMBER_COUNTS = text(f"""
SELECT s.id AS segment_id, (
    SELECT count(*) FROM memberships m WHERE m.segment_id = s.id AND {ACTIVE}
) AS members
FROM segments s WHERE s.id = ANY(:segment_ids)
""")

_MEMBERS = text(f"""
SELECT requested.number, member.*
FROM unnest(
    CAST(:segment_ids AS bigint[]), CAST(:afters AS bigint[]), CAST(:rows AS int[])
) WITH ORDINALITY AS requested (segment_id, after, rows, number)
CROSS JOIN LATERAL (
    SELECT {MEMBERSHIP_COLUMNS}, {SEGMENT_COLUMNS},
        row_number() OVER (ORDER BY m.user_id) AS position
    FROM memberships m
    JOIN segments s ON s.id = m.segment_id
    JOIN users u ON u.id = m.user_id
    WHERE m.segment_id = requested.segment_id AND m.user_id > requested.after AND {ACTIVE}
    ORDER BY m.user_id LIMIT {MAX_PAGE_ROWS + 1}  -- a constant, so that the planner can estimate
) AS member
WHERE member.position <= requested.rows
ORDER BY requested.number, member.user_id
""")


def membership_record(
    row: Row[Any], *, user: UserRecord, segment: SegmentRecord
) -> MembershipRecord:
    """Build the record from a row with `MEMBERSHIP_COLUMNS`."""
    return MembershipRecord(
        membership_id=row.membership_id,
        user=user,
        segment=segment,
        joined_at=row.joined_at,
        updated_at=row.updated_at,
        expires_at=row.expires_at,
        cause=Cause(row.cause),
        actor=row.actor,
        import_id=row.import_id,
    )


async def memberships_by_user(
    session: ReadSession, user_ids: Sequence[int]
) -> dict[int, list[MembershipRecord]]:
    """Return the active memberships of each user by slug; users without one are absent."""
    segments: dict[int, SegmentRecord] = {}  # There are far fewer segments than memberships.
    users: dict[int, UserRecord] = {}
    memberships: dict[int, list[MembershipRecord]] = {}
    for row in await session.execute(_ACTIVE_BY_USERS, {"user_ids": list(user_ids)}):
        segment = segments.get(row.segment_id)
        if segment is None:
            segment = segments[row.segment_id] = segment_record(row)
        user = users.get(row.user_id)
        if user is None:
            user = users[row.user_id] = user_record(row)
        memberships.setdefault(row.user_id, []).append(
            membership_record(row, user=user, segment=segment)
        )
    return memberships


async def segments_by_user(
    session: ReadSession, user_ids: Sequence[int]
) -> dict[int, list[SegmentRecord]]:
    """Return the segments that each user is in, by slug; users in no segment are absent."""
    segments: dict[int, list[SegmentRecord]] = {}
    for row in await session.fetch(_ACTIVE_SEGMENTS, {"user_ids": list(user_ids)}):
        segment = active_segment(row)
        for user_id in row[ACTIVE_SEGMENT_COLUMN_COUNT]:
            segments.setdefault(user_id, []).append(segment)
    return segments


async def users_with_segments(
    session: ReadSession, user_ids: Sequence[int]
) -> dict[int, UserRecord]:
    """Return the stored users with the segments that they are in, by slug."""
    rows = await session.fetch(_USERS_WITH_SEGMENTS, {"user_ids": list(user_ids)})
    return {user.user_id: user for user in _users_with_segments(rows)}


async def users_with_segments_by_key(
    session: ReadSession, user_keys: Sequence[str]
) -> dict[str, UserRecord]:
    """Return the stored users with these keys with the segments that they are in, by slug."""
    rows = await session.fetch(_USERS_WITH_SEGMENTS_BY_KEY, {"user_keys": list(user_keys)})
    return {user.key: user for user in _users_with_segments(rows) if user.key is not None}


def _users_with_segments(rows: Sequence[DriverRow]) -> Iterable[UserRecord]:
    """Return the users in rows of which the first one lists the users."""
    if not rows:
        return ()
    stored, *segment_rows = rows
    user_ids = stored[ACTIVE_SEGMENT_COLUMN_COUNT]
    segments: dict[int, list[SegmentRecord]] = {user_id: [] for user_id in user_ids}
    for row in segment_rows:
        segment = active_segment(row)
        for user_id in row[ACTIVE_SEGMENT_COLUMN_COUNT]:
            segments[user_id].append(segment)
    return map(UserRecord, user_ids, *stored[ACTIVE_SEGMENT_COLUMN_COUNT + 1 :], segments.values())


async def active_pairs(
    session: ReadSession, pairs: Sequence[tuple[int, str]]
) -> set[tuple[int, str]]:
    """Return the (user id, slug) pairs whose user is an active member of the segment."""
    return await _pairs(session, _ACTIVE_PAIRS, pairs)


async def excluded_pairs(
    session: ReadSession, pairs: Sequence[tuple[int, str]]
) -> set[tuple[int, str]]:
    """Return the (user id, slug) pairs whose user is excluded from the segment's rollout."""
    return await _pairs(session, _EXCLUDED_PAIRS, pairs)


async def _pairs(
    session: ReadSession, statement: TextClause, pairs: Sequence[tuple[int, str]]
) -> set[tuple[int, str]]:
    return set(map(tuple, await session.fetch(statement, _pair_parameters(pairs))))


def _pair_parameters(pairs: Sequence[tuple[int, str]]) -> dict[str, list[Any]]:
    user_ids, slugs = zip(*pairs, strict=True)
    return {"user_ids": list(user_ids), "slugs": list(slugs)}


async def memberships_by_slug(
    session: ReadSession, pairs: Sequence[tuple[int, str]]
) -> dict[tuple[int, str], MembershipRecord]:
    """Return the active membership of each (user id, slug) pair; pairs without one are absent."""
    memberships: dict[tuple[int, str], MembershipRecord] = {}
    for row in await session.execute(_ACTIVE_MEMBERSHIPS, _pair_parameters(pairs)):
        memberships[row.user_id, row.slug] = membership_record(
            row, user=user_record(row), segment=segment_record(row)
        )
    return memberships


async def member_counts(session: ReadSession, segment_ids: Sequence[int]) -> dict[int, int]:
    """Return the exact number of active members of each segment. It scans an index range."""
    rows = await session.execute(_MEMBER_COUNTS, {"segment_ids": list(segment_ids)})
    return {row.segment_id: row.members for row in rows}


async def member_pages(
    session: ReadSession, pages: Sequence[MembersPage]
) -> dict[MembersPage, list[MembershipRecord]]:
    """Return pages of active members by user id; empty pages are absent."""
    values = {
        "segment_ids": [page.segment_id for page in pages],
        "afters": [page.after for page in pages],
        "rows": [page.rows for page in pages],
    }
    members: dict[MembersPage, list[MembershipRecord]] = {}
    for row in await session.execute(_MEMBERS, values):
        members.setdefault(pages[row.number - 1], []).append(
            membership_record(row, user=user_record(row), segment=segment_record(row))
        )
    return members
