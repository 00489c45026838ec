"""The ends of memberships by TTL and by the deletion of their segment.

Every read hides a membership from the moment of its end on, by PostgreSQL's clock
(`reads.ACTIVE`), and `history` shows the leave at once. Workers only record the leaves. So each
function that records may run twice, late, concurrently or without need: it records what is due when
it runs. A message that was sent before a rejoin finds nothing due.
"""

from collections.abc import Set
from datetime import timedelta
from decimal import Decimal
from typing import Final

from sqlalchemy import text

from segmentql.adapters.jobs import MAX_DELAY_SECONDS, Message
from segmentql.adapters.sessions import ReadSession, WriteSession
from segmentql.errors import InvalidInput, MutationRejected
from segmentql.memberships.jobs import EXPIRE_DUE_MEMBERSHIPS
from segmentql.memberships.ordered_changes import record_expired
from segmentql.memberships.records import UnrecordedLeaves
from segmentql.validators import MAX_TTL_SECONDS, TTL_ALLOWED

BATCH_ROWS: Final = 5000
"""The maximum number of leaves in one transaction, about 0.1 s, so that locks are short."""

# SKIP LOCKED skips users that another transaction is changing: it records their leaves itself. The
# users are locked in a statement before the one that records leaves. That one then sees every
# membership of the users, so it never records a leave before an earlier one of the same user.
_LOCK_USERS_WITH_EXPIRED_MEMBERSHIPS = text("""
SELECT u.id FROM memberships m JOIN users u ON u.id = m.user_id
WHERE m.expires_at <= now()
ORDER BY m.expires_at, m.user_id LIMIT :rows
FOR NO KEY UPDATE OF u SKIP LOCKED
""")

# One worker at a time works on a segment, because several would only wait for each other.
_LOCK_SEGMENT = text("""
SELECT id FROM segments
WHERE id = :segment_id AND deleted_at IS NOT NULL AND leaves_recorded_at IS NULL
FOR NO KEY UPDATE SKIP LOCKED
""")

# A membership that expired before the deletion is not recorded here, but in the order of the user's
# other leaves by TTL.
_RECORD_LEAVES = text("""
WITH due AS (
    SELECT m.user_id, m.segment_id FROM memberships m
    WHERE m.segment_id = :segment_id AND (m.expires_at IS NULL
        OR m.expires_at > (SELECT deleted_at FROM segments WHERE id = :segment_id))
    ORDER BY m.user_id LIMIT :rows
    FOR UPDATE OF m
), ended AS (
    DELETE FROM memberships m USING due
    WHERE m.user_id = due.user_id AND m.segment_id = due.segment_id
    RETURNING 1
)
SELECT count(*) FROM ended
""")

_LOCK_MEMBERS = text("""
SELECT u.id FROM memberships m JOIN users u ON u.id = m.user_id
WHERE m.segment_id = :segment_id
ORDER BY m.user_id LIMIT :rows
FOR NO KEY UPDATE OF u SKIP LOCKED
""")

_HAS_MEMBERS = text("SELECT EXISTS (SELECT FROM memberships WHERE segment_id = :segment_id)")

_DELETE_EXCLUSIONS = text("""
DELETE FROM exclusions WHERE (user_id, segment_id) IN (
    SELECT user_id, segment_id FROM exclusions
    WHERE segment_id = :segment_id
    ORDER BY user_id LIMIT :rows
    FOR UPDATE
)
""")

_MARK_RECORDED = text(
    "UPDATE segments SET leaves_recorded_at = clock_timestamp() WHERE id = :segment_id"
)

_ANY_DUE = text("SELECT EXISTS (SELECT FROM memberships WHERE expires_at <= now())")

_SECONDS_TO_NEXT = text("""
SELECT CAST(extract(epoch FROM min(expires_at) - now()) AS float8) FROM memberships
""")

_SEGMENTS_WITH_UNRECORDED_LEAVES = text("""
SELECT id FROM segments
WHERE deleted_at IS NOT NULL AND leaves_recorded_at IS NULL ORDER BY id LIMIT 100
""")

