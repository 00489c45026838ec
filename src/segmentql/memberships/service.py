"""Rules and SQL of memberships: manual changes, and reads."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Row, TextClause, text
from sqlalchemy.exc import IntegrityError

from segmentql.adapters.database import ReadSession, WriteSession
from segmentql.adapters.jobs import MAX_DELAY_SECONDS, Message
from segmentql.errors import InvalidInput, MutationRejected, SegmentNotFound
from segmentql.memberships.jobs import EXPIRE_DUE_MEMBERSHIPS
from segmentql.memberships.records import (
    MembershipRecord,
    MembersPage,
    OnExisting,
    UserSegmentsUpdate,
)
from segmentql.principal import NO_ACTOR, Actor
from segmentql.segments.records import SegmentRecord
from segmentql.segments.service import SEGMENT_COLUMNS, SEGMENT_LOCK, segment_record
from segmentql.tables import Cause
from segmentql.timestamps import CHANGE_OF_USER
from segmentql.users.records import UserRecord
from segmentql.users.service import (
    MAX_CONFLICT_RETRIES,
    USER_COLUMNS,
    USER_KEY_LOCK,
    user_record,
)
from segmentql.validators import MAX_PAGE_ROWS, MAX_TTL_SECONDS, TTL_ALLOWED

NOT_EXPIRED: Final = "(m.expires_at IS NULL OR m.expires_at > now())"
"""SQL condition: the TTL of the membership `m` has not ended, by the database's clock."""

ACTIVE: Final = f"s.deleted_at IS NULL AND {NOT_EXPIRED}"
"""SQL condition: the membership `m` of the segment `s` is active."""

MEMBERSHIP_COLUMNS: Final = """
m.id AS membership_id, m.user_id, m.joined_at, m.updated_at, m.expires_at, m.cause, m.actor,
u.created_at AS user_created_at, u.key AS user_key
"""
"""The columns of `membership_record`, for statements that read memberships as `m`, users as `u`."""


# All transactions lock in one order: segments by id, then the keys of users, then users by id. The
# segments' locks allow other transactions to add members, but not to delete the segment. The user's
# lock serializes all changes of one user. If the user is new, the trigger on `users` leaves the
# segments in `segmentql.by_hand` to this transaction and enrolls the user in the other rollouts.
def _lock_and_store_user(stored_user: str) -> TextClause:
    """Return the statement that locks the segments, and that locks or stores the user.

    Args:
        stored_user: CTEs of which the last one, `stored_user`, has the user's id as `user_id` if
            the user was locked or stored. They read `ready`, which has one row if every slug is
            known.
    """
    return text(f"""
WITH named AS MATERIALIZED (
    SELECT id FROM segments WHERE slug = ANY(:slugs) AND deleted_at IS NULL ORDER BY id
), queued AS MATERIALIZED (
    SELECT id, pg_advisory_xact_lock_shared({SEGMENT_LOCK}) FROM named
), found AS MATERIALIZED (
    SELECT s.id, s.slug FROM segments s JOIN queued USING (id)
    WHERE s.deleted_at IS NULL
    ORDER BY s.id FOR KEY SHARE OF s
), ready AS MATERIALIZED (
    SELECT FROM (
        SELECT count(*) AS total,
            set_config('segmentql.by_hand', CAST(coalesce(array_agg(id), '{{}}') AS text), true)
        FROM found
    ) AS named_segments
    WHERE total = :slug_count
), {stored_user}, done AS (
    SELECT max(user_id) AS user_id FROM stored_user
)
SELECT found.id, found.slug, done.user_id, clock_timestamp() AS locked_at
FROM done LEFT JOIN found ON true
""")


# ON CONFLICT ... WHERE false changes nothing and locks the existing row.
_LOCK_AND_STORE_USER_BY_ID = _lock_and_store_user("""
inserted AS (
    INSERT INTO users (id, created_at, created_by, created_by_api_key_id)
    SELECT :user_id, clock_timestamp(), CAST(:actor AS text), CAST(:api_key_id AS text) FROM ready
    ON CONFLICT (id) DO UPDATE SET created_at = users.created_at WHERE false
    RETURNING id
), stored_user AS (
    SELECT CAST(:user_id AS bigint) AS user_id FROM (SELECT count(*) FROM inserted) AS inserted
)
""")

