"""Rules and SQL of segments."""

from collections.abc import Sequence
from typing import Final

from sqlalchemy import TextClause, text

from segmentql.adapters.jobs import Message
from segmentql.adapters.sessions import ReadSession, WriteSession
from segmentql.audit import service as audit
from segmentql.audit.records import AuditAction, AuditState
from segmentql.errors import (
    MutationRejected,
    SegmentAlreadyExists,
    SegmentNotFound,
    VersionConflict,
)
from segmentql.principal import Actor
from segmentql.segments.jobs import RECORD_SEGMENT_LEAVES
from segmentql.segments.records import SegmentRecord
from segmentql.segments.rows import SEGMENT_COLUMNS, segment_record

MAX_CONFLICT_RETRIES: Final = 10
"""The number of attempts if other clients create or delete the same segment concurrently."""

_BY_SLUGS = text(f"""
SELECT {SEGMENT_COLUMNS} FROM segments s WHERE s.slug = ANY(:slugs) AND s.deleted_at IS NULL
""")

_BY_IDS = text(f"""
SELECT {SEGMENT_COLUMNS} FROM segments s
WHERE s.id = ANY(:segment_ids) AND s.deleted_at IS NULL
""")

_COUNT = text("SELECT count(*) FROM segments WHERE deleted_at IS NULL")

_CREATE = text(f"""
INSERT INTO segments AS s
    (slug, name, description, created_at, created_by, updated_at, updated_by)
SELECT :slug, CAST(:name AS text), CAST(:description AS text), at, CAST(:actor AS text), at,
    CAST(:actor AS text)
FROM (SELECT clock_timestamp() AS at OFFSET 0) AS moment
ON CONFLICT (slug) WHERE deleted_at IS NULL DO NOTHING
RETURNING {SEGMENT_COLUMNS}
""")

# Memberships can be added while this lock is held.
_LOCK_TO_UPDATE = text(f"""
SELECT {SEGMENT_COLUMNS} FROM segments s
WHERE s.slug = :slug AND s.deleted_at IS NULL FOR NO KEY UPDATE
""")

# A transaction that adds members locks the segment FOR KEY SHARE until it commits. New share locks
# can overtake a waiting exclusive row lock, so a busy segment could not be deleted. An advisory
# lock is a fair queue: both kinds of transaction take it before the row lock.
SEGMENT_LOCK_CLASS: Final = 7001

SEGMENT_LOCK: Final = f"{SEGMENT_LOCK_CLASS}, CAST(id % 2147483647 AS integer)"
"""The two integers of a segment's advisory lock. Two segments may share a lock."""

_LOCK_TO_DELETE = text(f"""
WITH named AS MATERIALIZED (
    SELECT id FROM segments WHERE slug = :slug AND deleted_at IS NULL
), queued AS MATERIALIZED (
    SELECT id, pg_advisory_xact_lock({SEGMENT_LOCK}) FROM named
)
SELECT {SEGMENT_COLUMNS} FROM segments s JOIN queued USING (id)
WHERE s.deleted_at IS NULL FOR UPDATE OF s
""")

_UPDATE = text(f"""
UPDATE segments s
SET name = :name, description = :description, version = s.version + 1, updated_by = :actor,
    updated_at = greatest(clock_timestamp(), s.updated_at + interval '1 microsecond')
WHERE s.id = :segment_id
RETURNING {SEGMENT_COLUMNS}
""")

_BUMP_VERSION = text(f"""
UPDATE segments s
SET version = s.version + 1, updated_by = :actor,
    updated_at = greatest(clock_timestamp(), s.updated_at + interval '1 microsecond')
WHERE s.id = :segment_id
RETURNING {SEGMENT_COLUMNS}
""")

# `deleted_at` is later than every join and leave of a member, even if the clock was set back.
_DELETE = text("""
UPDATE segments
SET deleted_by = :actor, deleted_by_api_key_id = :api_key_id,
    deleted_at = greatest(clock_timestamp(), (
        SELECT max(at) + interval '1 microsecond'
        FROM history WHERE segment_id = :segment_id AND at >= now()
    ))
WHERE id = :segment_id
""")


class Unset:
    """The type of `UNSET`, which stands for a field that a mutation does not change."""


UNSET: Final = Unset()


async def create_segment(
    session: WriteSession,
    *,
    slug: str,
    name: str | None,
    description: str | None,
    actor: Actor,
) -> SegmentRecord:
    """Create a segment without members.

    Raises:
        MutationRejected: another segment has the slug.
    """
    values = {"slug": slug, "name": name, "description": description, "actor": actor.name}
    for _ in range(MAX_CONFLICT_RETRIES):
        created = (await session.execute(_CREATE, values)).one_or_none()
        if created:
            segment = segment_record(created)
            await audit.record(
                session,
                actor=actor,
                action=AuditAction.SEGMENT_CREATED,
                target=segment.global_id,
                segment_id=segment.segment_id,
                after=_audit_state(segment),
            )
            return segment
        existing = (await session.execute(_BY_SLUGS, {"slugs": [slug]})).one_or_none()
        if existing:
            raise MutationRejected(
                SegmentAlreadyExists(("slug",), segment=segment_record(existing))
            )
    raise AssertionError("other clients created and deleted the segment at every attempt")