_UNRECORDED = text("""
SELECT
    (SELECT count(*) FROM memberships WHERE expires_at <= now()) AS by_ttl,
    (SELECT count(*)
     FROM segments s JOIN memberships m ON m.segment_id = s.id
     WHERE s.deleted_at IS NOT NULL AND s.leaves_recorded_at IS NULL
       AND (m.expires_at IS NULL OR m.expires_at > now())) AS by_segment,
    coalesce(greatest(0, extract(epoch FROM now() - least(
        (SELECT min(expires_at) FROM memberships WHERE expires_at <= now()),
        (SELECT min(deleted_at) FROM segments
         WHERE deleted_at IS NOT NULL AND leaves_recorded_at IS NULL)
    ))), 0) AS oldest_seconds
""")


def check_expiry(remaining: timedelta) -> None:
    """Check the time until the requested end of memberships.

    Raises:
        MutationRejected: It is less than a second, or more than `MAX_TTL_SECONDS`.
    """
    if not timedelta(seconds=1) <= remaining <= timedelta(seconds=MAX_TTL_SECONDS):
        raise MutationRejected(
            InvalidInput(
                ("expiresAt",), f"{remaining.total_seconds():.6f} seconds from now", TTL_ALLOWED
            )
        )


def schedule_expiry(session: WriteSession, seconds: Decimal | None) -> None:
    """Send a message for the earliest new end after the commit.

    Args:
        session: The session.
        seconds: The time until that end; None if no membership has a new end.
    """
    if seconds is not None and seconds <= MAX_DELAY_SECONDS:
        session.after_commit(Message(EXPIRE_DUE_MEMBERSHIPS, delay_seconds=float(seconds)))


async def expire_due(session: WriteSession, *, rows: int = BATCH_ROWS) -> int:
    """Record the leaves of up to `rows` expired memberships; return their number."""
    locked = await session.execute(_LOCK_USERS_WITH_EXPIRED_MEMBERSHIPS, {"rows": rows})
    return await _record_leaves_by_ttl(session, set(locked.scalars()), rows)


async def _record_leaves_by_ttl(session: WriteSession, user_ids: Set[int], rows: int) -> int:
    if not user_ids:
        return 0
    return await record_expired(session, sorted(user_ids), rows=rows)


async def record_segment_leaves(
    session: WriteSession, segment_id: int, *, rows: int = BATCH_ROWS
) -> bool:
    """Record up to `rows` leaves of a deleted segment; return whether there may be more.

    This does nothing if the segment is not deleted or another worker is working on it. If other
    transactions have locked all remaining members, it returns False, and a later call continues.
    """
    values = {"segment_id": segment_id, "rows": rows}
    if not (await session.execute(_LOCK_SEGMENT, values)).one_or_none():
        return False
    ended: int = (await session.execute(_RECORD_LEAVES, values)).scalar_one()
    if ended:
        return True
    locked = await session.execute(_LOCK_MEMBERS, values)
    if await _record_leaves_by_ttl(session, set(locked.scalars()), rows):
        return True
    if (await session.execute(_HAS_MEMBERS, values)).scalar_one():
        return False
    if await session.count_affected(_DELETE_EXCLUSIONS, values):
        return True
    await session.execute(_MARK_RECORDED, {"segment_id": segment_id})
    return False


async def any_due(session: ReadSession) -> bool:
    """Return whether a membership has expired and its leave is not recorded."""
    return bool((await session.execute(_ANY_DUE)).scalar_one())


async def seconds_to_next(session: ReadSession) -> float | None:
    """Return the time until the next membership expires; None if no membership has a TTL."""
    seconds: float | None = (await session.execute(_SECONDS_TO_NEXT)).scalar_one()
    return seconds


async def segments_with_unrecorded_leaves(session: ReadSession) -> list[int]:
    """Return the ids of up to 100 deleted segments that have unrecorded leaves."""
    return list((await session.execute(_SEGMENTS_WITH_UNRECORDED_LEAVES)).scalars())


async def unrecorded(session: ReadSession) -> UnrecordedLeaves:
    """Count the leaves that are not yet recorded."""
    row = (await session.execute(_UNRECORDED)).one()
    return UnrecordedLeaves(row.by_ttl, row.by_segment, float(row.oldest_seconds))