# The joins with `ready` and `key_lock` keep the order of the locks.
_LOCK_AND_STORE_USER_BY_KEY = _lock_and_store_user(f"""
key_lock AS MATERIALIZED (
    SELECT pg_advisory_xact_lock_shared({USER_KEY_LOCK}) FROM ready
), existing AS MATERIALIZED (
    SELECT u.id FROM key_lock CROSS JOIN users u WHERE u.key = :user_key
    FOR NO KEY UPDATE OF u
), inserted AS (
    INSERT INTO users (id, key, created_at, created_by, created_by_api_key_id)
    SELECT next_id_for_key(), CAST(:user_key AS text), clock_timestamp(), CAST(:actor AS text),
        CAST(:api_key_id AS text)
    FROM key_lock LEFT JOIN existing ON true WHERE existing.id IS NULL
    ON CONFLICT DO NOTHING
    RETURNING id
), stored_user AS (
    SELECT id AS user_id FROM existing UNION ALL SELECT id FROM inserted
)
""")

_EXPIRED: Final = "m.expires_at <= excluded.updated_at"
_BECOMES_MANUAL: Final = f"({_EXPIRED} OR m.cause <> 'MANUAL')"
_NEW_END: Final = f"""
CASE WHEN {_EXPIRED} OR CAST(:on_existing AS text) = 'REPLACE' THEN excluded.expires_at
     WHEN m.expires_at IS NULL OR excluded.expires_at IS NULL THEN NULL
     ELSE greatest(m.expires_at, excluded.expires_at) END
"""

