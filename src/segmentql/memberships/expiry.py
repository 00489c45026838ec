"""How memberships end by themselves: by their TTL, or with their segment.

Nobody waits for this. An end is true for every read from its very moment on, by the clock
(`service.ACTIVE`), and `history` shows the leave at once; what is done here only records it.
So each function may run twice, late, at once with others, or for nothing: it ends what is due
when it runs, and a message from before a re-join finds nothing due.
"""

from typing import Any, Final

from sqlalchemy import Row, text

from segmentql.adapters.database import ReadSession, WriteSession

BATCH_ROWS: Final = 5000
"""Leaves recorded in one transaction: some 0.1 s, so that nobody waits long for its locks."""

# now() is when the statement began, so what is due by it is due by the trigger's clock as well.
# SKIP LOCKED: what another worker is ending is theirs, and so are the ends of a user who is being
# changed: that change may be dated before an end that comes while it is written.
_EXPIRE_DUE = text("""
WITH due AS (
    SELECT m.user_id, m.segment_id
    FROM memberships m JOIN users u ON u.id = m.user_id
    WHERE m.expires_at <= now()
    ORDER BY m.expires_at, m.user_id LIMIT :rows
    FOR UPDATE OF m SKIP LOCKED
    FOR SHARE OF u SKIP LOCKED
), ended AS (
    DELETE FROM memberships m USING due
    WHERE m.user_id = due.user_id AND m.segment_id = due.segment_id
    RETURNING 1
)
SELECT count(*) FROM ended
""")

# One worker at a time on one segment: several would only wait for each other.
_LOCK_SEGMENT = text("""
SELECT id FROM segments
WHERE id = :segment_id AND deleted_at IS NOT NULL AND leaves_recorded_at IS NULL
FOR NO KEY UPDATE SKIP LOCKED
""")

_RECORD_LEAVES = text("""
WITH due AS (
    SELECT user_id, segment_id FROM memberships
    WHERE segment_id = :segment_id
    ORDER BY user_id LIMIT :rows
    FOR UPDATE
), ended AS (
    DELETE FROM memberships m USING due
    WHERE m.user_id = due.user_id AND m.segment_id = due.segment_id
    RETURNING 1
)
SELECT count(*) FROM ended
""")

_FORGET_EXCLUSIONS = text("""
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


async def expire_due(session: WriteSession, *, rows: int = BATCH_ROWS) -> int:
    """Record the leaves of up to `rows` memberships that have run out; how many it were."""
    ended: int = (await session.execute(_EXPIRE_DUE, {"rows": rows})).scalar_one()
    return ended


async def record_segment_leaves(
    session: WriteSession, segment_id: int, *, rows: int = BATCH_ROWS
) -> bool:
    """Record up to `rows` leaves of a deleted segment; whether there may be more to do.

    Does nothing to a segment that is not deleted, or that another worker is at.
    """
    values = {"segment_id": segment_id, "rows": rows}
    if not (await session.execute(_LOCK_SEGMENT, values)).one_or_none():
        return False
    ended: int = (await session.execute(_RECORD_LEAVES, values)).scalar_one()
    if ended:
        return True
    forgotten: Any = await session.execute(_FORGET_EXCLUSIONS, values)
    if forgotten.rowcount:
        return True
    await session.execute(_MARK_RECORDED, {"segment_id": segment_id})
    return False


async def any_due(session: ReadSession) -> bool:
    """Whether some membership has run out and is not recorded yet."""
    return bool((await session.execute(_ANY_DUE)).scalar_one())


async def seconds_to_next(session: ReadSession) -> float | None:
    """Return how soon the next membership runs out; None if no membership has a TTL."""
    seconds: float | None = (await session.execute(_SECONDS_TO_NEXT)).scalar_one()
    return seconds


async def segments_with_unrecorded_leaves(session: ReadSession) -> list[int]:
    """The numbers of deleted segments, 100 at most, whose leaves are not all recorded yet."""
    return list((await session.execute(_SEGMENTS_WITH_UNRECORDED_LEAVES)).scalars())


async def unrecorded(session: ReadSession) -> Row[Any]:
    """Count what has ended but is not recorded, as `by_ttl` and `by_segment`.

    `oldest_seconds`: for how long the first of it has been so.
    """
    return (await session.execute(_UNRECORDED)).one()
