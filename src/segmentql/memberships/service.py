"""Rules and SQL of memberships: changed by hand, and read."""

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Row, text
from sqlalchemy.exc import IntegrityError

from segmentql.adapters.database import ReadSession, WriteSession
from segmentql.adapters.jobs import MAX_DELAY_SECONDS, Message
from segmentql.errors import InvalidInput, MutationRejected, SegmentNotFound
from segmentql.memberships.jobs import EXPIRE_DUE_MEMBERSHIPS
from segmentql.segments.service import SEGMENT_COLUMNS, SEGMENT_LOCK
from segmentql.tables import Cause
from segmentql.timestamps import CHANGE_OF_USER
from segmentql.validators import MAX_PAGE_ROWS, MAX_TTL_SECONDS, TTL_ALLOWED


class OnExisting(enum.StrEnum):
    """What adding does to a membership that is active already."""

    EXTEND = "EXTEND"
    REPLACE = "REPLACE"
    KEEP = "KEEP"


ACTIVE: Final = "s.deleted_at IS NULL AND (m.expires_at IS NULL OR m.expires_at > now())"
"""When the membership `m` of the segment `s` is active: rule 1, by the database's clock."""

MEMBERSHIP_COLUMNS: Final = """
m.id AS membership_id, m.user_id, m.joined_at, m.updated_at, m.expires_at, m.cause, m.actor,
u.created_at AS user_created_at
"""
"""What the GraphQL type is made of, in statements that read memberships as `m`, users as `u`."""

# Locks in one order everywhere: segments by number, then users by number. The segments' locks
# let others add too, but nobody delete; the user's makes all changes of one user wait for each
# other. ON CONFLICT ... WHERE false changes nothing but locks what is there. What is named here is
# not the rollouts' business where the user is new (the trigger on users).
_LOCK = text(f"""
WITH named AS MATERIALIZED (
    SELECT id FROM segments WHERE slug = ANY(:slugs) AND deleted_at IS NULL ORDER BY id
), queued AS MATERIALIZED (
    SELECT id, pg_advisory_xact_lock_shared({SEGMENT_LOCK}) FROM named
), found AS MATERIALIZED (
    SELECT s.id, s.slug FROM segments s JOIN queued USING (id)
    WHERE s.deleted_at IS NULL
    ORDER BY s.id FOR KEY SHARE OF s
), stored AS (
    INSERT INTO users (id, created_at)
    SELECT :user_id, clock_timestamp() FROM (
        SELECT count(*) AS total,
            set_config('segmentql.by_hand', CAST(coalesce(array_agg(id), '{{}}') AS text), true)
        FROM found
    ) AS named_segments
    WHERE total = :slug_count
    ON CONFLICT (id) DO UPDATE SET created_at = users.created_at WHERE false
    RETURNING id
), done AS (
    SELECT count(*) FROM stored
)
SELECT found.id, found.slug, clock_timestamp() AS locked_at
FROM done LEFT JOIN found ON true
""")

_EXPIRED: Final = "m.expires_at <= excluded.updated_at"
_NEW_END: Final = f"""
CASE WHEN {_EXPIRED} OR CAST(:on_existing AS text) = 'REPLACE' THEN excluded.expires_at
     WHEN m.expires_at IS NULL OR excluded.expires_at IS NULL THEN NULL
     ELSE greatest(m.expires_at, excluded.expires_at) END
"""