_UPDATE_MEMBERSHIPS = text(f"""
WITH {CHANGE_OF_USER},
removed AS (
    DELETE FROM memberships m USING change
    WHERE m.user_id = :user_id AND m.segment_id = ANY(:remove_ids)
    RETURNING m.expires_at IS NULL OR m.expires_at > change.at AS was_active
), excluded_now AS (
    INSERT INTO exclusions (user_id, segment_id, excluded_at, actor, api_key_id)
    SELECT :user_id, segment_id, change.at, CAST(:actor AS text), CAST(:api_key_id AS text)
    FROM change, unnest(CAST(:remove_ids AS bigint[])) AS segment_id
    ON CONFLICT DO NOTHING
), admitted AS (
    DELETE FROM exclusions WHERE user_id = :user_id AND segment_id = ANY(:add_ids)
), added AS (
    INSERT INTO memberships AS m
        (user_id, segment_id, joined_at, updated_at, expires_at, cause, actor, api_key_id)
    SELECT :user_id, segment_id, change.at, change.at,
        coalesce(CAST(:expires_at AS timestamptz), change.at + CAST(:ttl AS interval)),
        'MANUAL', CAST(:actor AS text), CAST(:api_key_id AS text)
    FROM change, unnest(CAST(:add_ids AS bigint[])) AS segment_id
    ON CONFLICT (user_id, segment_id) DO UPDATE SET
        -- An expired membership becomes a new one with a new id. The trigger then records both the
        -- leave at the old end and the join.
        id = CASE WHEN {_EXPIRED} THEN excluded.id ELSE m.id END,
        joined_at = CASE WHEN {_EXPIRED}
            THEN greatest(excluded.joined_at, m.expires_at + interval '1 microsecond')
            ELSE m.joined_at END,
        updated_at = excluded.updated_at,
        expires_at = {_NEW_END},
        cause = 'MANUAL',
        actor = CASE WHEN {_BECOMES_MANUAL} THEN excluded.actor ELSE m.actor END,
        api_key_id = CASE WHEN {_BECOMES_MANUAL} THEN excluded.api_key_id ELSE m.api_key_id END,
        import_id = CASE WHEN {_BECOMES_MANUAL} THEN excluded.import_id ELSE m.import_id END
    WHERE {_EXPIRED} OR CAST(:on_existing AS text) <> 'KEEP'
        AND (m.cause <> 'MANUAL' OR m.expires_at IS DISTINCT FROM {_NEW_END})
    RETURNING old.id IS DISTINCT FROM new.id AS joined,
        old.expires_at IS DISTINCT FROM new.expires_at AS end_moved, new.expires_at
)
-- PostgreSQL runs the subqueries in this order, so leaves get lower positions than joins.
SELECT {USER_COLUMNS},
    (SELECT count(*) FROM removed WHERE was_active) AS removed,
    (SELECT count(*) FROM added WHERE joined) AS added,
    (SELECT count(*) FROM added WHERE NOT joined AND end_moved) AS extended,
    (SELECT extract(epoch FROM min(expires_at) - min(change.at)) FROM added, change) AS next_end
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

# Grouped by segment, because many users are in few segments. So each segment is sent once.
_BY_SEGMENT: Final = f"""
FROM memberships m JOIN segments s ON s.id = m.segment_id
WHERE m.user_id = ANY(:user_ids) AND {ACTIVE}
GROUP BY s.id
"""

_ACTIVE_SEGMENTS = text(f"""
SELECT {SEGMENT_COLUMNS}, array_agg(m.user_id) AS user_ids {_BY_SEGMENT} ORDER BY s.slug
""")

# The first row has no segment and lists the stored users, so that one round trip reads the users
# and their segments.
_STORED_USERS: Final = f"""
SELECT {SEGMENT_COLUMNS}, array_agg(u.id) AS user_ids, array_agg(u.created_at) AS users_created_at,
    array_agg(u.key) AS user_keys
FROM {{users}} u LEFT JOIN segments s ON false
WHERE {{condition}}
GROUP BY s.id
UNION ALL
SELECT {SEGMENT_COLUMNS}, array_agg(m.user_id), NULL, NULL
"""

_USERS_WITH_SEGMENTS = text(f"""
{_STORED_USERS.format(users="users", condition="u.id = ANY(:user_ids)")} {_BY_SEGMENT}
ORDER BY slug NULLS FIRST
""")

_USERS_WITH_SEGMENTS_BY_KEY = text(f"""
WITH found AS MATERIALIZED (SELECT id, created_at, key FROM users WHERE key = ANY(:user_keys))
{_STORED_USERS.format(users="found", condition="true")}
{_BY_SEGMENT.replace(":user_ids", "ARRAY(SELECT id FROM found)")}
ORDER BY slug NULLS FIRST
""")

_ACTIVE_PAIRS = text(f"""
SELECT m.user_id, s.slug
FROM unnest(CAST(:user_ids AS bigint[]), CAST(:slugs AS text[])) AS requested (user_id, slug)
JOIN segments s ON s.slug = requested.slug AND s.deleted_at IS NULL
JOIN memberships m ON m.user_id = requested.user_id AND m.segment_id = s.id AND {ACTIVE}
""")

_ACTIVE_MEMBERSHIPS = text(f"""
SELECT {MEMBERSHIP_COLUMNS}, {SEGMENT_COLUMNS}
FROM unnest(CAST(:user_ids AS bigint[]), CAST(:slugs AS text[])) AS requested (user_id, slug)
JOIN segments s ON s.slug = requested.slug AND s.deleted_at IS NULL
JOIN memberships m ON m.user_id = requested.user_id AND m.segment_id = s.id AND {ACTIVE}
JOIN users u ON u.id = m.user_id
""")

_EXCLUDED_PAIRS = text("""
SELECT e.user_id, s.slug
FROM unnest(CAST(:user_ids AS bigint[]), CAST(:slugs AS text[])) AS requested (user_id, slug)
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
    )


