"""Uploads of objects, their references, and the claims of workers that delete objects.

A deletion that has begun is never taken back: `keep_upload` rejects the object from then on.
"""

from collections.abc import Sequence
from typing import Final

from sqlalchemy import text

from segmentql.adapters.jobs import Message
from segmentql.adapters.sessions import ReadSession, WriteSession
from segmentql.objects.jobs import DELETE_OBJECTS
from segmentql.objects.records import ClaimedObject, OverdueObjects

BATCH_OBJECTS: Final = 100
"""The maximum number of objects that a worker claims at once."""

RETRY_SECONDS: Final = 15
"""The wait after the first failed deletion. It doubles with each further failure."""

MAX_RETRY_SECONDS: Final = 240
"""The maximum wait: how long after an outage of the store an object is deleted at the latest."""

_BEGIN_UPLOAD = text("""
INSERT INTO objects_to_delete (object_key, delete_after, writable_until, next_attempt_at)
SELECT :object_key, at, at, at
FROM (SELECT clock_timestamp() + make_interval(secs => :max_seconds) AS at OFFSET 0) AS moment
""")

_KEEP_UPLOAD = text("""
DELETE FROM objects_to_delete
WHERE object_key = :object_key AND attempts = 0 AND delete_after > clock_timestamp()
RETURNING object_key
""")

# The rows are locked in the order of their keys, so that two transactions cannot deadlock.
_DISCARD = text("""
INSERT INTO objects_to_delete AS o (object_key, delete_after, writable_until, next_attempt_at)
SELECT object_key, at, at + make_interval(secs => :max_write_seconds), at
FROM unnest(CAST(:object_keys AS text[])) AS object_key,
    (SELECT clock_timestamp() AS at OFFSET 0) AS moment
ORDER BY object_key
ON CONFLICT (object_key) DO UPDATE SET
    delete_after = least(o.delete_after, excluded.delete_after),
    writable_until = greatest(o.writable_until, excluded.writable_until),
    next_attempt_at = excluded.next_attempt_at
""")

_ANY_DUE = text("""
SELECT EXISTS (SELECT FROM objects_to_delete WHERE next_attempt_at <= statement_timestamp())
""")

_CLAIM = text(f"""
WITH due AS (
    SELECT object_key FROM objects_to_delete
    WHERE next_attempt_at <= statement_timestamp()
    ORDER BY next_attempt_at LIMIT {BATCH_OBJECTS}
    FOR UPDATE SKIP LOCKED
)
UPDATE objects_to_delete o SET
    attempts = o.attempts + 1,
    next_attempt_at = clock_timestamp() + make_interval(
        secs => least({RETRY_SECONDS} * 2 ^ least(o.attempts, 10), {MAX_RETRY_SECONDS}))
FROM due WHERE o.object_key = due.object_key
RETURNING o.object_key, o.next_attempt_at, o.writable_until <= statement_timestamp() AS is_final
""")

_OF_CLAIM: Final = """
FROM unnest(CAST(:object_keys AS text[]), CAST(:claims AS timestamptz[]))
    AS claimed (object_key, next_attempt_at)
WHERE o.object_key = claimed.object_key AND o.next_attempt_at = claimed.next_attempt_at
"""
"""A row that was discarded again after the claim has another `next_attempt_at`."""

_REMOVE = text(f"DELETE FROM objects_to_delete o {_OF_CLAIM.replace('FROM', 'USING', 1)}")

_DELETE_AGAIN = text(f"""
UPDATE objects_to_delete o SET delete_after = writable_until, next_attempt_at = writable_until
{_OF_CLAIM}
""")

_OVERDUE = text("""
SELECT count(*) AS number,
    coalesce(extract(epoch FROM now() - min(delete_after)), 0) AS oldest_seconds
FROM objects_to_delete WHERE delete_after <= now()
""")


async def begin_upload(session: WriteSession, object_key: str, *, max_seconds: float) -> None:
    """Record an object before its upload begins.

    If no transaction calls `keep_upload` in time, a worker deletes the object.

    Args:
        session: The session of a transaction that commits before the upload begins.
        object_key: The key. No other upload has it.
        max_seconds: The maximum time from now until the end of the upload.
    """
    await session.execute(_BEGIN_UPLOAD, {"object_key": object_key, "max_seconds": max_seconds})


async def keep_upload(session: WriteSession, object_key: str) -> bool:
    """Keep an uploaded object, because this transaction stores a reference to it.

    Returns:
        Whether the object exists. If not, its time has passed or it was discarded, and the
        transaction must not store the reference.
    """
    kept = await session.execute(_KEEP_UPLOAD, {"object_key": object_key})
    return kept.one_or_none() is not None


async def discard(
    session: WriteSession, object_keys: Sequence[str], *, max_write_seconds: float = 0
) -> None:
    """Delete objects soon after the commit, because this transaction drops their references.

    Args:
        session: The session.
        object_keys: The keys. Objects that do not exist are allowed.
        max_write_seconds: The maximum time from now in which an object may still be written, for
            instance by an attempt that is superseded, or by a client that has a link. Unfinished
            uploads are aborted soon after the commit, and the objects are deleted again at the end
            of this time.
    """
    if not object_keys:
        return
    await session.execute(
        _DISCARD, {"object_keys": list(object_keys), "max_write_seconds": max_write_seconds}
    )
    session.after_commit(Message(DELETE_OBJECTS))


async def any_due(session: ReadSession) -> bool:
    """Return whether a worker should delete objects now."""
    return bool((await session.execute(_ANY_DUE)).scalar_one())


async def claim(session: WriteSession) -> list[ClaimedObject]:
    """Claim up to `BATCH_OBJECTS` objects that are due."""
    return [
        ClaimedObject(row.object_key, row.next_attempt_at, row.is_final)
        for row in await session.execute(_CLAIM)
    ]


async def confirm(session: WriteSession, deleted: Sequence[ClaimedObject]) -> None:
    """Record that the store has deleted claimed objects.

    An object that may still be written is deleted again when its time has passed.
    """
    for is_final, statement in ((True, _REMOVE), (False, _DELETE_AGAIN)):
        claimed = sorted(
            (item.object_key, item.next_attempt_at) for item in deleted if item.is_final is is_final
        )
        if claimed:
            await session.execute(
                statement,
                {"object_keys": [key for key, _ in claimed], "claims": [at for _, at in claimed]},
            )


async def read_overdue(session: ReadSession) -> OverdueObjects:
    """Return the number and the age of the objects that should be deleted and may still exist."""
    row = (await session.execute(_OVERDUE)).one()
    return OverdueObjects(row.number, float(row.oldest_seconds))