_WRITE = text(f"""
WITH {CHANGE_OF_USER},
taken_out AS (
    DELETE FROM memberships m USING change
    WHERE m.user_id = :user_id AND m.segment_id = ANY(:remove_ids)
    RETURNING m.expires_at IS NULL OR m.expires_at > change.at AS was_active
), barred AS (
    INSERT INTO exclusions (user_id, segment_id, excluded_at)
    SELECT :user_id, segment_id, change.at
    FROM change, unnest(CAST(:remove_ids AS bigint[])) AS segment_id
    ON CONFLICT DO NOTHING
), admitted AS (
    DELETE FROM exclusions WHERE user_id = :user_id AND segment_id = ANY(:add_ids)
), put_in AS (
    INSERT INTO memberships AS m
        (user_id, segment_id, joined_at, updated_at, expires_at, cause, actor)
    SELECT :user_id, segment_id, change.at, change.at,
        coalesce(CAST(:expires_at AS timestamptz), change.at + CAST(:ttl AS interval)),
        'MANUAL', :actor
    FROM change, unnest(CAST(:add_ids AS bigint[])) AS segment_id
    ON CONFLICT (user_id, segment_id) DO UPDATE SET
        -- What had run out is a new membership, which the trigger sees by its id: it records
        -- both the leave at the old end and the join.
        id = CASE WHEN {_EXPIRED} THEN excluded.id ELSE m.id END,
        joined_at = CASE WHEN {_EXPIRED}
            THEN greatest(excluded.joined_at, m.expires_at + interval '1 microsecond')
            ELSE m.joined_at END,
        updated_at = excluded.updated_at,
        expires_at = {_NEW_END},
        cause = 'MANUAL',
        actor = CASE WHEN {_EXPIRED} OR m.cause <> 'MANUAL' THEN excluded.actor ELSE m.actor END
    WHERE {_EXPIRED} OR CAST(:on_existing AS text) <> 'KEEP'
        AND (m.cause <> 'MANUAL' OR m.expires_at IS DISTINCT FROM {_NEW_END})
    RETURNING old.id IS DISTINCT FROM new.id AS joined,
        old.expires_at IS DISTINCT FROM new.expires_at AS end_moved, new.expires_at
)
SELECT u.id AS user_id, u.created_at AS user_created_at,
    (SELECT count(*) FROM put_in WHERE joined) AS added,
    (SELECT count(*) FROM taken_out WHERE was_active) AS removed,
    (SELECT count(*) FROM put_in WHERE NOT joined AND end_moved) AS extended,
    (SELECT extract(epoch FROM min(expires_at) - min(change.at)) FROM put_in, change) AS next_end
FROM users u WHERE u.id = :user_id
""")

_ACTIVE_BY_USERS = text(f"""
SELECT {MEMBERSHIP_COLUMNS}, {SEGMENT_COLUMNS}
FROM memberships m
JOIN segments s ON s.id = m.segment_id
JOIN users u ON u.id = m.user_id
WHERE m.user_id = ANY(:user_ids) AND {ACTIVE}
ORDER BY m.user_id, s.slug
""")

# By segment, not by user: many users are in few segments, and each segment is sent once.
_BY_SEGMENT: Final = f"""
FROM memberships m JOIN segments s ON s.id = m.segment_id
WHERE m.user_id = ANY(:user_ids) AND {ACTIVE}
GROUP BY s.id
"""

_ACTIVE_SEGMENTS = text(f"""
SELECT {SEGMENT_COLUMNS}, array_agg(m.user_id) AS user_ids {_BY_SEGMENT} ORDER BY s.slug
""")

# Before them one row, of no segment, with those users who are stored: so that users and their
# segments are one round trip.
_USERS_WITH_SEGMENTS = text(f"""
SELECT {SEGMENT_COLUMNS}, array_agg(u.id) AS user_ids, array_agg(u.created_at) AS users_created_at
FROM users u LEFT JOIN segments s ON false
WHERE u.id = ANY(:user_ids)
GROUP BY s.id
UNION ALL
SELECT {SEGMENT_COLUMNS}, array_agg(m.user_id), NULL {_BY_SEGMENT}
ORDER BY slug NULLS FIRST
""")

_IN = text(f"""
SELECT m.user_id, s.slug
FROM unnest(CAST(:user_ids AS bigint[]), CAST(:slugs AS text[])) AS asked (user_id, slug)
JOIN segments s ON s.slug = asked.slug AND s.deleted_at IS NULL
JOIN memberships m ON m.user_id = asked.user_id AND m.segment_id = s.id AND {ACTIVE}
""")