async def update_user_segments(
    session: WriteSession,
    *,
    user_id: int | None = None,
    user_key: str | None = None,
    add: Sequence[str],
    remove: Sequence[str],
    ttl: timedelta | None = None,
    expires_at: datetime | None = None,
    on_existing: OnExisting = OnExisting.EXTEND,
    actor: Actor = NO_ACTOR,
) -> UserSegmentsUpdate:
    """Add a user to segments and remove the user from others, all or nothing, in two round trips.

    If the user is not stored, this stores the user. If other clients store the same new key at the
    same time, it takes one more round trip. Removing a user also excludes the user from
    the segment's rollout; adding the user again ends the exclusion.

    Args:
        session: The session.
        user_id: The user's id. Set either `user_id` or `user_key`.
        user_key: The user's key. A new user gets an id from a sequence.
        add: Slugs of segments; no slug occurs twice in `add` and `remove` together.
        remove: Slugs of segments.
        ttl: The time until the memberships of `add` end. Set at most one of `ttl` and `expires_at`.
        expires_at: When the memberships of `add` end.
        on_existing: The effect of adding a user who is already an active member.
        actor: The author of the change.

    Raises:
        MutationRejected: a segment does not exist, or the end is out of range.
    """
    slugs = [*add, *remove]
    named = {"user_key": user_key} if user_id is None else {"user_id": user_id}
    lock_and_store = _LOCK_AND_STORE_USER_BY_KEY if user_id is None else _LOCK_AND_STORE_USER_BY_ID
    author = {"actor": actor.name, "api_key_id": actor.api_key_id}
    for _ in range(MAX_CONFLICT_RETRIES):
        locked = (
            await session.execute(
                lock_and_store, {"slugs": slugs, "slug_count": len(slugs), **named, **author}
            )
        ).all()
        segment_ids: dict[str, int] = {row.slug: row.id for row in locked}
        _check_slugs_exist(add, remove, segment_ids.keys())
        stored_id = locked[0].user_id
        if stored_id is not None:
            break
    else:
        raise AssertionError("other clients stored and deleted the user at every attempt")
    if expires_at is not None:
        _check_expiry(expires_at - locked[0].locked_at)
    try:
        written = (
            await session.execute(
                _UPDATE_MEMBERSHIPS,
                {
                    "user_id": stored_id,
                    "cause": Cause.MANUAL,
                    **author,
                    # Sorted, because rows are locked in the order of ids.
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
            _check_expiry(timedelta(0))  # The end passed between the two statements.
        raise
    if written.next_end is not None and written.next_end <= MAX_DELAY_SECONDS:
        session.after_commit(Message(EXPIRE_DUE_MEMBERSHIPS, delay_seconds=float(written.next_end)))
    return UserSegmentsUpdate(
        user_record(written), written.added, written.removed, written.extended
    )


def _check_slugs_exist(
    add: Sequence[str], remove: Sequence[str], known_slugs: Collection[str]
) -> None:
    unknown = [
        (slug, (field, str(position)))
        for field, slugs in (("add", add), ("remove", remove))
        for position, slug in enumerate(slugs)
        if slug not in known_slugs
    ]
    if unknown:
        _, first_path = unknown[0]
        raise MutationRejected(SegmentNotFound(first_path, tuple(slug for slug, _ in unknown)))


def _check_expiry(remaining: timedelta) -> None:
    if not timedelta(seconds=1) <= remaining <= timedelta(seconds=MAX_TTL_SECONDS):
        raise MutationRejected(
            InvalidInput(
                ("expiresAt",), f"{remaining.total_seconds():.6f} seconds from now", TTL_ALLOWED
            )
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
    return _segments_by_user(await session.execute(_ACTIVE_SEGMENTS, {"user_ids": list(user_ids)}))


async def users_with_segments(
    session: ReadSession, user_ids: Sequence[int]
) -> dict[int, UserRecord]:
    """Return the stored users with the segments that they are in, by slug."""
    rows = await session.execute(_USERS_WITH_SEGMENTS, {"user_ids": list(user_ids)})
    return {user.user_id: user for user in _users_with_segments(rows.all())}


async def users_with_segments_by_key(
    session: ReadSession, user_keys: Sequence[str]
) -> dict[str, UserRecord]:
    """Return the stored users with these keys with the segments that they are in, by slug."""
    rows = await session.execute(_USERS_WITH_SEGMENTS_BY_KEY, {"user_keys": list(user_keys)})
    return {user.key: user for user in _users_with_segments(rows.all()) if user.key is not None}


def _users_with_segments(rows: Sequence[Row[Any]]) -> Iterator[UserRecord]:
    """Yield the users in rows of which the first one lists the users."""
    if not rows:
        return
    stored, *segment_rows = rows
    segments = _segments_by_user(segment_rows)
    for user_id, created_at, key in zip(
        stored.user_ids, stored.users_created_at, stored.user_keys, strict=True
    ):
        yield UserRecord(user_id, created_at, key, segments.get(user_id, []))


def _segments_by_user(rows: Iterable[Row[Any]]) -> dict[int, list[SegmentRecord]]:
    segments: dict[int, list[SegmentRecord]] = {}
    for row in rows:
        segment = segment_record(row)
        for user_id in row.user_ids:
            segments.setdefault(user_id, []).append(segment)
    return segments


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
    rows = await session.execute(statement, _pair_parameters(pairs))
    return {(row.user_id, row.slug) for row in rows}


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