async def update_segment(
    session: WriteSession,
    *,
    slug: str,
    name: str | Unset | None,
    description: str | Unset | None,
    expected_version: int | None,
    actor: Actor,
) -> SegmentRecord:
    """Change the name or the description of a segment.

    If the values do not differ from the stored ones, the version and `updated_at` stay.

    Raises:
        MutationRejected: the segment does not exist or has another version.
    """
    segment = await lock_segment(session, slug=slug, expected_version=expected_version)
    new_name = segment.name if isinstance(name, Unset) else name
    new_description = segment.description if isinstance(description, Unset) else description
    if (new_name, new_description) == (segment.name, segment.description):
        return segment
    updated = await session.execute(
        _UPDATE,
        {
            "segment_id": segment.segment_id,
            "name": new_name,
            "description": new_description,
            "actor": actor.name,
        },
    )
    updated_segment = segment_record(updated.one())
    await audit.record(
        session,
        actor=actor,
        action=AuditAction.SEGMENT_UPDATED,
        target=segment.global_id,
        segment_id=segment.segment_id,
        before=_audit_state(segment),
        after=_audit_state(updated_segment),
    )
    return updated_segment


def _audit_state(segment: SegmentRecord) -> AuditState:
    return {
        "slug": segment.slug,
        "name": segment.name,
        "description": segment.description,
        "version": segment.version,
    }


async def lock_segment(
    session: WriteSession, *, slug: str, expected_version: int | None = None
) -> SegmentRecord:
    """Lock a segment for an update. Other transactions can add and remove members meanwhile.

    Raises:
        MutationRejected: the segment does not exist or has another version.
    """
    return await _lock(session, _LOCK_TO_UPDATE, slug, expected_version)


async def bump_version(session: WriteSession, segment_id: int, *, actor: Actor) -> SegmentRecord:
    """Increment the version of a locked segment whose rollout has changed."""
    bumped = await session.execute(_BUMP_VERSION, {"segment_id": segment_id, "actor": actor.name})
    return segment_record(bumped.one())


async def lock_segment_to_delete(
    session: WriteSession, *, slug: str, expected_version: int | None
) -> SegmentRecord:
    """Lock a segment exclusively: no other transaction can change it or its members meanwhile.

    Raises:
        MutationRejected: the segment does not exist or has another version.
    """
    return await _lock(session, _LOCK_TO_DELETE, slug, expected_version)


async def delete_segment(
    session: WriteSession, segment: SegmentRecord, *, rollout: AuditState | None, actor: Actor
) -> None:
    """Delete a segment in constant time; workers record the leaves of its members later.

    Args:
        session: The session.
        segment: The segment, locked by `lock_segment_to_delete`.
        rollout: The state of its rollout, for the audit log.
        actor: The author of the deletion.
    """
    await session.execute(
        _DELETE,
        {
            "segment_id": segment.segment_id,
            "actor": actor.name,
            "api_key_id": actor.api_key_id,
        },
    )
    await audit.record(
        session,
        actor=actor,
        action=AuditAction.SEGMENT_DELETED,
        target=segment.global_id,
        segment_id=segment.segment_id,
        before={**_audit_state(segment), "rollout": rollout},
    )
    session.after_commit(Message(RECORD_SEGMENT_LEAVES, (segment.segment_id,)))


async def _lock(
    session: WriteSession, statement: TextClause, slug: str, expected_version: int | None
) -> SegmentRecord:
    row = (await session.execute(statement, {"slug": slug})).one_or_none()
    if row is None:
        raise MutationRejected(SegmentNotFound(("slug",), (slug,)))
    segment = segment_record(row)
    if expected_version is not None and segment.version != expected_version:
        raise MutationRejected(
            VersionConflict(("expectedVersion",), expected_version, current=segment)
        )
    return segment


async def segments_by_slug(session: ReadSession, slugs: Sequence[str]) -> dict[str, SegmentRecord]:
    """Return the existing segments with these slugs."""
    rows = await session.execute(_BY_SLUGS, {"slugs": list(slugs)})
    return {row.slug: segment_record(row) for row in rows}


async def segments_by_id(
    session: ReadSession, segment_ids: Sequence[int]
) -> dict[int, SegmentRecord]:
    """Return the existing segments with these ids."""
    rows = await session.execute(_BY_IDS, {"segment_ids": list(segment_ids)})
    return {row.segment_id: segment_record(row) for row in rows}


async def count(session: ReadSession) -> int:
    """Return the number of existing segments."""
    return int((await session.execute(_COUNT)).scalar_one())