_EXCLUDED = text("""
SELECT e.user_id, s.slug
FROM unnest(CAST(:user_ids AS bigint[]), CAST(:slugs AS text[])) AS asked (user_id, slug)
JOIN segments s ON s.slug = asked.slug AND s.deleted_at IS NULL
JOIN exclusions e ON e.user_id = asked.user_id AND e.segment_id = s.id
""")

_COUNT = text(f"""
SELECT s.id AS segment_id, (
    SELECT count(*) FROM memberships m WHERE m.segment_id = s.id AND {ACTIVE}
) AS members
FROM segments s WHERE s.id = ANY(:segment_ids)
""")

_MEMBERS = text(f"""
SELECT asked.number, member.*
FROM unnest(
    CAST(:segment_ids AS bigint[]), CAST(:afters AS bigint[]), CAST(:rows AS int[])
) WITH ORDINALITY AS asked (segment_id, after, rows, number)
CROSS JOIN LATERAL (
    SELECT {MEMBERSHIP_COLUMNS}, {SEGMENT_COLUMNS},
        row_number() OVER (ORDER BY m.user_id) AS place
    FROM memberships m
    JOIN segments s ON s.id = m.segment_id
    JOIN users u ON u.id = m.user_id
    WHERE m.segment_id = asked.segment_id AND m.user_id > asked.after AND {ACTIVE}
    ORDER BY m.user_id LIMIT {MAX_PAGE_ROWS + 1}  -- a constant, for the planner's sake
) AS member
WHERE member.place <= asked.rows
ORDER BY asked.number, member.user_id
""")


@dataclass(frozen=True)
class Changed:
    """What `update_user_segments` did."""

    user: Row[Any]
    added: int
    removed: int
    extended: int


async def update_user_segments(
    session: WriteSession,
    *,
    user_id: int,
    add: Sequence[str],
    remove: Sequence[str],
    ttl: timedelta | None = None,
    expires_at: datetime | None = None,
    on_existing: OnExisting = OnExisting.EXTEND,
    actor: str | None = None,
) -> Changed:
    """Put a user into segments and take it out of others, all or nothing, in two round trips.

    The user is stored on the way. `add` and `remove` are slugs without repeats and with none in
    common; `ttl` or `expires_at` (at most one) ends every membership of `add`. Removing also
    excludes from the segments' rollouts, adding ends that.

    Raises:
        Refused: a slug that no segment bears, or an end out of range.
    """
    slugs = [*add, *remove]
    locked = (
        await session.execute(_LOCK, {"slugs": slugs, "slug_count": len(slugs), "user_id": user_id})
    ).all()
    segment_ids = {row.slug: row.id for row in locked}
    _refuse_unknown(add, remove, segment_ids.keys())
    if expires_at is not None:
        _refuse_out_of_range(expires_at - locked[0].locked_at)
    try:
        written = (
            await session.execute(
                _WRITE,
                {
                    "user_id": user_id,
                    "cause": Cause.MANUAL,
                    "actor": actor,
                    # In one order everywhere, as every lock.
                    "add_ids": sorted(segment_ids[slug] for slug in add),
                    "remove_ids": sorted(segment_ids[slug] for slug in remove),
                    "ttl": ttl,
                    "expires_at": expires_at,
                    "on_existing": on_existing,
                },
            )
        ).one()
    except IntegrityError as error:
        if "ck_memberships_expires_after_join" in str(error.orig):
            _refuse_out_of_range(timedelta(0))  # it came to pass between the two statements
        raise
    if written.next_end is not None and written.next_end <= MAX_DELAY_SECONDS:
        session.after_commit(Message(EXPIRE_DUE_MEMBERSHIPS, delay_seconds=float(written.next_end)))
    return Changed(written, written.added, written.removed, written.extended)


def _refuse_unknown(add: Sequence[str], remove: Sequence[str], known: Any) -> None:
    unknown = [
        (slug, (field, str(position)))
        for field, slugs in (("add", add), ("remove", remove))
        for position, slug in enumerate(slugs)
        if slug not in known
    ]
    if unknown:
        _, first_path = unknown[0]
        raise MutationRejected(SegmentNotFound(first_path, tuple(slug for slug, _ in unknown)))


def _refuse_out_of_range(remaining: timedelta) -> None:
    if not timedelta(seconds=1) <= remaining <= timedelta(seconds=MAX_TTL_SECONDS):
        raise MutationRejected(
            InvalidInput(
                ("expiresAt",), f"{remaining.total_seconds():.6f} seconds from now", TTL_ALLOWED
            )
        )


async def active_by_users(session: ReadSession, user_ids: Sequence[int]) -> Sequence[Row[Any]]:
    """Read the active memberships of users with their segments; those of each user by slug."""
    return (await session.execute(_ACTIVE_BY_USERS, {"user_ids": list(user_ids)})).all()


async def active_segments(session: ReadSession, user_ids: Sequence[int]) -> Sequence[Row[Any]]:
    """Read which segments users are in: a row for each segment, by slug, with `user_ids`."""
    return (await session.execute(_ACTIVE_SEGMENTS, {"user_ids": list(user_ids)})).all()


async def users_with_segments(
    session: ReadSession, user_ids: Sequence[int]
) -> tuple[Sequence[tuple[int, datetime]], Sequence[Row[Any]]]:
    """Read which of the users are stored, and since when; and the rows of `active_segments`."""
    rows = (await session.execute(_USERS_WITH_SEGMENTS, {"user_ids": list(user_ids)})).all()
    if not rows:
        return (), ()
    stored, *segments = rows
    return list(zip(stored.user_ids, stored.users_created_at, strict=True)), segments


async def active_pairs(
    session: ReadSession, pairs: Sequence[tuple[int, str]]
) -> set[tuple[int, str]]:
    """Of (user, slug) pairs, those where the user is an active member."""
    return await _pairs(session, _IN, pairs)


async def excluded_pairs(
    session: ReadSession, pairs: Sequence[tuple[int, str]]
) -> set[tuple[int, str]]:
    """Of (user, slug) pairs, those where the user is excluded by hand."""
    return await _pairs(session, _EXCLUDED, pairs)


async def _pairs(
    session: ReadSession, statement: Any, pairs: Sequence[tuple[int, str]]
) -> set[tuple[int, str]]:
    user_ids, slugs = zip(*pairs, strict=True)
    rows = await session.execute(statement, {"user_ids": list(user_ids), "slugs": list(slugs)})
    return {(row.user_id, row.slug) for row in rows}


async def member_counts(session: ReadSession, segment_ids: Sequence[int]) -> dict[int, int]:
    """Count active members, exactly: it costs an index scan over all of them."""
    rows = await session.execute(_COUNT, {"segment_ids": list(segment_ids)})
    return {row.segment_id: row.members for row in rows}


@dataclass(frozen=True)
class MembersPage:
    """Which page of a segment's members: up to `rows` of them above user number `after`."""

    segment_id: int
    after: int
    rows: int


async def member_pages(
    session: ReadSession, pages: Sequence[MembersPage]
) -> dict[MembersPage, list[Row[Any]]]:
    """Read pages of active members with their users, by user number; empty pages: absent."""
    values = {
        "segment_ids": [page.segment_id for page in pages],
        "afters": [page.after for page in pages],
        "rows": [page.rows for page in pages],
    }
    found: dict[MembersPage, list[Row[Any]]] = {}
    for row in await session.execute(_MEMBERS, values):
        found.setdefault(pages[row.number - 1], []).append(row)
    return found
